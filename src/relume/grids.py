"""From what a layer returns to a map ``(N, channels, *spatial)``: convolutions give one, transformers give tokens.

Nothing here knows of modules: a :class:`Grid` is found from shapes alone, those of the output, of the input, and of the maps
that were seen before it. Where shapes do not tell, there is no grid, and nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Grid", "find_grid"]

#: Class tokens, distillation tokens and registers come before the patches; more of them than these is another arrangement.
MOST_EXTRA = 16

#: By how much the factors may differ by which a map is smaller than its input along its axes, before it is no map of it.
UNEVEN = 1.25


@dataclass(frozen=True, slots=True)
class Grid:
    """How an output is arranged, and by calling it, the output as ``(N, channels, *spatial)``.

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
        """The output, or a gradient of its shape, as a map."""
        if self.kind == "map":
            return values
        if self.kind == "tokens":
            values = values[:, self.extra :].reshape(len(values), *self.spatial, -1)
        return values.movedim(-1, 1)


def find_grid(shape: Sequence[int], image: Sequence[int], seen: Iterable[Sequence[int]] = ()) -> Grid | None:
    """The grid in an output of ``shape``, if there is one.

    Args:
        shape: of the output, ``(N, ...)``.
        image: the spatial size of the input.
        seen: the spatial sizes of maps made before in the same run; tokens usually begin as one of them.
    """
    if len(shape) == len(image) + 2:
        first, last = tuple(shape[2:]), tuple(shape[1:-1])
        if math.prod(first) > 1 and (_even(first, image) or not _even(last, image)):
            return Grid("map", first)
        return Grid("channels last", last) if math.prod(last) > 1 and _even(last, image) else None
    if len(shape) == 3 and len(image) > 1 and shape[1] > 1:
        # with as many channels as tokens nothing tells which axis is which
        return None if shape[1] == shape[2] else _tokens(shape[1], tuple(image), [tuple(size) for size in seen])
    return None


def _even(spatial: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a map of this size may be the image, made smaller by about the same factor along every axis."""
    factors = [whole / part for whole, part in zip(image, spatial, strict=True)]
    return min(factors) >= 1 and max(factors) <= UNEVEN * min(factors)


def _tokens(count: int, image: tuple[int, ...], seen: Iterable[tuple[int, ...]]) -> Grid | None:
    """Tokens are the cells of a map that was seen, after some extra ones; or, merged since, those of the image evenly cut."""
    extras = {size: count - math.prod(size) for size in seen if math.prod(size) > 1}
    fitting = [(extra, size) for size, extra in extras.items() if 0 <= extra <= MOST_EXTRA]
    if fitting:
        extra, size = min(fitting)
        return Grid("tokens", size, extra)
    cell = (math.prod(image) / count) ** (1 / len(image))
    size = tuple(round(side / cell) for side in image)
    exact = math.prod(size) == count and _even(size, image)
    return Grid("tokens", size) if exact else None
