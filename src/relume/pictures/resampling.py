"""Recordings resampled, cropped and normalised to the tensor that a network expects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from relume.errors import ImageError
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from torch import Tensor

    from relume.pictures.preprocessing import Preprocessing

__all__ = ["resampled"]

#: The order of the splines for each way to resize.
ORDERS = {"nearest": 0, "bilinear": 1, "bicubic": 3}

#: The number of last axes that a single number of pixels is about: the frames of a video are not resized with their pictures.
WHOLE = {"signal": 1, "bands": 2, "volume": 3, "video": 2}


def resampled(recording: Recording, preprocessing: Preprocessing) -> tuple[Recording, Tensor]:
    """Return a recording with the part that the network sees of it, and the network's input: ``(C, *spatial)``.

    Raises:
        ImageError: it has other channels or axes than the preprocessing is for.
    """
    import torch

    values, mean, std = _channels(recording, preprocessing)
    low, high = preprocessing.window or recording.limits or (0.0, 1.0)
    values = np.where(np.isfinite(values), values, low + mean * (high - low)).astype(values.dtype)  # zero when normalised
    whole = WHOLE[recording.kind]
    size = preprocessing.resized(_spaced(recording, preprocessing), whole)
    edges = preprocessing.cropped(size, whole)
    values = _resized(values, size, preprocessing.interpolation)
    if preprocessing.window is not None:
        values = values.clip(low, high)
    values = _cut(values, edges, low if preprocessing.window or recording.limits else 0.0)
    scales = [side / resized for side, resized in zip(recording.size, size, strict=True)]
    box = tuple((start * scale, end * scale) for (start, end), scale in zip(edges, scales, strict=True))
    if recording.kind == "signal" and preprocessing.bands is not None:  # each line is drawn with the map of its own channel
        taken = recording.values[list(preprocessing.bands)]
        recording = replace(recording, values=taken, shown=(), bands=preprocessing.bands)
    return recording.within(box), torch.from_numpy(np.ascontiguousarray(((values - low) / (high - low) - mean) / std))


def _channels(recording: Recording, preprocessing: Preprocessing) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the channels that the network takes, as floating-point values, and the mean and deviation of each."""
    values, bands = recording.values, preprocessing.bands
    if bands is not None:
        if max(bands) >= len(values):
            raise ImageError(
                f"there is no band {max(bands)} in a recording of {len(values)}, counted from 0; name others by bands"
            )
        values = values[list(bands)]
    if preprocessing.channels not in (1, len(values)):
        raise ImageError(
            f"the recording gives {len(values)} channels, and mean and std are for {preprocessing.channels}; give as many "
            "values, or choose channels by bands"
        )
    dtype = np.promote_types(values.dtype, np.float32) if values.dtype.itemsize < 4 else values.dtype
    dtype = dtype if dtype == np.float64 else np.dtype(np.float32)
    shape = (-1,) + (1,) * len(recording.size)
    mean, std = (np.asarray(each, dtype).reshape(shape) for each in (preprocessing.mean, preprocessing.std))
    return values.astype(dtype), mean, std


def _spaced(recording: Recording, preprocessing: Preprocessing) -> tuple[int, ...]:
    """Return the size of a recording at the spacing that the network expects."""
    spacing = preprocessing.spacing
    if spacing is None:
        return recording.size
    if len(spacing) not in (1, len(recording.size)):
        raise ImageError(
            f"spacing has {len(spacing)} numbers, and a {recording.kind} {len(recording.size)} axes; give one for each"
        )
    wanted = spacing * len(recording.size) if len(spacing) == 1 else spacing
    sides = zip(recording.size, recording.spacing, wanted, strict=True)
    return tuple(max(1, round(side * own / step)) for side, own, step in sides)


def _resized(values: NDArray[Any], size: tuple[int, ...], interpolation: str) -> NDArray[Any]:
    """Resize every channel, after a blur where it becomes smaller."""
    if values.shape[1:] == size:
        return values
    if interpolation not in ORDERS:
        raise ImageError(f"recordings are resized by {', '.join(ORDERS)}; got interpolation {interpolation!r}")
    from skimage.transform import resize

    order = ORDERS[interpolation]
    resized: NDArray[Any] = resize(  # type: ignore[no-untyped-call]
        values, (len(values), *size), order=order, mode="edge", anti_aliasing=order > 0, preserve_range=True
    )
    return resized.astype(values.dtype)


def _cut(values: NDArray[Any], edges: tuple[tuple[int, int], ...], beyond: float) -> NDArray[Any]:
    """Cut out what lies between the edges along each axis; what lies beyond the values is ``beyond``."""
    inside = tuple(slice(max(start, 0), max(end, 0)) for start, end in edges)
    cut = values[(slice(None), *inside)]
    margins = [(max(-start, 0), max(end - side, 0)) for (start, end), side in zip(edges, values.shape[1:], strict=True)]
    return np.pad(cut, [(0, 0), *margins], constant_values=beyond) if any(map(any, margins)) else cut
