"""A channel of a layer as a target."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relume.targets.unit import Unit

__all__ = ["Channel"]


class Channel(Unit):
    """The mean of a channel over its map: ``Channel("layer4", 7)``.

    Attributes:
        layer: a module of the model or its dotted name.
        channel: which of its channels.

    Example:
        >>> import torch, relume
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> explanation = relume.explain(model, torch.rand(1, 3, 8, 8), Channel("1", 2), ["guided_backprop"])
        >>> explanation.unit
        '1, channel 2'
    """

    __slots__ = ()

    def scores(self, outputs: Any) -> Tensor:
        """Take the mean over the map, ``(N,)``."""
        values: Tensor = outputs[:, self.channel]
        return values.flatten(1).mean(1) if values.ndim > 1 else values
