from . import errors, rules, targets
from .answer import Coverage
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
from .evidence.auditing import AuditReport, audit
from .explaining import coverage, explain, explain_targets
from .image import preprocess_image
from .methods import METHODS, Method
from .models import open_model
from .plan import prepare
from .result import Explanation, share
from .smooth import Augmented, Smooth

__version__: str
__all__ = [
    "METHODS",
    "AuditReport",
    "Augmented",
    "Backpropagation",
    "Coverage",
    "Deconvolution",
    "Explanation",
    "GradCAM",
    "Gradient",
    "GuidedBackpropagation",
    "GuidedGradCAM",
    "GuidedReLU",
    "Method",
    "Smooth",
    "__version__",
    "audit",
    "compute_guided_gradcam",
    "coverage",
    "errors",
    "explain",
    "explain_targets",
    "open_model",
    "prepare",
    "preprocess_image",
    "rules",
    "share",
    "targets",
]
