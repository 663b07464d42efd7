"""The answer of a head of one logit as a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target, named
from relume.targets.outputs import single_values

__all__ = ["Binary"]


@dataclass(frozen=True, slots=True, eq=False)
class Binary(Target):
    """The score of yes, or of no, of a network that returns one score ``(N, 1)``: the score itself, or its negative.

    Attributes:
        positive: True for what speaks for yes, False for what speaks for no.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[2.0], [-1.0]])
        >>> Binary(False).frozen(outputs, 2).scores(outputs)
        tensor([-2.,  1.])
    """

    positive: bool = True

    has_class_scores = False

    def frozen(self, outputs: Any, count: int) -> Binary:
        """Find the one score of each image.

        Raises:
            TargetError: the network returns none, or the answer is neither True nor False.
        """
        if not isinstance(self.positive, bool):
            raise TargetError(f"a binary target is True for yes or False for no; got {self.positive!r}")
        single_values(outputs, count)
        return self

    def scores(self, outputs: Any) -> Tensor:
        """Read the score, ``(N,)``, of yes or of no."""
        values = single_values(outputs)
        return values if self.positive else -values

    def repeated(self, times: int) -> Binary:
        """Give the target itself, which means the same in every image."""
        return self

    def words(self, image: int, labels: Sequence[str] | None) -> str:
        """Say which answer it is, by the class names of no and yes if there are such."""
        return named(int(self.positive), labels) if labels is not None and len(labels) == 2 else str(self)

    def __str__(self) -> str:
        return "yes" if self.positive else "no"
