"""The check of small changes: the image is changed by less than anybody sees, and the map is to stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relume.auditing.checks.base import Check, Limit, Measure
from relume.auditing.subject import Subject
from relume.measures.similarity import SIMILARITIES, Maps, Similarities, Values, defined_mean

__all__ = ["STABILITY", "Stability", "measure_stability", "sensitivity", "shifted"]

#: One pixel down, up, right, left.
SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


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


def shifted(values: Tensor, down: int, across: int) -> Tensor:
    """Move images ``(…, H, W)`` by whole pixels; the border is repeated where something comes in."""
    height, width = values.shape[-2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - across).clamp(0, width - 1)
    return values[..., rows, :][..., columns]


def measure_stability(subject: Subject, *, draws: int = 4, share: float = 0.02) -> Stability:
    """Explain the images under noise, and moved by one pixel in each of four directions.

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
    reach = share * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    noise = torch.randn((draws, *images.shape), generator=subject.generator()).to(images) * reach
    noisy = [subject.maps_of(images=images + drawn) for drawn in noise]
    moved = [_back(subject.maps_of(images=shifted(images, *by)), by) for by in SHIFTS]
    inner = _back(original, (0, 0))
    largest = [[sensitivity(a, b) for a, b in zip(original.raw, maps.raw, strict=True)] for maps in noisy]
    return Stability(
        _averaged([original.compare(maps) for maps in noisy]),
        _averaged([inner.compare(maps) for maps in moved]),
        np.max(largest, axis=0),
    )


def _back(maps: Maps, by: tuple[int, int]) -> Maps:
    """Move maps of moved images back, without the border; of coarse maps the saliency, since a pixel is finer than they are."""
    (down, across), (height, width) = by, maps.saliency.shape[1:]
    inner = (..., slice(1 + down, height - 1 + down), slice(1 + across, width - 1 + across))
    raw = maps.raw if maps.raw.shape[-2:] == (height, width) else maps.saliency
    return Maps(raw[inner], maps.saliency[inner])


def _averaged(rows: list[dict[str, Values]]) -> dict[str, Values]:
    return {key: defined_mean(np.stack([row[key] for row in rows])) for key in SIMILARITIES}


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
            Limit(0.48, "noise", "stays as it is under noise that nobody sees", "changes under noise that nobody sees"),
        ),
        "shift": Measure(
            "similarity after a shift by one pixel",
            "high",
            "The map is to move with the image.",
            lambda result: result.shift["absolute"],
            Limit(0.44, "noise", "moves with the image", "changes when the image moves by one pixel"),
        ),
    },
    citation="Yeh et al. 2019, arXiv:1901.09392",
)
