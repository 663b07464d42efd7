from .run import COLUMNS, Evaluation, Sample, evaluate
from .samples import folder_samples, scene_samples
from .table import Column

__all__ = ["COLUMNS", "Column", "Evaluation", "Sample", "evaluate", "folder_samples", "scene_samples"]
