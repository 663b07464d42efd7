"""A wrapper in which the map of the target competes with those of other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relume.errors import InputError
from relume.maps import MapInfo
from relume.methods.wrapper import Moments, Wrapper
from relume.targets.base import Target, is_index
from relume.targets.rivals import rivals_of

__all__ = ["Competing", "competition"]

#: How sharply the classes compete, and how far above an even share a weight must be: those of the paper's code.
TEMPERATURE, MARGIN = 10.0, 0.01


@dataclass(frozen=True)
class Competing(Wrapper):
    """The map of a class where it is stronger than the same method's maps of rival classes: VAR.

    Walter, Vreeken & Fischer 2026, arXiv:2503.07346. The rivals are the classes with the highest scores but the target's and,
    as the last of them, the class with the lowest score. See :func:`relume.methods.competing.competition` for the formula. No
    further forward pass is needed, and as many backward passes for each rival as for the target.

    The map ``competing_<method>`` has the method's shape and sign. It shows what tells the target from its rivals: parts that
    speak for several of them are taken out. So mosaics of several objects favour it. On one photo, where rivals may share the
    object, it may leave little.

    Attributes beside those of :class:`relume.methods.Wrapper`:
        rivals: how many classes compete with the target; all others if the network has fewer.

    Raises:
        InputError: there is no such method, or ``rivals`` is not a number from 1 on.

    Example:
        >>> import relume, torch
        >>> opened = relume.open_model("demo")
        >>> e = relume.explain(opened.model, torch.rand(1, 3, 96, 96), methods=[relume.Competing("guided_backprop")])
        >>> list(e.maps), e["competing_guided_backprop"].shape
        (['competing_guided_backprop'], torch.Size([1, 3, 96, 96]))
    """

    rivals: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_index(self.rivals) or self.rivals < 1:
            raise InputError(f"one class competes with the target at least; got rivals={self.rivals!r}")

    @property
    def maps(self) -> tuple[MapInfo, ...]:
        """The description of the target's map after the competition."""
        return (self.derived("competing", "competing {}", note=f"in competition with {self.rivals} classes"),)

    def targets(self, target: Target, outputs: Any) -> Sequence[Target]:
        """Return the target and its rivals.

        Raises:
            TargetError: the target is not about one of several classes.
        """
        return [target, *rivals_of(target, outputs, self.rivals)]

    def reduce(self, moments: Sequence[Moments]) -> Sequence[Tensor]:
        """Return the target's map after the competition."""
        return (competition([of_class.mean for of_class in moments]),)


def competition(maps: Sequence[Tensor]) -> Tensor:
    """Compute ``A_1 · w · 1[w > 1/K + 0.01]``, ``w = softmax_k(10 |A_k| / max |A_k|)_1``, of ``K`` classes' maps ``A_k``.

    Walter, Vreeken & Fischer 2026, arXiv:2503.07346; ``w`` is the target's share of each value. The authors' code leaves the
    maps as they are; here each one is divided by the highest magnitude of its image, so that ``w`` has no unit.

    Args:
        maps: the map of each class, ``(N, ...)``, the target's first.
    """
    highest = [values.abs().flatten(1).amax(1).clamp(min=torch.finfo(values.dtype).tiny) for values in maps]
    shares = [values.abs() / high.view(-1, *[1] * (values.ndim - 1)) for values, high in zip(maps, highest, strict=True)]
    weight = (TEMPERATURE * torch.stack(shares)).softmax(0)[0]
    return maps[0] * weight.where(weight > 1 / len(maps) + MARGIN, 0)
