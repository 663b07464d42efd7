"""Grids: how the output of a layer becomes a map ``(N, channels, *spatial)``. Convolutions give one, transformers give tokens.

Nothing here knows of modules: a :class:`Grid` is found from shapes, those of the output, of the input, and of the maps
that ran before it. Where shapes do not tell, there is no grid, and nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relume.engine.graph import gradients

__all__ = ["Grid", "Grids", "find_grid"]

#: The nodes of operations whose result has its channels second, whatever its shape looks like (torch 2.13).
CHANNELS_FIRST = (
    "ConvolutionBackward0",
    "ConvolveBackward",
    "NativeBatchNormBackward0",
    "CudnnBatchNormBackward0",
    "MaxPool2DWithIndicesBackward0",
)

#: Class tokens, distillation tokens and registers come before the patches; more of them than these is another arrangement.
MOST_EXTRA = 16

#: By how much the factors may differ by which a map is smaller than its input along its axes, before it is no map of it.
UNEVEN = 1.25


@dataclass(frozen=True, slots=True)
class Grid:
    """The arrangement of an output; calling it arranges the output as ``(N, channels, *spatial)``.

    Attributes:
        kind: ``map`` for ``(N, channels, *spatial)``, ``channels last`` for ``(N, *spatial, channels)``, ``tokens`` for
            ``(N, T, channels)``.
        spatial: the size of the map.
        extra: how many tokens before the patches are left out.
    """

    kind: Literal["map", "channels last", "tokens"]
    spatial: tuple[int, ...]
    extra: int = 0

    def __call__(self, values: Tensor) -> Tensor:
        """Arrange the output, or a gradient of its shape, as a map."""
        if self.kind == "map":
            return values
        if self.kind == "tokens":
            values = values[:, self.extra :].reshape(len(values), *self.spatial, -1)
        return values.movedim(-1, 1)


def find_grid(
    shape: Sequence[int], image: Sequence[int], seen: Iterable[Sequence[int]] = (), *, channels_first: bool = False
) -> Grid | None:
    """Find the grid in an output of ``shape``, if there is one.

    Args:
        shape: of the output, ``(N, ...)``.
        image: the spatial size of the input.
        seen: the spatial sizes of maps made before in the same run; tokens usually begin as one of them.
        channels_first: True if the operation that made it proves that channels come first, as a convolution does.
    """
    sizes = [tuple(size) for size in seen]
    if len(shape) == len(image) + 2:
        return _map(tuple(shape[2:]), tuple(shape[1:-1]), image, sizes, channels_first=channels_first)
    if len(shape) == 3 and len(image) > 1 and shape[1] > 1:
        grid = _tokens(shape[1], tuple(image), sizes)
        # a last axis as long as a map has cells may be the tokens: then only a class token or two tell that it is not
        turned = shape[1] == shape[2] or shape[2] in (math.prod(size) for size in sizes)
        return None if turned and (grid is None or grid.extra not in (1, 2)) else grid
    return None


def _map(
    first: tuple[int, ...],
    last: tuple[int, ...],
    image: Sequence[int],
    seen: Sequence[tuple[int, ...]],
    *,
    channels_first: bool,
) -> Grid | None:
    """Make a map of size ``first`` or ``last``, as channels come first or last: the size seen before, else the even one."""
    known_first, known_last = first in seen, last in seen
    if channels_first or first == last or known_first > known_last:
        is_last = False
    elif known_first and known_last:
        return None
    else:
        is_last = known_last or (_even(last, image) and not _even(first, image))
    size = last if is_last else first
    return Grid("channels last" if is_last else "map", size) if math.prod(size) > 1 else None


def _even(spatial: Sequence[int], image: Sequence[int]) -> bool:
    """Tell whether a map of this size may be the image, made smaller by about the same factor along every axis."""
    factors = [whole / part for whole, part in zip(image, spatial, strict=True)]
    return min(factors) >= 1 and max(factors) <= UNEVEN * min(factors)


def _tokens(count: int, image: tuple[int, ...], seen: Sequence[tuple[int, ...]]) -> Grid | None:
    """Take tokens for the cells of a map that was seen, after some extra ones; or for cells of such a map joined evenly."""
    extras = {size: count - math.prod(size) for size in seen if math.prod(size) > 1}
    fitting = [(extra, size) for size, extra in extras.items() if 0 <= extra <= MOST_EXTRA]
    if fitting:
        extra, size = min(fitting)
        return Grid("tokens", size, extra)
    cell = (math.prod(image) / count) ** (1 / len(image))
    size = tuple(round(side / cell) for side in image)
    merged = any(all(whole % part == 0 for whole, part in zip(known, size, strict=True)) for known in seen)
    return Grid("tokens", size) if math.prod(size) == count and merged and _even(size, image) else None


class Grids:
    """The grids in the outputs of one run, each found with what ran before it."""

    def __init__(self, images: Tensor) -> None:
        """Begin a run on ``images`` ``(N, C, *spatial)``."""
        self._images, self._image = images, tuple(images.shape[2:])
        self._sizes: dict[tuple[int, ...], None] = {}  # of maps, each once
        self._counts: set[int] = set()  # of tokens
        self._odd: set[int] = set()  # those counts that include others after the patches
        self._found: dict[tuple[torch.Size, bool, int], Grid | None] = {}

    def of(self, output: Tensor) -> Grid | None:
        """Find the grid in an output; none in what attention has between tokens, one axis of which are these."""
        shape = output.shape
        first = output.grad_fn is not None and output.grad_fn.name() in CHANNELS_FIRST
        if shape[:1] != (len(self._images),) or (len(shape) > 3 and not first and self._counts & set(shape[2:])):
            return None
        key = (shape, first, len(self._sizes))  # networks repeat themselves
        if key not in self._found:
            self._found[key] = find_grid(shape, self._image, self._sizes, channels_first=first)
        grid = self._found[key]
        if grid is None:
            return None
        if grid.kind != "tokens":
            self._sizes[grid.spatial] = None
            return grid
        if shape[1] not in self._counts and grid.extra and not self._depends(output[:, -1]):
            self._odd.add(shape[1])
        self._counts.add(shape[1])
        return None if shape[1] in self._odd else grid

    def _depends(self, values: Tensor) -> bool:
        """Tell whether ``values`` depend on the images, which a class token does not before a block mixes it with patches."""
        (gradient,) = gradients(values.float().square().sum(), [self._images])
        return gradient is not None and bool(gradient.any())

    @staticmethod
    def is_pooled(output: Tensor) -> bool:
        """Tell whether an output was made by pooling."""
        name = "" if output.grad_fn is None else output.grad_fn.name()
        return "Pool" in name or name.startswith("Mean")
