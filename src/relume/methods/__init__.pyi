from .averaged import Augmented, Smooth
from .base import METHODS, Method, backpropagation, class_activation, guided_by
from .competing import Competing
from .gradients import Fuse, Gradients
from .names import DEFAULT_METHODS
from .wrapper import Copy, MethodLike, Moments, Wrapper, resolve_methods

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "Augmented",
    "Competing",
    "Copy",
    "Fuse",
    "Gradients",
    "Method",
    "MethodLike",
    "Moments",
    "Smooth",
    "Wrapper",
    "backpropagation",
    "class_activation",
    "guided_by",
    "resolve_methods",
]
