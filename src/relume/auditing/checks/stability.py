"""Does the map hold still? The picture is changed by less than anyone sees, and the map is to stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relume.auditing.subject import Question
from relume.measures.similarity import SIMILARITIES, Maps, Similarities, Values, defined_mean

__all__ = ["Stability", "measure_stability", "sensitivity", "shifted"]

#: One pixel down, up, right, left.
SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """How alike maps stay under changes that nobody sees: means over the changes, ``(N,)`` for each of :data:`SIMILARITIES`.

    Attributes:
        noise: under small noise; the ceiling of what any other comparison can reach.
        shift: when the picture moves by one pixel and the map is moved back.
        largest: the highest :func:`sensitivity` to the noise, ``(N,)``: max-sensitivity, Yeh et al. 2019, arXiv:1901.09392.
    """

    noise: Similarities
    shift: Similarities
    largest: Values


def sensitivity(a: Values, b: Values) -> float:
    """``‖b - a‖ / ‖a‖``: how far a map moves from ``a``, in lengths of ``a``: Yeh et al. 2019, arXiv:1901.09392."""
    return float(np.linalg.norm(b - a) / np.linalg.norm(a)) if a.any() else np.nan


def shifted(values: Tensor, down: int, across: int) -> Tensor:
    """Pictures ``(…, H, W)`` moved by whole pixels; what comes in at a border repeats it."""
    height, width = values.shape[-2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - across).clamp(0, width - 1)
    return values[..., rows, :][..., columns]


def measure_stability(
    question: Question, original: Maps, generator: torch.Generator, *, draws: int = 4, share: float = 0.02
) -> Stability:
    """Explain the pictures under noise and moved by one pixel in each of four directions.

    Args:
        question: the method, network and pictures.
        original: their maps.
        generator: of the noise.
        draws: how often noise is drawn.
        share: its ``σ``, as a share of each picture's range.
    """
    images = question.images
    reach = share * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    noise = torch.randn((draws, *images.shape), generator=generator).to(images) * reach
    noisy = [question.maps(images=images + drawn) for drawn in noise]
    moved = [_back(question.maps(images=shifted(images, *by)), by) for by in SHIFTS]
    inner = _back(original, (0, 0))
    largest = [[sensitivity(a, b) for a, b in zip(original.raw, maps.raw, strict=True)] for maps in noisy]
    return Stability(
        _averaged([original.compare(maps) for maps in noisy]),
        _averaged([inner.compare(maps) for maps in moved]),
        np.max(largest, axis=0),
    )


def _back(maps: Maps, by: tuple[int, int]) -> Maps:
    """Maps of pictures that were moved, moved back, without the border; of coarse maps what is drawn, a pixel being finer."""
    (down, across), (height, width) = by, maps.saliency.shape[1:]
    inner = (..., slice(1 + down, height - 1 + down), slice(1 + across, width - 1 + across))
    raw = maps.raw if maps.raw.shape[-2:] == (height, width) else maps.saliency
    return Maps(raw[inner], maps.saliency[inner])


def _averaged(rows: list[dict[str, Values]]) -> dict[str, Values]:
    return {key: defined_mean(np.stack([row[key] for row in rows])) for key in SIMILARITIES}
