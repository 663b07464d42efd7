"""Recordings: signals, volumes, video and pictures of any bands, as they were recorded, and the part that a network saw."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from relume.errors import ImageError, InputError

__all__ = ["Grid", "Recording", "RecordingKind", "placed"]

RecordingKind: TypeAlias = Literal["signal", "bands", "volume", "video"]

#: The names of the spatial axes of each kind, in the order of the values.
AXES: dict[RecordingKind, tuple[str, ...]] = {
    "signal": ("place",),
    "bands": ("row", "column"),
    "volume": ("slice", "row", "column"),
    "video": ("frame", "row", "column"),
}


class Grid(Protocol):
    """The place of a recording's cells in the world, as its file tells it: an affine, a coordinate reference system.

    Example:
        >>> import numpy as np
        >>> from relume.pictures import grid_of
        >>> grid = grid_of({"format": ".npy"})
        >>> grid.suffix, len(grid.write(np.zeros((1, 20), np.float32)))
        ('.npy', 208)
    """

    @property
    def suffix(self) -> str:
        """The ending of the files that :meth:`write` makes, such as ``.nii.gz``."""

    def write(self, values: NDArray[np.float32]) -> bytes:
        """Return a file of ``values`` ``(C, *spatial)``, with the shape of the recording, in the same place of the world."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, of which the grid can be made again."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Values of any number of channels on a grid of one to three axes, and which part of it the network saw.

    Attributes:
        values: the values as the file has them, ``(C, *spatial)``; NaN where nothing was recorded.
        kind: ``signal`` ``(C, L)``, ``bands`` ``(C, H, W)``, ``volume`` ``(C, D, H, W)`` or ``video`` ``(C, frames, H, W)``.
        spacing: the distance between neighbours along each axis, in ``unit``; 1 along each if empty.
        unit: the unit of ``spacing``: ``mm``, ``s``, ``m``; empty if unknown.
        box: the part that the network saw: start and end along each axis, in cells; beyond the edges where it was padded. All
            of it if empty.
        shown: the channels drawn as red, green and blue, or the one drawn in grey.
        limits: the values that are black and white, where the file tells them, as that of a video does.
        grid: its place in the world, if the file tells it: maps are written on the same grid.
        notes: remarks on its file that a reader needs.
        bands: the numbers of a signal's channels in its file, where the network takes only these; empty if it takes all.

    Example:
        >>> import numpy as np
        >>> from relume.pictures import Recording
        >>> scan = Recording(np.zeros((1, 20, 64, 64), np.float32), "volume", spacing=(2.5, 1.0, 1.0), unit="mm")
        >>> scan.size, scan.box
        ((20, 64, 64), ((0.0, 20.0), (0.0, 64.0), (0.0, 64.0)))
    """

    values: NDArray[Any]
    kind: RecordingKind
    spacing: tuple[float, ...] = ()
    unit: str = ""
    box: tuple[tuple[float, float], ...] = ()
    shown: tuple[int, ...] = ()
    limits: tuple[float, float] | None = None
    grid: Grid | None = None
    notes: tuple[str, ...] = ()
    bands: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Fill in what follows from the values.

        Raises:
            ImageError: the values have other axes than the kind, or none along one, or are no real numbers.
            InputError: there is no such kind or channel, or not one finite spacing above zero for each axis.
        """
        if self.kind not in get_args(RecordingKind):
            raise InputError(f"a recording is {', '.join(get_args(RecordingKind))}; got {self.kind!r}")
        axes, shape = AXES[self.kind], self.values.shape
        if len(shape) != 1 + len(axes) or 0 in shape:
            raise ImageError(
                f"a {self.kind} has values (channels, {'s, '.join(axes)}s), one at least of each; got shape {shape}"
            )
        if self.values.dtype.kind not in "buif":
            raise ImageError(f"a recording has real numbers; got {self.values.dtype}")
        spacing = self.spacing or (1.0,) * len(axes)
        if len(spacing) != len(axes) or not all(math.isfinite(step) and step > 0 for step in spacing):
            raise InputError(f"spacing is a number above zero for each of {len(axes)} axes; got {spacing}")
        shown = self.shown or ((0, 1, 2) if self.is_colour else (0,))
        if len(shown) not in (1, 3) or not all(0 <= channel < shape[0] for channel in shown):
            raise InputError(f"the channels shown are three, for red, green and blue, or one, below {shape[0]}; got {shown}")
        object.__setattr__(self, "spacing", tuple(map(float, spacing)))
        object.__setattr__(self, "shown", tuple(shown))
        object.__setattr__(self, "box", self.box or tuple((0.0, float(side)) for side in self.size))

    @property
    def size(self) -> tuple[int, ...]:
        """The number of cells along each spatial axis."""
        return self.values.shape[1:]

    @property
    def is_colour(self) -> bool:
        """True if the channels are red, green and blue between known limits, as those of a photo are."""
        return self.limits is not None and len(self.values) == 3

    def seen(self) -> tuple[slice, ...]:
        """Return the cells that the network saw all of, at least one along each axis."""
        parts = []
        for (low, high), side in zip(self.box, self.size, strict=True):
            first, last = max(math.ceil(low - 1e-6), 0), min(math.floor(high + 1e-6), side)
            middle = min(max(math.floor((low + high) / 2), 0), side - 1)
            parts.append(slice(first, last) if first < last else slice(middle, middle + 1))
        return tuple(parts)

    def within(self, box: tuple[tuple[float, float], ...]) -> Recording:
        """Return the same recording, of which the network saw ``box``."""
        return replace(self, box=box)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: everything but the values."""
        grid = None if self.grid is None else {"format": self.grid.suffix, **self.grid.as_dict()}
        return {
            "kind": self.kind,
            "size": list(self.size),
            "spacing": list(self.spacing),
            "unit": self.unit,
            "box": [list(edges) for edges in self.box],
            "shown": list(self.shown),
            "limits": None if self.limits is None else list(self.limits),
            "grid": grid,
            "notes": list(self.notes),
            "bands": list(self.bands),
        }


def placed(recording: Recording, values: NDArray[np.floating[Any]], fill: float = 0.0) -> NDArray[np.float32]:
    """Interpolate a map of the network's input linearly at the cells of ``recording``, and return it on their grid.

    It undoes the resize of the part that the network saw: values stand in the middle of their cells, as with torch's
    ``align_corners=False``. Where the network's input is finer than the recording, a cell has the mean of all that lies in it.

    Args:
        recording: the recording, with the box that the network saw.
        values: the map, ``(C, *spatial)``, or ``(*spatial)`` for one channel, over all of the box.
        fill: the value of cells whose middle the network did not see.

    Returns:
        The map at each cell, ``(C, *recording.size)``.

    Example:
        >>> import numpy as np
        >>> from relume.pictures import Recording, placed
        >>> signal = Recording(np.zeros((1, 8)), "signal", box=((2, 6),))
        >>> placed(signal, np.array([1.0, 3.0])).tolist()
        [[0.0, 0.0, 1.0, 1.5, 2.5, 3.0, 0.0, 0.0]]
    """
    part = values.reshape(-1, *values.shape[-len(recording.size) :]).astype(np.float32)
    inside: list[slice] = [slice(None)]
    for axis, ((low, high), side) in enumerate(zip(recording.box, recording.size, strict=True), start=1):
        middles = np.arange(side) + 0.5
        first, last = np.searchsorted(middles, low), np.searchsorted(middles, high, "right")
        steps = part.shape[axis] / (high - low)
        parts = max(1, math.ceil(steps - 1e-6))  # of a cell, so that none of a finer map is passed over
        shifts = ((np.arange(parts) + 0.5) / parts - 0.5).tolist()
        samples = (_between(part, (middles[first:last] + shift - low) * steps - 0.5, axis) for shift in shifts)
        part = functools.reduce(np.add, samples) / np.float32(parts)
        inside.append(slice(first, last))
    whole = np.full((len(part), *recording.size), fill, np.float32)
    whole[tuple(inside)] = part
    return whole


def _between(values: NDArray[np.float32], places: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    """Interpolate values linearly at places along an axis; beyond its ends they are those at the ends."""
    count = values.shape[axis]
    places = places.clip(0, count - 1)
    before = np.floor(places).astype(int)
    weight = np.expand_dims((places - before).astype(np.float32), tuple(range(1, values.ndim - axis)))
    after = values.take((before + 1).clip(max=count - 1), axis)
    part = values.take(before, axis)
    part += weight * (after - part)
    return part
