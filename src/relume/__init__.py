"""relume: guided backpropagation and Guided Grad-CAM for any PyTorch vision network, right and with its evidence.

Importing this package loads nothing heavy; a name loads its module, and with it torch, when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relume import errors, rules, targets
    from relume.image import preprocess_image
    from relume.methods import (
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
    from relume.result import Coverage, Explanation

__version__ = "0.1.0"

_HOMES = {
    "image": ["preprocess_image"],
    "methods": [
        "METHODS",
        "Backpropagation",
        "Deconvolution",
        "GradCAM",
        "Gradient",
        "GuidedBackpropagation",
        "GuidedGradCAM",
        "GuidedReLU",
        "Method",
        "compute_guided_gradcam",
        "coverage",
        "explain",
        "explain_targets",
    ],
    "result": ["Coverage", "Explanation"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name in ("errors", "rules", "targets"):
        return import_module(f"relume.{name}")
    if name in _HOME_OF:
        return getattr(import_module(f"relume.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'relume' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
