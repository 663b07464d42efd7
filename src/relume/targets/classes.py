"""A class as a target."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target
from relume.targets.fitting import check_class
from relume.targets.outputs import class_scores

__all__ = ["Class"]


@dataclass(frozen=True, slots=True, eq=False)
class Class(Target):
    """The score of one class in each image.

    Attributes:
        index: the class; one class per image, as a sequence or a tensor ``(N,)``; or None for each image's predicted class.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[1.0, 5.0, 3.0]])
        >>> Class(2).frozen(outputs, 1).scores(outputs)
        tensor([3.])
        >>> Class().frozen(outputs, 1).classes
        tensor([1])
    """

    index: int | Sequence[int] | Tensor | None = None

    def frozen(self, outputs: Any, count: int) -> Class:
        """Decide the class of each image.

        Raises:
            TargetError: no class scores among the outputs, an index of a wrong type, of a wrong length or out of range.
        """
        scores = class_scores(outputs, count)
        if self.index is None:
            return Class(scores.detach().argmax(dim=1))
        classes, known = _indices(self.index, count), scores.shape[1]
        for index in classes:
            check_class(index, known)
        return Class(torch.tensor(classes, device=scores.device))

    def scores(self, outputs: Any) -> Tensor:
        """Read the score of each image's class, ``(N,)``."""
        assert isinstance(self.index, Tensor), "frozen before it is asked"
        return self.by_class(outputs).gather(1, self.index[:, None])[:, 0]

    def by_class(self, outputs: Any) -> Tensor:
        """Read the scores of all classes, ``(N, classes)``."""
        assert isinstance(self.index, Tensor), "frozen before it is asked"
        return class_scores(outputs, len(self.index))

    def check(self, count: int) -> None:
        """Refuse ``count`` images if there is a class for each of another number of them."""
        if self.index is not None:
            _indices(self.index, count)

    def rows(self, some: slice) -> Class:
        """Give the classes of ``some`` of the images."""
        return self if _is_single(self.index) else Class(self.index[some])  # type: ignore[index]

    def repeated(self, times: int) -> Class:
        """Give the classes for the batch repeated so many ``times``."""
        if _is_single(self.index):
            return self
        return Class(self.index.repeat(times) if isinstance(self.index, Tensor) else [*self.index] * times)  # type: ignore[misc]

    @property
    def classes(self) -> Tensor | None:
        """The class of each image, ``(N,)`` int64, once frozen."""
        return self.index if isinstance(self.index, Tensor) else None

    def __str__(self) -> str:
        return "the predicted class" if self.index is None else f"class {self.index}"


def _is_single(index: object) -> bool:
    """Tell whether an index stands for all images: None or one class."""
    return not hasattr(index, "__len__") or getattr(index, "ndim", 1) == 0


def _indices(index: Any, count: int) -> list[int]:
    """List the class of each of ``count`` images; what only looks like an int (bool, float, str) is refused.

    Raises:
        TargetError: wrong type or wrong length.
    """
    values = index.tolist() if hasattr(index, "tolist") else index
    values = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    try:
        indices = [operator.index(value) for value in values]
    except TypeError:
        indices = []
    if len(indices) != len(values) or any(isinstance(value, bool) for value in values):
        raise TargetError(
            f"a target is None, a class index, one index per sample, or a callable outputs -> (N,); got {index!r}"
        )
    if len(indices) == 1 and (isinstance(index, int) or getattr(index, "ndim", None) == 0):
        indices *= count
    if len(indices) != count:
        raise TargetError(f"{len(indices)} targets were given for {count} samples; give one class, or one per sample")
    return indices
