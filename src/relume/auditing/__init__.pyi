from .checks.classes import ClassSensitivity, class_sensitivity
from .checks.edges import EdgeSimilarity, edge_similarity
from .checks.faithfulness import Faithfulness, measure_faithfulness
from .checks.gradient_health import Health, measure_health
from .checks.randomisation import Randomisation, between_networks, randomise
from .checks.stability import Stability, measure_stability
from .checks.table import CHECKS, FIGURES, Checks, Figure, run_checks
from .report import AuditReport, audit
from .subject import Question
from .verdict import LIMITS, Limit, Verdict, judge

__all__ = [
    "CHECKS",
    "FIGURES",
    "LIMITS",
    "AuditReport",
    "Checks",
    "ClassSensitivity",
    "EdgeSimilarity",
    "Faithfulness",
    "Figure",
    "Health",
    "Limit",
    "Question",
    "Randomisation",
    "Stability",
    "Verdict",
    "audit",
    "between_networks",
    "class_sensitivity",
    "edge_similarity",
    "judge",
    "measure_faithfulness",
    "measure_health",
    "measure_stability",
    "randomise",
    "run_checks",
]
