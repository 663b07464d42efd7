"""Pictures of volumes: three planes through one voxel, and the strongest values over all slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.pictures.montage import DrawnMap, Tile, limits, map_cells, montage, section, shown_channels
from relume.pictures.palette import COLOURS
from relume.pictures.recording import Recording

__all__ = ["INKS", "centre", "peak", "tiles", "volume", "volume_words"]

#: The colours of the planes of one slice, of one row and of one column: of their labels, and of the lines where they cut.
INKS = (COLOURS["accent"][1], COLOURS["good"][1], COLOURS["edges"][1])

_NAMES = ("slice", "row", "column")

_LEAST, _MOST = 320, 800  # pixels of the longest axis, if no size is given


def centre(recording: Recording, drawn: DrawnMap | None = None) -> tuple[int, ...]:
    """Return the voxel at the centre of mass of a map's saliency, within what the network saw; the middle for an empty map."""
    from scipy import ndimage

    saliency = None if drawn is None else drawn.saliency(3)
    if saliency is None or not saliency.any():
        place = [(low + high) / 2 for low, high in recording.box]
    else:
        mass = ndimage.center_of_mass(saliency.astype(np.float64))
        sides = zip(mass, saliency.shape, recording.box, strict=True)
        place = [low + (m + 0.5) / count * (high - low) for m, count, (low, high) in sides]
    return tuple(min(max(math.floor(p), part.start), part.stop - 1) for p, part in zip(place, recording.seen(), strict=True))


def peak(recording: Recording, drawn: DrawnMap) -> tuple[int, ...]:
    """Return the voxel or the place in a frame where a map is strongest, within what the network saw; the middle if empty."""
    saliency = drawn.saliency(3)
    if not saliency.any():
        return centre(recording)
    cell = np.unravel_index(int(saliency.argmax()), saliency.shape)
    sides = zip(cell, saliency.shape, recording.box, recording.seen(), strict=True)
    places = ((low + (c + 0.5) / count * (high - low), part) for c, count, (low, high), part in sides)
    return tuple(int(np.clip(math.floor(place), part.start, part.stop - 1)) for place, part in places)


def volume_words(of: str) -> str:
    """Say which planes of a volume are drawn, for a map called ``of``."""
    return f"planes through the centre of mass of {of}, counted from 0; last, the strongest of all slices over their mean"


def volume(recording: Recording, drawn: DrawnMap | None, at: tuple[int, ...], size: int | None = None) -> Image.Image:
    """Draw the slice, the row and the column of a voxel, and the strongest values of the map over the mean of all slices.

    Distances are in proportion to the voxels' spacing. Slices rise: the first is at the bottom.

    Args:
        recording: the volume.
        drawn: the map on it; None to draw the volume alone.
        at: the voxel.
        size: the longest side in pixels, at most.
    """
    extent = [side * step for side, step in zip(recording.size, recording.spacing, strict=True)]
    across, down = extent[2] + max(extent[1:]), extent[1] + extent[0]
    if size is None:
        factor = min(max(1 / min(recording.spacing), _LEAST / max(extent)), _MOST / max(extent))
        size = round(1.07 * factor * max(across, down))
    text, gap = size / 46, max(2, round(size / 90))
    factor = min((size - 3 * gap) / across, (size - 3 * gap - 4 * text) / down)
    pixels = [max(1, int(factor * side)) for side in extent]
    *planes, whole = tiles(recording, drawn, at, pixels)
    return montage([[planes[0], whole], planes[1:]], text, gap)


def tiles(recording: Recording, drawn: DrawnMap | None, at: tuple[int, ...], pixels: Sequence[int]) -> list[Tile]:
    """Return the planes across each axis, then the strongest values over the mean; ``pixels`` is the length of each axis."""
    return [*(_plane(recording, drawn, at, axis, pixels) for axis in range(3)), _projection(recording, drawn, pixels)]


def _plane(recording: Recording, drawn: DrawnMap | None, at: tuple[int, ...], axis: int, pixels: Sequence[int]) -> Tile:
    """Draw the plane of the voxel across one axis, with lines where the two others cut it."""
    down, across = (other for other in range(3) if other != axis)
    plane = np.take(shown_channels(recording), at[axis], axis=1 + axis)
    if drawn is not None:
        drawn = drawn.strongest(axis - 3, map_cells(recording.box[axis], drawn.values.shape[axis - 3], at[axis]))
    tile = _tile(recording, plane, limits(recording), drawn, (down, across), pixels)
    x, y = ((at[other] + 0.5) / recording.size[other] for other in (across, down))
    cuts = (x, INKS[across]), (y if down else 1 - y, INKS[down])
    return replace(tile, label=f"{_NAMES[axis]} {at[axis]} of {recording.size[axis]}", ink=INKS[axis], cuts=cuts)


def _projection(recording: Recording, drawn: DrawnMap | None, pixels: Sequence[int]) -> Tile:
    """Draw the strongest values along the slices, over the mean of those that the network saw."""
    channels = shown_channels(recording)[:, recording.seen()[0]]
    known = np.isfinite(channels)
    mean = np.where(known, channels, 0).sum(axis=1, dtype=np.float64) / np.maximum(known.sum(axis=1), 1)
    tile = _tile(recording, mean, limits(recording, mean), drawn and drawn.strongest(-3), (1, 2), pixels)
    return replace(tile, label="mean of all slices" if drawn is None else "strongest of all slices")


def _tile(
    recording: Recording,
    plane: NDArray[np.generic],
    ends: tuple[float, float],
    drawn: DrawnMap | None,
    axes: tuple[int, int],
    pixels: Sequence[int],
) -> Tile:
    """Draw a plane ``(1 or 3, H, W)`` that two axes span, and the map in it."""
    down, across = axes
    box = recording.box[down]
    if down == 0:  # slices rise
        side = recording.size[0]
        plane, box, drawn = plane[:, ::-1], (side - box[1], side - box[0]), drawn and drawn.flipped()
    return Tile(section(plane, ends, (box, recording.box[across]), (pixels[across], pixels[down])), drawn=drawn)
