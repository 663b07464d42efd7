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


def find_grid(
    shape: Sequence[int], image: Sequence[int], seen: Iterable[Sequence[int]] = (), *, channels_first: bool = False
) -> Grid | None:
    """The grid in an output of ``shape``, if there is one.

    Args:
        shape: of the output, ``(N, ...)``.
        image: the spatial size of the input.
        seen: the spatial sizes of maps made before in the same run; tokens usually begin as one of them.
        channels_first: whether the operation that made it proves that channels come first, as a convolution does.
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
    """A map of size ``first`` if channels come first, ``last`` if they come last: as seen before, else as shrinks evenly."""
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
    """Whether a map of this size may be the image, made smaller by about the same factor along every axis."""
    factors = [whole / part for whole, part in zip(image, spatial, strict=True)]
    return min(factors) >= 1 and max(factors) <= UNEVEN * min(factors)


def _tokens(count: int, image: tuple[int, ...], seen: Sequence[tuple[int, ...]]) -> Grid | None:
    """Tokens are the cells of a map that was seen, after some extra ones; or cells of such a map joined evenly since."""
    extras = {size: count - math.prod(size) for size in seen if math.prod(size) > 1}
    fitting = [(extra, size) for size, extra in extras.items() if 0 <= extra <= MOST_EXTRA]
    if fitting:
        extra, size = min(fitting)
        return Grid("tokens", size, extra)
    cell = (math.prod(image) / count) ** (1 / len(image))
    size = tuple(round(side / cell) for side in image)
    merged = any(all(whole % part == 0 for whole, part in zip(known, size, strict=True)) for known in seen)
    return Grid("tokens", size) if math.prod(size) == count and merged and _even(size, image) else None
