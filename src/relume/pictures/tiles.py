"""Tiles that cover a picture and overlap, and maps of them stitched to one, a strip at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relume.errors import InputError

__all__ = ["Piece", "Strip", "check_tiles", "pieces"]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A tile's part of one axis.

    Attributes:
        start, end: the first pixel and the one after the last.
        weights: the share of the tile in the stitched map at each of its pixels: 1 where it is alone; where tiles overlap it
            rises from one to the other, and the shares of all tiles sum to 1.
    """

    start: int
    end: int
    weights: NDArray[np.float32]


def check_tiles(size: int, overlap: int) -> None:
    """Refuse tiles that cannot cover a picture.

    Raises:
        InputError: a size below one pixel, or an overlap that is not smaller.
    """
    if size < 1 or not 0 <= overlap < size:
        raise InputError(f"tiles are a size in pixels from 1 on, and an overlap from 0 to below it; got {size},{overlap}")


def pieces(side: int, size: int, overlap: int) -> list[Piece]:
    """Cover ``side`` pixels with the fewest pieces of ``size``, evenly spread, that overlap by ``overlap`` at least.

    A side that is shorter than a piece is one piece as long as itself.

    Example:
        >>> from relume.pictures.tiles import pieces
        >>> [(piece.start, piece.end) for piece in pieces(100, 40, 8)]
        [(0, 40), (30, 70), (60, 100)]
        >>> [f"{share:.2f}" for share in pieces(100, 40, 8)[1].weights[:4]]
        ['0.05', '0.15', '0.25', '0.35']
    """
    check_tiles(size, overlap)
    size = min(size, side)
    count = 1 if side == size else math.ceil((side - overlap) / (size - overlap))
    starts = np.linspace(0, side - size, count).round().astype(int).tolist()
    ramps = [_ramp(starts, i, size) for i in range(count)]
    total = np.zeros(side)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start : start + size] += ramp
    return [
        Piece(start, start + size, (ramp / total[start : start + size]).astype(np.float32))
        for start, ramp in zip(starts, ramps, strict=True)
    ]


def _ramp(starts: Sequence[int], i: int, size: int) -> NDArray[np.float64]:
    """Return weights that rise over the overlap with the piece before, and fall over that with the next."""
    places = np.arange(size) + 0.5
    rise = starts[i - 1] + size - starts[i] if i else 0
    fall = starts[i] + size - starts[i + 1] if i + 1 < len(starts) else 0
    up = np.minimum(places / rise, 1) if rise else np.ones(size)
    down = np.minimum((size - places) / fall, 1) if fall else np.ones(size)
    return up * down


class Strip:
    """The rows of a stitched map that tiles still add to: as many as a tile is tall. Where no tile lies, it is NaN."""

    def __init__(self, channels: int, width: int) -> None:
        """Begin at the first row of a map ``(channels, H, width)``."""
        self.start = 0
        self._rows = np.zeros((channels, 0, width), np.float32)
        self._covered = np.zeros((0, width), bool)

    def add(self, values: NDArray[Any], row: Piece, column: Piece) -> None:
        """Add the map ``(C, h, w)`` of a tile, weighted; NaN stays NaN."""
        self._lengthen(row.end)
        place = slice(row.start - self.start, row.end - self.start), slice(column.start, column.end)
        self._rows[:, *place] += values * (row.weights[:, None] * column.weights)
        self._covered[place] = True

    def until(self, row: int) -> NDArray[np.float32]:
        """Take out the rows before ``row``, to which no tile adds any more."""
        self._lengthen(row)
        count, self.start = row - self.start, row
        done, covered = self._rows[:, :count], self._covered[:count]
        self._rows, self._covered = self._rows[:, count:].copy(), self._covered[count:].copy()
        return np.where(covered, done, np.float32(np.nan))

    def _lengthen(self, row: int) -> None:
        missing = row - self.start - len(self._covered)
        if missing > 0:
            self._rows = np.pad(self._rows, [(0, 0), (0, missing), (0, 0)])
            self._covered = np.pad(self._covered, [(0, missing), (0, 0)])
