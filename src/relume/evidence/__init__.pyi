from .datasets import folder_samples, scene_samples
from .estimates import Column, Estimate, estimate
from .evaluation import COLUMNS, Evaluation, Sample, evaluate
from .localisation import MEASURES, Measure, Truth, measure

__all__ = [
    "COLUMNS",
    "MEASURES",
    "Column",
    "Estimate",
    "Evaluation",
    "Measure",
    "Sample",
    "Truth",
    "estimate",
    "evaluate",
    "folder_samples",
    "measure",
    "scene_samples",
]
