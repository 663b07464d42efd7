"""A function of the outputs as a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relume.targets.base import Target

__all__ = ["Function"]


@dataclass(frozen=True, slots=True, eq=False)
class Function(Target):
    """The scores that a caller's ``function`` of the outputs gives, ``(N,)``; nothing tells which rows of them it reads."""

    function: Callable[[Any], Tensor]

    def scores(self, outputs: Any) -> Tensor:
        """Call the function."""
        return self.function(outputs)

    def words(self, image: int, labels: Sequence[str] | None) -> str | None:
        """Say nothing: a function has no name that says what it scores."""

    def __str__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)
