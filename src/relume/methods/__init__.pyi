from .averaged import Augmented, Repeated, Smooth
from .base import METHODS, Fuse, Gathered, Method

__all__ = ["METHODS", "Augmented", "Fuse", "Gathered", "Method", "Repeated", "Smooth"]
