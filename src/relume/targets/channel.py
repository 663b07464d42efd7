"""A channel of a layer as a target."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relume.targets.unit import Unit

__all__ = ["Channel"]


class Channel(Unit):
    """The mean of a channel over its map, ``Channel("layer4", 7)``, or of several, ``Channel("layer4", slice(0, 8))``.

    Attributes:
        layer: a module of the model or its dotted name.
        channel: which of its channels, or a slice of them.

    Example:
        >>> import torch, relume
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> explanation = relume.explain(model, torch.rand(1, 3, 8, 8), Channel("1", 2), ["guided_backprop"])
        >>> explanation.title().partition(", score")[0]
        '1, channel 2'
    """

    __slots__ = ()

    def scores(self, outputs: Any) -> Tensor:
        """Take the mean over the map, ``(N,)``."""
        values = self.values(outputs)
        return values.flatten(1).mean(1) if values.ndim > 1 else values
