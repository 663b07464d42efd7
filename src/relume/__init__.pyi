from . import errors, rules, targets
from .image import preprocess_image
from .methods import (
    METHODS,
    Backpropagation,
    Deconvolution,
    GradCAM,
    Gradient,
    GuidedBackpropagation,
    GuidedGradCAM,
    GuidedReLU,
    Method,
    compute_guided_gradcam,
    coverage,
    explain,
    explain_targets,
)
from .result import Coverage, Explanation

__version__: str
__all__ = [
    "METHODS",
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
    "__version__",
    "compute_guided_gradcam",
    "coverage",
    "errors",
    "explain",
    "explain_targets",
    "preprocess_image",
    "rules",
    "targets",
]
