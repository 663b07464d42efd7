"""Networks whose heads depend on one cell of a mosaic each: DiPart and DiFull.

Rao, Böhle & Schiele 2022, arXiv:2205.10435. Both give ``grid²`` heads in place of one, ``(N, grid² · classes)``. In DiPart the
backbone sees the mosaic, and head ``i`` reads the features of cell ``i`` alone. In DiFull the backbone sees each cell alone, so
that nothing outside cell ``i`` can matter to head ``i``.
"""

from __future__ import annotations

import copy
import itertools
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relume.engine.inputs import Output, pick
from relume.measures.localisation import cell_bounds
from relume.targets.outputs import class_scores

__all__ = ["KINDS", "Disconnected", "Kind"]

Kind: TypeAlias = Literal["dipart", "difull"]

KINDS: tuple[Kind, ...] = ("dipart", "difull")


class Disconnected(nn.Module):
    """A copy of a network, disconnected at a layer: ``(N, C, H, W)`` to ``(N, grid² · classes)``.

    Attributes:
        layer: the name of the layer that returns the features of the whole mosaic, for methods that read a layer.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.evaluation import Disconnected
        >>> head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *head)
        >>> Disconnected(network, "1", 2, "difull")(torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 20])
    """

    def __init__(self, model: nn.Module, layer: str, grid: int, kind: Kind, output: Output = None) -> None:
        """Copy the network and take it apart at ``layer``."""
        super().__init__()
        self.network = copy.deepcopy(model).eval()
        self.grid, self.kind, self.layer, self.output = grid, kind, f"network.{layer}.whole", output
        part = _ByCell(self.network.get_submodule(layer), grid, kind)
        self.network.set_submodule(layer, part)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the scores of each head, those of the first cell first."""
        count = len(images)
        if self.kind == "difull":
            images = _cells(images, self.grid)
        scores = class_scores(pick(self.network(images), self.output), count * self.grid**2)
        return scores.reshape(count, -1)


class _ByCell(nn.Module):
    """A layer that returns the features of the mosaic, and passes them on to the head cell by cell."""

    def __init__(self, layer: nn.Module, grid: int, kind: Kind) -> None:
        super().__init__()
        self.inner, self.whole, self.grid, self.kind = layer, nn.Identity(), grid, kind

    def forward(self, images: Tensor) -> Tensor:
        """Run the layer, on the mosaic or on each cell."""
        features: Tensor = self.inner(images)
        if self.kind == "difull":
            return _cells(self.whole(_together(features, self.grid)), self.grid)
        features = self.whole(features)
        height, width = features.shape[2:]
        down, across = (itertools.pairwise(cell_bounds(side, self.grid)) for side in (height, width))
        heads = [  # each reads zeros beyond its cell
            F.pad(features[:, :, top:bottom, left:right], (left, width - right, top, height - bottom))
            for (top, bottom), (left, right) in itertools.product(down, across)
        ]
        return torch.stack(heads, 1).flatten(0, 1)


def _cells(images: Tensor, grid: int) -> Tensor:
    """Cut ``(N, C, grid · h, grid · w)`` into ``(N · grid², C, h, w)``, row by row."""
    count, channels, height, width = images.shape
    split = images.reshape(count, channels, grid, height // grid, grid, width // grid)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(count * grid**2, channels, height // grid, width // grid)


def _together(cells: Tensor, grid: int) -> Tensor:
    """Put ``(N · grid², C, h, w)`` together to ``(N, C, grid · h, grid · w)``: the inverse of :func:`_cells`."""
    total, channels, height, width = cells.shape
    split = cells.reshape(total // grid**2, grid, grid, channels, height, width)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, grid * height, grid * width)
