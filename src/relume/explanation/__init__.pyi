from .belief import Verdict
from .calibration import Calibration, Scores
from .comparison import Comparison, compare
from .quick_checks import Evidence
from .request import Options, Request
from .result import Explanation
from .run import coverage, explain, explanations
from .scales import share
from .storage import WRITERS, SaveOptions

__all__ = [
    "WRITERS",
    "Calibration",
    "Comparison",
    "Evidence",
    "Explanation",
    "Options",
    "Request",
    "SaveOptions",
    "Scores",
    "Verdict",
    "compare",
    "coverage",
    "explain",
    "explanations",
    "share",
]
