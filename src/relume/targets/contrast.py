"""The difference of scores as a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.activation import Activation
from relume.targets.base import Target, TargetLike, named
from relume.targets.classes import Class
from relume.targets.conversion import as_target
from relume.targets.nearest import Nearest
from relume.targets.outputs import class_scores
from relume.text import significant

__all__ = ["Contrast"]


@dataclass(frozen=True, slots=True, eq=False)
class Contrast(Target):
    """The score of a target minus ``gamma`` times that of another, or the mean of several: why this and not that?

    Prabhushankar et al. 2020, arXiv:2008.00178. ``Contrast(None, Nearest(3), gamma=0.6)`` is Finer-CAM (Zhang et al. 2025,
    arXiv:2501.11309): the mean of ``s - 0.6 · s_k`` over the three nearest classes k.

    Attributes:
        target: any target, such as None for the predicted class.
        against: any target; a list of several; or the nearest classes, if the target is a class.
        gamma: how strongly the other side counts, above 0.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[1.0, 5.0, 3.0]])
        >>> Contrast(None, 2).frozen(outputs, 1).scores(outputs)
        tensor([2.])
        >>> Contrast(1, [0, 2]).frozen(outputs, 1).scores(outputs)
        tensor([3.])
    """

    target: TargetLike
    against: TargetLike | Nearest
    gamma: float = 1.0

    @property
    def _own(self) -> Target:
        return as_target(self.target)

    @property
    def _others(self) -> list[Target]:
        """The targets on the other side; none yet if they are the nearest classes."""
        if isinstance(self.against, Nearest):
            return []
        return [as_target(other) for other in (self.against if isinstance(self.against, list | tuple) else [self.against])]

    def _each(self, change: Callable[[Target], Target]) -> Contrast:
        """Change the targets of both sides."""
        others = self.against if isinstance(self.against, Nearest) else tuple(map(change, self._others))
        return replace(self, target=change(self._own), against=others)  # type: ignore[arg-type]

    def frozen(self, outputs: Any, count: int) -> Contrast:
        """Freeze both sides.

        Raises:
            TargetError: both sides are the same class in some image, one is a unit inside the network, or there are no others.
        """
        for side in (self._own, *self._others):
            if side.layer is not None:
                raise TargetError(f"a contrast is of scores of the network, and {side} is inside it; explain it by itself")
        if not _is_weight(self.gamma):
            raise TargetError(f"gamma is a number above 0, such as 0.6; got {self.gamma!r}")
        if not isinstance(self.against, Nearest) and not self._others:
            raise TargetError("a contrast is against one target at least; the list of others is empty")
        own = self._own.frozen(outputs, count)
        one = _class_alone(own)
        if isinstance(self.against, Nearest):
            if one is None or not isinstance(own, Class):
                raise TargetError(f"the nearest are classes, and {own} is none; name the targets to contrast it with")
            nearest = self.against.classes(class_scores(outputs, count), one)
            others: tuple[Target, ...] = tuple(Class(column) for column in nearest.unbind(1))
        else:
            others = tuple(other.frozen(outputs, count) for other in self._others)
        for other in others:
            _check_different(own, other)
        return replace(self, target=own, against=others)  # type: ignore[arg-type]

    def scores(self, outputs: Any) -> Tensor:
        """Compute the difference of the scores, ``(N,)``."""
        others = torch.stack([other.scores(outputs) for other in self._others])
        return self._own.scores(outputs) - self.gamma * others.mean(0)

    def check(self, count: int) -> None:
        """Refuse ``count`` images if a side does."""
        for side in (self._own, *self._others):
            side.check(count)

    def known(self, size: Sequence[int], activation: Activation) -> Contrast:
        """Give both sides with what they must know."""
        return self._each(lambda side: side.known(size, activation))

    def rows(self, some: slice) -> Contrast:
        """Give both sides for ``some`` of the images."""
        return self._each(lambda side: side.rows(some))

    def repeated(self, times: int) -> Contrast | None:
        """Give both sides for the batch repeated so many ``times``; None if one of them cannot be."""
        if any(side.repeated(times) is None for side in (self._own, *self._others)):
            return None
        return self._each(lambda side: side.repeated(times) or side)

    @property
    def is_local(self) -> bool:
        """True if a side is."""
        return any(side.is_local for side in (self._own, *self._others))

    @property
    def has_class_scores(self) -> bool:
        """False if a side reads what cannot be class scores."""
        return all(side.has_class_scores for side in (self._own, *self._others))

    @property
    def classes(self) -> Tensor | None:
        """The class of each image that is contrasted with one other class, ``(N,)`` int64, once frozen."""
        return None if self.versus is None else _class_alone(self._own)

    @property
    def versus(self) -> Tensor | None:
        """The one class that it is contrasted with, ``(N,)`` int64, once frozen."""
        alone = isinstance(self._own, Class) and len(self._others) == 1 and isinstance(self._others[0], Class)
        return _class_alone(self._others[0]) if alone else None

    def words(self, image: int, labels: Sequence[str] | None) -> str | None:
        """Say what is contrasted with what in one image; nothing where two classes and no ``gamma`` say it all."""
        if self.versus is not None and self.gamma == 1:
            return None
        own, *others = (_called(side, image, labels) for side in (self._own, *self._others))
        weight = "" if self.gamma == 1 else f"{significant(self.gamma)} × "
        return f"{own} rather than {weight}{' and '.join(others)}"

    def __str__(self) -> str:
        others = self.against if isinstance(self.against, Nearest) else " and ".join(map(str, self._others))
        return f"{self._own} and not {others}"


def _called(side: Target, image: int, labels: Sequence[str] | None) -> str:
    """Say what one side is in one image."""
    if words := side.words(image, labels):
        return words
    if side.classes is None:
        return str(side)
    own = named(int(side.classes[image]), labels)
    return own if side.versus is None else f"({own} rather than {named(int(side.versus[image]), labels)})"


def _class_alone(target: Target) -> Tensor | None:
    """Find the class of each image of a target that is about one class only."""
    return target.classes if target.versus is None else None


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _check_different(own: Target, against: Target) -> None:
    """Refuse a class against itself; two places of one class are two questions."""
    one, other = _class_alone(own), _class_alone(against)
    if one is None or other is None or (own.is_local and against.is_local):
        return
    for image in (one == other).nonzero().flatten().tolist():
        of = "" if len(one) == 1 else f" of image {image}"
        raise TargetError(f"class {int(one[image])}{of} is contrasted with itself, which explains nothing; name another")
