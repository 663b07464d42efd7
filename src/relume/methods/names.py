"""The words that results and remarks share: what methods are called, and why a map is empty."""

from __future__ import annotations

__all__ = ["NAMES", "NO_GRADCAM", "NO_GRADIENT", "WRAPPERS", "method_name"]

#: How the remark on a Guided Grad-CAM begins whose Grad-CAM is empty.
NO_GRADCAM = "its Grad-CAM is empty"

#: The remark on every map of a score that has no gradient; no other layer, class or method would help.
NO_GRADIENT = "the score does not depend on the picture here (no gradient at all): check the weights and the target"

#: What figures call the methods.
NAMES = {
    "gradient": "gradient",
    "deconvnet": "deconvnet",
    "guided_backprop": "guided backpropagation",
    "gradcam": "Grad-CAM",
    "guided_gradcam": "Guided Grad-CAM",
}

#: What maps that a wrapper makes of a method's are called.
WRAPPERS = {"smooth": "SmoothGrad, {}", "vargrad": "VarGrad, {}", "augmented": "augmented, {}"}


def method_name(key: str) -> str:
    """What figures call the method of a key."""
    wrapper, _, inner = key.partition("_")
    return WRAPPERS[wrapper].format(method_name(inner)) if wrapper in WRAPPERS else NAMES.get(key, key)
