"""A target made of what a caller gave for one."""

from __future__ import annotations

from torch import Tensor

from relume.targets.base import Target, TargetLike
from relume.targets.classes import Class
from relume.targets.function import Function

__all__ = ["as_target"]


def as_target(value: TargetLike) -> Target:
    """Make a target of ``value``; whether it fits a network shows when it is frozen.

    Args:
        value: None for the predicted class of each image, a class, a sequence or a tensor ``(N,)`` of one class per image, a
            callable ``outputs -> (N,)``, or a target, which is returned as it is.

    Example:
        >>> print(as_target(None), as_target(243), as_target(len), sep="; ")
        the predicted class; class 243; len
    """
    if isinstance(value, Target):
        return value
    return Function(value) if callable(value) and not isinstance(value, Tensor) else Class(value)
