from .auditing import AuditReport, audit
from .checks import CHECKS, FIGURES, Checks, Figure, run_checks
from .classes import ClassSensitivity, class_sensitivity
from .datasets import folder_samples, scene_samples
from .edges import EdgeSimilarity, edge_similarity
from .estimates import Column, Estimate, estimate
from .evaluation import COLUMNS, Evaluation, Sample, evaluate
from .faithfulness import Faithfulness, measure_faithfulness
from .health import Health, measure_health
from .localisation import MEASURES, Measure, Truth, measure
from .question import Question
from .randomisation import Randomisation, between_networks, randomise
from .similarity import SIMILARITIES, Maps, Similarity
from .stability import Stability, measure_stability
from .verdict import LIMITS, Limit, Verdict, judge

__all__ = [
    "CHECKS",
    "COLUMNS",
    "FIGURES",
    "LIMITS",
    "MEASURES",
    "SIMILARITIES",
    "AuditReport",
    "Checks",
    "ClassSensitivity",
    "Column",
    "EdgeSimilarity",
    "Estimate",
    "Evaluation",
    "Faithfulness",
    "Figure",
    "Health",
    "Limit",
    "Maps",
    "Measure",
    "Question",
    "Randomisation",
    "Sample",
    "Similarity",
    "Stability",
    "Truth",
    "Verdict",
    "audit",
    "between_networks",
    "class_sensitivity",
    "edge_similarity",
    "estimate",
    "evaluate",
    "folder_samples",
    "judge",
    "measure",
    "measure_faithfulness",
    "measure_health",
    "measure_stability",
    "randomise",
    "run_checks",
    "scene_samples",
]
