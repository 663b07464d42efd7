"""The value that a network estimates as a target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target
from relume.targets.outputs import single_values
from relume.text import significant

__all__ = ["Regression"]


@dataclass(frozen=True, slots=True, eq=False)
class Regression(Target):
    """The value ``y`` of a network that returns one value ``(N, 1)``: what makes it higher, lower, or closer to another.

    Attributes:
        towards: ``up`` explains y; ``down`` explains −y; a number v explains −(y − v)², whose gradient is zero where y = v.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[2.0], [5.0]])
        >>> [Regression(towards).frozen(outputs, 2).scores(outputs).tolist() for towards in ("up", "down", 4)]
        [[2.0, 5.0], [-2.0, -5.0], [-4.0, -1.0]]
    """

    towards: str | float = "up"

    has_class_scores = False

    def frozen(self, outputs: Any, count: int) -> Regression:
        """Find the one value of each image.

        Raises:
            TargetError: the network returns none, or the target is neither a direction nor a finite number.
        """
        number = isinstance(self.towards, int | float) and not isinstance(self.towards, bool) and math.isfinite(self.towards)
        if not number and self.towards not in ("up", "down"):
            raise TargetError(f"a regression is explained 'up', 'down' or towards a number; got {self.towards!r}")
        single_values(outputs, count)
        return self

    def scores(self, outputs: Any) -> Tensor:
        """Compute ``y``, ``−y`` or ``−(y − v)²``, ``(N,)``."""
        values = single_values(outputs)
        if isinstance(self.towards, str):
            return values if self.towards == "up" else -values
        return -((values - self.towards) ** 2)

    def repeated(self, times: int) -> Regression:
        """Give the target itself, which means the same in every image."""
        return self

    def __str__(self) -> str:
        return f"the value {self.towards if isinstance(self.towards, str) else f'towards {significant(self.towards)}'}"
