"""One place of a channel's map as a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import is_index
from relume.targets.unit import Unit, in_words, spans

__all__ = ["Neuron"]


@dataclass(frozen=True, slots=True, eq=False)
class Neuron(Unit):
    """One place of a channel's map: ``Neuron("layer4", 7, (3, 5))``; where it is highest in each image, if not given.

    A layer without spatial axes, such as a fully connected one, has one place: ``Neuron("fc", 3)``. A slice in the position,
    ``(slice(2, 5), 3)``, means the mean over several places.

    Attributes:
        layer: a module of the model or its dotted name.
        channel: which of its channels, or a slice of them, whose mean is meant.
        position: the place; ``()`` in a layer without spatial axes.
        places: once frozen, the highest place in each image, ``(N,)`` int64, counted along the rows, if no position is given.

    Example:
        >>> import torch
        >>> values = torch.tensor([[[[1.0, 7.0], [2.0, 3.0]]]])         # (1, 1 channel, 2, 2)
        >>> Neuron("layer4", 0).frozen(values, 1).scores(values)
        tensor([7.])
        >>> Neuron("layer4", 0, (1, 0)).frozen(values, 1).scores(values)
        tensor([2.])
    """

    position: tuple[int | slice, ...] | None = None
    places: Tensor | None = field(default=None, kw_only=True, repr=False)

    is_local = True

    def frozen(self, outputs: Tensor, count: int) -> Neuron:
        """Decide the place; one that was decided stays.

        Raises:
            TargetError: the layer has no such channel or place.
        """
        Unit.frozen(self, outputs, count)
        size = tuple(outputs.shape[2:])
        if self.places is not None:
            return self
        position = () if self.position is None and not size else self.position
        if position is None:
            return replace(self, places=self.values(outputs).detach().flatten(1).argmax(1))
        if not _is_place(position, size):
            problem = f"has a map of {size}, and {position!r} is no place in it" if size else "has no spatial axes"
            purpose = " for the highest place" if size else ""
            raise TargetError(f"layer {self.name!r} {problem}; leave the position out{purpose}")
        return replace(self, position=position)

    def scores(self, outputs: Any) -> Tensor:
        """Take the value at the place, or the mean over several, ``(N,)``."""
        values = self.values(outputs)
        if self.places is not None:
            return values.flatten(1).gather(1, self.places[:, None])[:, 0]
        assert self.position is not None, "frozen before it is asked"
        values = values[(slice(None), *self.position)]
        return values.flatten(1).mean(1) if values.ndim > 1 else values

    def rows(self, some: slice) -> Neuron:
        """Give the places of ``some`` of the images."""
        return self if self.places is None else replace(self, places=self.places[some])

    def repeated(self, times: int) -> Neuron:
        """Give the places for the batch repeated so many ``times``."""
        return self if self.places is None else replace(self, places=self.places.repeat(times))

    def __str__(self) -> str:
        place = ", ".join(map(in_words, self.position or ()))
        where = " where it is highest" if self.position is None else f" at ({place})" if place else ""
        return f"{Unit.__str__(self)}{where}"


def _is_place(position: object, size: Sequence[int]) -> bool:
    if not isinstance(position, Sequence) or len(position) != len(size):
        return False
    return all(spans(p, s) if isinstance(p, slice) else is_index(p) and 0 <= p < s for p, s in zip(position, size, strict=True))
