"""The classes whose scores are nearest to that of the class explained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import is_index

__all__ = ["Nearest"]


@dataclass(frozen=True, slots=True)
class Nearest:
    """So many classes whose scores are nearest to that of the class explained; a contrast is made against them.

    They are those that a network could have confused it with: Zhang et al. 2025, Finer-CAM, arXiv:2501.11309.

    Attributes:
        count: how many.

    Example:
        >>> import torch
        >>> Nearest(2).classes(torch.tensor([[5.0, 1.0, 4.0, 7.0]]), torch.tensor([0]))
        tensor([[2, 3]])
    """

    count: int

    def classes(self, scores: Tensor, explained: Tensor) -> Tensor:
        """Find the nearest classes of each image, ``(N, count)``, the nearest first.

        Args:
            scores: the class scores, ``(N, K)``.
            explained: the class of each image that is explained, ``(N,)``, which is never among them.

        Raises:
            TargetError: the network has too few classes, or the count is none.
        """
        others = scores.shape[1] - 1
        if others < 1:
            raise TargetError("a contrast is against other classes, and this network has one; ask for Binary or Regression")
        if not is_index(self.count) or not 1 <= self.count <= others:
            raise TargetError(f"a contrast is against 1 to {others} nearest classes of this network; got {self.count!r}")
        own = explained[:, None]
        distances = (scores.detach() - scores.detach().gather(1, own)).abs().scatter(1, own, torch.inf)
        return distances.argsort(dim=1, stable=True)[:, : self.count]

    def __str__(self) -> str:
        return f"the {self.count} nearest"
