"""Units inside a network: the base class of the targets that are read from a layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor, nn

from relume.errors import TargetError
from relume.targets.base import Target, is_index

__all__ = ["Unit", "in_words", "spans"]


@dataclass(frozen=True, slots=True, eq=False)
class Unit(Target):
    """A channel of a layer, as Springenberg et al. 2015 and Zeiler & Fergus 2014 explain it: what does it look for?

    Attributes:
        layer: a module of the model or its dotted name.
        channel: which of its channels, or a slice of them, whose mean is meant.
    """

    # field(), since a dataclass takes an inherited attribute for the default
    layer: nn.Module | str = field()
    channel: int | slice

    def frozen(self, outputs: Tensor, count: int) -> Self:
        """Decide the place in the layer's map ``(N, channels, *spatial)``.

        Raises:
            TargetError: the layer has no such channel or place.
        """
        channels = outputs.shape[1]
        if isinstance(self.channel, slice):
            if not spans(self.channel, channels):
                raise TargetError(f"layer {self.name!r} has {channels} channels, none of which is in {in_words(self.channel)}")
            return self
        if not is_index(self.channel):
            raise TargetError(f"a unit is a channel of its layer, a number from 0 on, or a slice; got {self.channel!r}")
        if not 0 <= self.channel < channels:
            raise TargetError(f"layer {self.name!r} has {channels} channels, 0 to {channels - 1}; there is no {self.channel}")
        return self

    def values(self, outputs: Tensor) -> Tensor:
        """Take the channel's map, or the mean of several, ``(N, *spatial)``."""
        return outputs[:, self.channel].mean(1) if isinstance(self.channel, slice) else outputs[:, self.channel]

    def placed(self, name: str) -> Self:
        """Give the unit with its layer called by its dotted ``name``."""
        return replace(self, layer=name)

    def repeated(self, times: int) -> Self:
        """Give the unit for the batch repeated so many ``times``: itself, if it means the same in every image."""
        return self

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer if isinstance(self.layer, str) else type(self.layer).__name__

    def __str__(self) -> str:
        several = "s" if isinstance(self.channel, slice) else ""
        return f"{self.name}, channel{several} {in_words(self.channel)}"


def spans(part: slice, size: int) -> bool:
    """Tell whether a slice takes anything of an axis of this ``size``, as tensors can be sliced: not backwards."""
    try:
        places = range(size)[part]
    except (TypeError, ValueError):
        return False
    return bool(places) and places.step > 0


def in_words(place: int | slice) -> str:
    """Write an index or a slice as in brackets: ``3``, ``0:8``, ``::2``."""
    if not isinstance(place, slice):
        return str(place)
    start, stop = ("" if end is None else str(end) for end in (place.start, place.stop))
    return f"{start}:{stop}" if place.step is None else f"{start}:{stop}:{place.step}"
