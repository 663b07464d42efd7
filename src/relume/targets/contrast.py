"""The difference of two scores as a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target, TargetLike
from relume.targets.conversion import as_target

__all__ = ["Contrast"]


@dataclass(frozen=True, slots=True, eq=False)
class Contrast(Target):
    """The score of ``a`` minus the score of ``b``: why this and not that?

    Prabhushankar et al. 2020, arXiv:2008.00178.

    Attributes:
        a: any target, such as None for the predicted class.
        b: any target.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[1.0, 5.0, 3.0]])
        >>> Contrast(None, 2).frozen(outputs, 1).scores(outputs)
        tensor([2.])
    """

    a: TargetLike
    b: TargetLike

    def frozen(self, outputs: Any, count: int) -> Contrast:
        """Freeze both sides.

        Raises:
            TargetError: both sides are the same class in some image, or one is a unit inside the network.
        """
        for side in map(as_target, (self.a, self.b)):
            if side.layer is not None:
                raise TargetError(f"a contrast is of two scores of the network, and {side} is inside it; explain it by itself")
        a, b = (as_target(side).frozen(outputs, count) for side in (self.a, self.b))
        one, other = _class_alone(a), _class_alone(b)
        if one is not None and other is not None:
            for image in (one == other).nonzero().flatten().tolist():
                of = "" if count == 1 else f" of image {image}"
                raise TargetError(
                    f"class {int(one[image])}{of} is contrasted with itself, which explains nothing; name another"
                )
        return Contrast(a, b)

    def scores(self, outputs: Any) -> Tensor:
        """Read the difference of the scores, ``(N,)``."""
        return as_target(self.a).scores(outputs) - as_target(self.b).scores(outputs)

    def check(self, count: int) -> None:
        """Refuse ``count`` images if a side does."""
        as_target(self.a).check(count)
        as_target(self.b).check(count)

    def rows(self, some: slice) -> Contrast:
        """Give both sides for ``some`` of the images."""
        return Contrast(as_target(self.a).rows(some), as_target(self.b).rows(some))

    def repeated(self, times: int) -> Contrast | None:
        """Give both sides for the batch repeated so many ``times``; None if one of them cannot be."""
        a, b = as_target(self.a).repeated(times), as_target(self.b).repeated(times)
        return None if a is None or b is None else Contrast(a, b)

    @property
    def is_local(self) -> bool:
        """True if a side is."""
        return as_target(self.a).is_local or as_target(self.b).is_local

    @property
    def classes(self) -> Tensor | None:
        """The class of each image that is contrasted with another, ``(N,)`` int64, once frozen."""
        return _class_alone(as_target(self.a))

    @property
    def versus(self) -> Tensor | None:
        """The class that it is contrasted with, ``(N,)`` int64, once frozen."""
        return _class_alone(as_target(self.b))

    def __str__(self) -> str:
        return f"{as_target(self.a)} and not {as_target(self.b)}"


def _class_alone(target: Target) -> Tensor | None:
    """Find the class of each image of a target that is about one class only."""
    return target.classes if target.versus is None else None
