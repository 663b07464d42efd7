"""The check of small changes: the image is changed by less than anybody sees, and the map is to stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relume.auditing.checks.base import Check, Limit, Measure
from relume.auditing.subject import Subject
from relume.errors import InputError
from relume.measures.similarity import Maps, Similarities, Values, defined_mean

__all__ = ["STABILITY", "Stability", "measure_stability", "sensitivity", "shifted", "shifts"]


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """The similarity of maps under changes that nobody sees: means over the changes, ``(N,)`` for each of the similarities.

    Attributes:
        noise: under small noise; the ceiling of what any other comparison can reach.
        shift: when the image moves by one pixel and the map is moved back.
        largest: the highest :func:`sensitivity` to the noise, ``(N,)``: max-sensitivity, Yeh et al. 2019, arXiv:1901.09392.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_stability
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = measure_stability(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> result.shift["absolute"].shape, result.largest.shape
        ((2,), (2,))
    """

    noise: Similarities
    shift: Similarities
    largest: Values


def sensitivity(a: Values, b: Values) -> float:
    """Return ``‖b - a‖ / ‖a‖``, the distance that a map moves from ``a``: Yeh et al. 2019, arXiv:1901.09392."""
    return float(np.linalg.norm(b - a) / np.linalg.norm(a)) if a.any() else np.nan


def shifts(size: Sequence[int]) -> list[tuple[int, ...]]:
    """List the steps of one pixel both ways along each axis of at least three: down, up, right and left in an image.

    Raises:
        InputError: no axis has three.
    """
    axes = [axis for axis, side in enumerate(size) if side > 2]
    if not axes:
        raise InputError(f"images of {'×'.join(map(str, size))} pixels are too small to be moved by one")
    return [tuple(step * (axis == other) for other in range(len(size))) for axis in axes for step in (1, -1)]


def shifted(values: Tensor, by: Sequence[int]) -> Tensor:
    """Move images ``(…, *spatial)`` by whole pixels along each axis; the border is repeated where something comes in."""
    for axis, step in enumerate(by, values.ndim - len(by)):
        side = values.shape[axis]
        values = values.index_select(axis, (torch.arange(side, device=values.device) - step).clamp(0, side - 1))
    return values


def measure_stability(subject: Subject, *, draws: int = 4, share: float = 0.02) -> Stability:
    """Explain the images under noise, and moved by one pixel both ways along each axis.

    Args:
        subject: the network, its images and their maps.
        draws: how often noise is drawn.
        share: its ``σ``, as a share of each image's range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_stability
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = measure_stability(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> result.noise["absolute"].shape
        (2,)
    """
    images, original = subject.images, subject.maps
    own = tuple(range(1, images.ndim))
    reach = share * (images.amax(own, keepdim=True) - images.amin(own, keepdim=True))
    noise = torch.randn((draws, *images.shape), generator=subject.generator()).to(images) * reach
    noisy = [subject.maps_of(images=images + drawn) for drawn in noise]
    moved = [_back(subject.maps_of(images=shifted(images, by)), by) for by in shifts(images.shape[2:])]
    inner = _back(original, [0] * (images.ndim - 2))
    largest = [[sensitivity(a, b) for a, b in zip(original.raw, maps.raw, strict=True)] for maps in noisy]
    return Stability(
        _averaged([original.compare(maps) for maps in noisy]),
        _averaged([inner.compare(maps) for maps in moved]),
        np.max(largest, axis=0),
    )


def _back(maps: Maps, by: Sequence[int]) -> Maps:
    """Move maps of moved images back, without the border; of coarse maps the saliency, since a pixel is finer than they are."""
    size = maps.saliency.shape[1:]
    inner = (..., *(slice(1 + n, side - 1 + n) if side > 2 else slice(None) for n, side in zip(by, size, strict=True)))
    raw = maps.raw if maps.raw.shape[-len(size) :] == size else maps.saliency
    return Maps(raw[inner], maps.saliency[inner])


def _averaged(rows: list[dict[str, Values]]) -> dict[str, Values]:
    return {key: defined_mean(np.stack([row[key] for row in rows])) for key in rows[0]}


STABILITY = Check(
    "Small changes of the image",
    "Noise that nobody sees, and a shift by one pixel, are not to change the map.",
    measure_stability,
    {
        "stability": Measure(
            "similarity under small noise",
            "high",
            "Noise that nobody sees is not to change the map.",
            lambda result: result.noise["absolute"],
            Limit(0.48, "changes under noise that nobody sees"),
        ),
        "shift": Measure(
            "similarity after a shift by one pixel",
            "high",
            "The map is to move with the image.",
            lambda result: result.shift["absolute"],
            Limit(0.44, "changes when the image moves by one pixel"),
        ),
    },
    citation="Yeh et al. 2019, arXiv:1901.09392",
)
