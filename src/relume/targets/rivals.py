"""The classes that compete with the one explained, as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target

__all__ = ["Rival", "rivals_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Rival(Target):
    """The score of another class in each image, where a frozen target is about one.

    Attributes:
        of: the target, frozen.
        index: the other class of each image, ``(N,)``.
    """

    of: Target
    index: Tensor

    def scores(self, outputs: Any) -> Tensor:
        """Read the score of the other class, ``(N,)``."""
        by_class = self.of.by_class(outputs)
        assert by_class is not None, "found among the scores of all classes"
        return by_class.gather(1, self.index[:, None])[:, 0]

    def rows(self, some: slice) -> Rival:
        """Give those of ``some`` of the images."""
        return Rival(self.of.rows(some), self.index[some])

    def repeated(self, times: int) -> Rival | None:
        """Give those for the batch repeated so many ``times``."""
        of = self.of.repeated(times)
        return None if of is None else Rival(of, self.index.repeat(times))

    @property
    def is_local(self) -> bool:
        """True if the target is."""
        return self.of.is_local


def rivals_of(target: Target, outputs: Any, count: int) -> list[Rival]:
    """Find the ``count`` classes that compete with that of a frozen ``target``: the highest others, and last the lowest.

    Walter, Vreeken & Fischer 2026, arXiv:2503.07346. If a network has fewer classes, all others compete.

    Raises:
        TargetError: the target is not about a class that others can stand for, or the network has one class alone.

    Example:
        >>> from relume.targets import Class
        >>> outputs = torch.tensor([[5.0, 1.0, 4.0, 3.0, 0.0]])
        >>> [rival.index.tolist() for rival in rivals_of(Class(torch.tensor([2])), outputs, 3)]
        [[0], [3], [4]]
    """
    by_class, own = target.by_class(outputs), target.classes
    if by_class is None or own is None:
        raise TargetError(
            f"classes compete for what the score of one can be read for the others too, and {target} is no such score; "
            "explain a class, a probability, a segmentation, or a box of a detector that scores all classes"
        )
    others = by_class.shape[1] - 1
    if others < 1:
        raise TargetError("classes compete, and this network has one; explain it by the plain method")
    order = by_class.detach().scatter(1, own[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]
    ranks = [*range(min(count, others) - 1), others - 1]
    return [Rival(target, order[:, rank]) for rank in ranks]
