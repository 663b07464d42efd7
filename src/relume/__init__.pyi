from . import captum, errors, rules, targets
from .acceleration.prepared import prepare
from .attribution import (
    Backpropagation,
    Deconvolution,
    GradCAM,
    Gradient,
    GuidedBackpropagation,
    GuidedGradCAM,
    GuidedReLU,
    compute_guided_gradcam,
)
from .auditing.report import AuditReport
from .auditing.run import audit
from .datasets.engines import run
from .datasets.store import Run
from .engine.coverage import Coverage
from .evaluation.grid_pointing import calibrate
from .evaluation.run import evaluate
from .explanation.calibration import Calibration
from .explanation.comparison import Comparison, compare
from .explanation.result import Explanation
from .explanation.run import coverage, explain
from .explanation.scales import share
from .methods.averaged import Augmented, Smooth
from .methods.base import METHODS, Method
from .methods.competing import Competing
from .models.sources import open_model
from .pictures.preprocessing import Preprocessing, preprocess_image

__version__: str
__all__ = [
    "METHODS",
    "AuditReport",
    "Augmented",
    "Backpropagation",
    "Calibration",
    "Comparison",
    "Competing",
    "Coverage",
    "Deconvolution",
    "Explanation",
    "GradCAM",
    "Gradient",
    "GuidedBackpropagation",
    "GuidedGradCAM",
    "GuidedReLU",
    "Method",
    "Preprocessing",
    "Run",
    "Smooth",
    "__version__",
    "audit",
    "calibrate",
    "captum",
    "compare",
    "compute_guided_gradcam",
    "coverage",
    "errors",
    "evaluate",
    "explain",
    "open_model",
    "prepare",
    "preprocess_image",
    "rules",
    "run",
    "share",
    "targets",
]
