"""Units inside a network: the base class of the targets that are read from a layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor, nn

from relume.errors import TargetError
from relume.targets.base import Target, is_index

__all__ = ["Unit"]


@dataclass(frozen=True, slots=True, eq=False)
class Unit(Target):
    """A channel of a layer, as Springenberg et al. 2015 and Zeiler & Fergus 2014 explain it: what does it look for?

    Attributes:
        layer: a module of the model or its dotted name.
        channel: which of its channels.
    """

    # field(), since a dataclass takes an inherited attribute for the default
    layer: nn.Module | str = field()
    channel: int

    def frozen(self, outputs: Tensor, count: int) -> Self:
        """Decide the place in the layer's map ``(N, channels, *spatial)``.

        Raises:
            TargetError: the layer has no such channel or place.
        """
        channels = outputs.shape[1]
        if not is_index(self.channel):
            raise TargetError(f"a unit is a channel of its layer, a number from 0 on; got {self.channel!r}")
        if not 0 <= self.channel < channels:
            raise TargetError(f"layer {self.name!r} has {channels} channels, 0 to {channels - 1}; there is no {self.channel}")
        return self

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
        return f"{self.name}, channel {self.channel}"
