from .checks.base import Check, Limit, Measure
from .checks.classes import ClassSensitivity, class_sensitivity
from .checks.complexity import Complexity, measure_complexity
from .checks.edges import EdgeSimilarity, edge_similarity
from .checks.faithfulness import Faithfulness, measure_faithfulness
from .checks.gradient_health import Health, measure_health
from .checks.randomisation import Randomisation, between_networks, randomise
from .checks.stability import Stability, measure_stability
from .checks.table import CHECKS, measures_of, run_checks
from .drawing import Chart, Curve, Strip, Tile
from .report import AuditReport
from .run import audit
from .subject import Subject
from .verdict import Verdict, judge

__all__ = [
    "CHECKS",
    "AuditReport",
    "Chart",
    "Check",
    "ClassSensitivity",
    "Complexity",
    "Curve",
    "EdgeSimilarity",
    "Faithfulness",
    "Health",
    "Limit",
    "Measure",
    "Randomisation",
    "Stability",
    "Strip",
    "Subject",
    "Tile",
    "Verdict",
    "audit",
    "between_networks",
    "class_sensitivity",
    "edge_similarity",
    "judge",
    "measure_complexity",
    "measure_faithfulness",
    "measure_health",
    "measure_stability",
    "measures_of",
    "randomise",
    "run_checks",
]
