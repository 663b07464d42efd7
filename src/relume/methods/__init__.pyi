from .averaged import Augmented, Smooth
from .base import METHODS, Method, backpropagation
from .gradients import Fuse, Gradients
from .wrapper import Copy, MethodLike, Moments, Wrapper, resolve_methods

__all__ = [
    "METHODS",
    "Augmented",
    "Copy",
    "Fuse",
    "Gradients",
    "Method",
    "MethodLike",
    "Moments",
    "Smooth",
    "Wrapper",
    "backpropagation",
    "resolve_methods",
]
