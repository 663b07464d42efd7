"""Patches: the pixels that the pictures of a group share and others do not, and where such a patch is in other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from relume.datasets.shortcuts.candidates import Peaks
from relume.datasets.shortcuts.suspects import Picture

__all__ = ["MEASURED_SIDE", "Patch", "aligned_patch", "found_places", "pasted", "patch_at_one_place", "windows_at"]

#: Sizes in pixels are those of pictures whose shorter side is this: where thresholds were measured.
MEASURED_SIDE = 128

#: Values of a channel that differ by no more are the same, of 255.
TOLERANCE = np.uint8(28)

_SHARED = 0.6  # of the pictures of a group have a pixel of its patch
_MORE_AT_ONE_PLACE, _MORE_ANYWHERE = 0.4, 0.3  # than this share of other pictures
_EDGE = 40  # the range of values in 3 × 3 pixels, from which on there is an edge: flat colours agree by themselves
_BATCH = 64  # pictures in which patches are looked for at once
_PATCH, _WINDOW = 24, 32  # the side of an aligned patch, and of the window in which it may move
_LEAST_AT_ONE_PLACE, _LEAST_ANYWHERE = 32, 20  # pixels of a patch

Mask = NDArray[np.bool_]
Shares = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Pixels that pictures share.

    Attributes:
        pixels: ``(height, width, 3)``.
        mask: which of them are shared.
        places: the rows and columns of its upper left corner at which it may be pasted, ``(places, 2)``.
        sameness: the pixels on edges that the group shares beyond others, each counted by the difference of the shares, in
            pixels of a picture of 128 × 128.
    """

    pixels: Picture
    mask: Mask
    places: Places
    sameness: float


def unit_of(pictures: Picture) -> float:
    """Return the size of pictures ``(N, height, width, 3)``, where 1 is that of those that thresholds were measured on."""
    return float(min(pictures.shape[1:3]) / MEASURED_SIDE)


def _range(model: Picture) -> tuple[Picture, Picture]:
    """Return ``least`` and ``most``: a value is the same as the model's where ``value - least <= most``, both being uint8.

    Lower values wrap round to high ones, so that one comparison of bytes is enough.
    """
    least = np.maximum(model, TOLERANCE) - TOLERANCE
    return least, np.minimum(model, 255 - TOLERANCE) + TOLERANCE - least


def _agreeing(pictures: Picture, model: Picture) -> Mask:
    """Tell which pixels are the same as those of a model, in all three channels: ``(..., height, width)``."""
    least, most = _range(model)
    agree: Mask = np.asarray((pictures - least <= most).all(-1))
    return agree


def _patch(model: Picture, agree: Shares, others: Shares, more: float, least: float, unit: float) -> Patch | None:
    """Cut out the largest part of a model whose pixels the group has and others do not; None if it is too small."""
    parts, count = ndimage.label((agree >= _SHARED) & (agree - others >= more))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    if not count or sizes.max() < least * unit**2:
        return None
    part = 1 + int(sizes.argmax())
    box = ndimage.find_objects(parts)[part - 1]
    mask, pixels = parts[box] == part, model[box]
    span = ndimage.maximum_filter(pixels, (3, 3, 1)).astype(int) - ndimage.minimum_filter(pixels, (3, 3, 1))
    sameness = float(((agree - others)[box] * (mask & (span.max(-1) >= _EDGE))).sum() / unit**2)
    return Patch(pixels, mask, np.array([[box[0].start, box[1].start]]), sameness)


def patch_at_one_place(group: Picture, others: Picture) -> Patch | None:
    """Cut out the pixels that a group of pictures shares at one place, and others do not have there.

    Args:
        group: ``(N, height, width, 3)``; their median is the model.
        others: the same of other classes.
    """
    model = np.median(group, 0).astype(np.uint8)
    agree, theirs = _agreeing(group, model).mean(0), _agreeing(others, model).mean(0)
    return _patch(model, agree, theirs, _MORE_AT_ONE_PLACE, _LEAST_AT_ONE_PLACE, unit_of(group))


def windows_at(pictures: Picture, peaks: Peaks) -> tuple[Picture, Places]:
    """Cut windows about maxima out of pictures ``(N, height, width, 3)``, moved inside where they would reach over an edge.

    Returns:
        The windows ``(windows, side, side, 3)``, and the row and column of the first pixel of each.
    """
    sides, side = np.array(pictures.shape[1:3]), round(_WINDOW * unit_of(pictures))
    corners = (peaks.centres * sides - side / 2).round().astype(np.int64).clip(0, sides - side)
    cut = [pictures[i, top : top + side, left : left + side] for i, (top, left) in zip(peaks.pictures, corners, strict=True)]
    return np.stack(cut), corners


def _moved(windows: Picture, model: Picture) -> tuple[Picture, Places]:
    """Cut out of each window the part that agrees best with a model, and return where it begins in the window."""
    side, step = len(model), max(1, round(len(model) / _PATCH))  # as many pixels are compared at any size
    views = sliding_window_view(windows, (side, side), (1, 2))[..., ::step, ::step]  # (N, moves, moves, 3, rows, columns)
    least, most = _range(model[::step, ::step])
    moves = np.empty((len(windows), 2), np.int64)
    for i, view in enumerate(views):
        agree = np.ones((), bool)
        for channel in range(3):
            agree = agree & (view[:, :, channel] - least[..., channel] <= most[..., channel])
        counts = agree.sum((-1, -2), dtype=np.uint16)
        moves[i] = np.unravel_index(counts.argmax(), counts.shape)
    parts = [w[top : top + side, left : left + side] for w, (top, left) in zip(windows, moves, strict=True)]
    return np.stack(parts), moves


def aligned_patch(windows: Picture, corners: Places, others: Picture, unit: float) -> Patch | None:
    """Cut out the pixels that windows share once they are moved to agree best, and that others do not, moved alike.

    Args:
        windows: ``(N, side, side, 3)``, the most typical first: the first two are tried as models.
        corners: where each begins in its picture.
        others: windows of other classes.
        unit: the size of the pictures, as :func:`unit_of`.
    """
    side = round(_PATCH * unit)
    margin = (windows.shape[1] - side) // 2
    best: tuple[float, Picture, Shares, Places] | None = None
    for seed in windows[:2]:
        model = seed[margin : margin + side, margin : margin + side]
        for _ in range(2):
            parts, moves = _moved(windows, model)
            model = np.median(parts, 0).astype(np.uint8)
        agree = _agreeing(parts, model).mean(0)
        score = float(((agree >= _SHARED) * agree).sum())
        if best is None or score > best[0]:
            best = score, model, agree, moves
    assert best is not None, "a group has windows"
    _, model, agree, moves = best
    patch = _patch(model, agree, _agreeing(_moved(others, model)[0], model).mean(0), _MORE_ANYWHERE, _LEAST_ANYWHERE, unit)
    return patch and Patch(patch.pixels, patch.mask, corners + moves + patch.places, patch.sameness)


def pasted(patch: Patch, picture: Picture, place: Sequence[int]) -> Picture:
    """Return a picture with the patch at a place."""
    result, (top, left), (height, width) = picture.copy(), place, patch.mask.shape
    result[top : top + height, left : left + width][patch.mask] = patch.pixels[patch.mask]
    return result


def found_places(patches: Sequence[Patch], pictures: Picture) -> list[tuple[NDArray[np.float32], Places]]:
    """Find where each picture is most like each patch: the root mean square of the difference there, and row and column.

    The difference at all places is a sum of correlations, computed by Fourier transforms.

    Args:
        patches: the patches.
        pictures: ``(N, height, width, 3)``.

    Returns:
        For each patch ``(N,)``, of at most 255, and ``(N, 2)``.
    """
    sides = (pictures.shape[1], pictures.shape[2])
    kernels, found = [_Kernel.of(patch, sides) for patch in patches], []
    for start in range(0, len(pictures), _BATCH):
        batch = _centred(pictures[start : start + _BATCH])
        spectra = torch.fft.rfft2(torch.cat([batch.square().sum(1, keepdim=True), batch], 1))
        found.append([kernel.nearest(spectra, sides) for kernel in kernels])
    result = []
    for of_patch in zip(*found, strict=True):
        distances, places = zip(*of_patch, strict=True)
        result.append((torch.cat(distances).numpy(), torch.cat(places).numpy()))
    return result


class _Kernel(NamedTuple):
    """A patch ready to be compared at all places."""

    spectrum: Tensor  # of its mask and its values
    own: Tensor  # the sum of its squares
    sides: tuple[int, int]
    values: int  # how many it has

    @classmethod
    def of(cls, patch: Patch, sides: tuple[int, int]) -> _Kernel:
        mask, model = torch.from_numpy(patch.mask).float(), _centred(patch.pixels[None])[0]
        kernel = torch.zeros(4, *sides)
        kernel[:, : mask.shape[0], : mask.shape[1]] = torch.cat([mask[None], -2 * mask * model])
        size = (mask.shape[0], mask.shape[1])
        return cls(torch.fft.rfft2(kernel).conj(), (mask * model.square()).sum(), size, 3 * int(mask.sum()))

    def nearest(self, spectra: Tensor, sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the least difference to each of the pictures with these spectra, and its place."""
        rows, columns = (side - own + 1 for side, own in zip(sides, self.sides, strict=True))
        squares = torch.fft.irfft2((spectra * self.spectrum).sum(1), s=sides)[:, :rows, :columns] + self.own
        least = squares.flatten(1).min(1)
        place = torch.stack([least.indices // columns, least.indices % columns], 1)
        return (least.values.clamp(min=0) / self.values).sqrt(), place


def _centred(pictures: Picture) -> Tensor:
    """Return pictures as ``(N, 3, height, width)``, from -128 on: smaller numbers are rounded less."""
    return torch.from_numpy(pictures.astype(np.float32) - 128).permute(0, 3, 1, 2)
