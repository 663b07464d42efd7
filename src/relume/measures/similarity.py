"""How alike two maps are: measures of two raw maps of one picture, each one formula.

Throughout, ``a`` is the map that ``b`` is compared with. A map that is constant says nothing: compared with it nothing is a
number; and it tells nothing of another map, so that it is 0 alike, the expectation over every way to break its ties.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relume.maps import saliency, upsample
from relume.measures.localisation import Map, rank_correlation

__all__ = [
    "SIMILARITIES",
    "Maps",
    "Similarities",
    "Similarity",
    "correlation",
    "defined_mean",
    "hog",
    "hog_correlation",
    "spearman",
    "ssim",
]

Values: TypeAlias = NDArray[np.float64]

#: For each measure its values, of one picture in each column: ``(N,)``, or ``(steps, N)``.
Similarities: TypeAlias = Mapping[str, Values]

#: The least side of a map that has three cells of three pixels, and windows of 11 × 11.
LEAST = 24


# --- Two maps ------------------------------------------------------------------------------------------------------------


def _comparing(formula: Callable[[Map, Map], float]) -> Callable[[Map, Map], float]:
    """``formula`` where both maps say something; NaN where ``a`` does not, and 0 where only ``b`` does not."""

    @functools.wraps(formula)
    def compared(a: Map, b: Map) -> float:
        if np.ptp(a) == 0 or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return math.nan
        return formula(a, b) if np.ptp(b) else 0.0

    return compared


@_comparing
def spearman(a: Map, b: Map) -> float:
    """Spearman's rank correlation, in [-1, 1]: Spearman 1904. Adebayo et al. 2018 take it of signed and of absolute values."""
    return rank_correlation(a, b)


@_comparing
def correlation(a: Map, b: Map) -> float:
    """``cov(a, b) / √(var(a) var(b))``, in [-1, 1]: Pearson 1895."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@_comparing
def ssim(a: Map, b: Map) -> float:
    """The structural similarity of ``(H, W)`` maps, each divided by its highest value, in [-1, 1].

    Wang et al. 2004, doi:10.1109/TIP.2003.819861: means and covariances under a Gaussian of ``σ = 1.5``, cut at 11 × 11 pixels.
    """
    from skimage.metrics import structural_similarity

    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a / np.abs(a).max(), b / np.abs(b).max(), **options))  # type: ignore[no-untyped-call]


@_comparing
def hog_correlation(a: Map, b: Map) -> float:
    """Pearson's correlation of the histograms of oriented gradients of ``(H, W)`` maps, in [-1, 1]."""
    return correlation(hog(a), hog(b))


def hog(heat: Map) -> Values:
    """Histograms of oriented gradients of a map divided by its highest value: Dalal & Triggs 2005, doi:10.1109/CVPR.2005.177.

    Nine directions, blocks of 3 × 3 cells; a cell has 16 pixels a side as in Adebayo et al. 2018, and in pictures below 128
    pixels an eighth of the shorter side.
    """
    from skimage import feature

    cell = min(16, min(heat.shape) // 8)
    found: Values = feature.hog(heat / np.abs(heat).max(), orientations=9, pixels_per_cell=(cell, cell))
    return found


def defined_mean(values: Values) -> Values:
    """The mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    counts = defined.sum(0)
    return np.where(counts > 0, np.where(defined, values, 0).sum(0) / np.maximum(counts, 1), np.nan)


# --- Maps of several pictures --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """The maps of ``N`` pictures: ``raw`` ``(N, …)`` as the method gave them, and their ``saliency`` ``(N, H, W)``."""

    raw: NDArray[np.floating]
    saliency: Values

    @classmethod
    def of(cls, raw: Tensor, size: tuple[int, ...]) -> Maps:
        """Those of raw maps, ``(N, C, H, W)``, or coarse ``(N, h, w)``, which are enlarged to ``size``."""
        raw = raw.detach().to("cpu", torch.promote_types(raw.dtype, torch.float32))
        drawn = saliency(raw) if raw.ndim == 4 else upsample(raw, size)
        return cls(raw.numpy(), drawn.double().numpy())

    def __len__(self) -> int:
        return len(self.saliency)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Which of them are constant, or no numbers, and say nothing, ``(N,)``."""
        spread: Values = np.ptp(self.saliency.reshape(len(self), -1), axis=1)
        return ~(spread > 0)

    def defined(self) -> Maps:
        """Return the same maps, NaN where one says nothing: by comparison all would be 0 alike, which reads as a finding."""
        empty = self.empty[:, None, None]
        return Maps(
            np.where(empty.reshape(-1, *[1] * (self.raw.ndim - 1)), np.nan, self.raw), np.where(empty, np.nan, self.saliency)
        )

    def unknown(self) -> Maps:
        """As many maps of NaN."""
        return Maps(np.full_like(self.raw, np.nan), np.full_like(self.saliency, np.nan))

    def compare(self, other: Maps) -> dict[str, Values]:
        """How alike ``other`` is by each of :data:`SIMILARITIES`, ``(N,)`` each; NaN where a measure is undefined."""
        pairs = [(self._at(i), other._at(i)) for i in range(len(self))]
        return {key: np.array([s.compute(a, b) for a, b in pairs]) for key, s in SIMILARITIES.items()}

    def _at(self, i: int) -> tuple[Map, Map]:
        return self.raw[i], self.saliency[i]


@dataclass(frozen=True, slots=True)
class Similarity:
    """A measure of two maps, each its raw values and its saliency: its name in tables, and how it is computed."""

    title: str
    compute: Callable[[tuple[Map, Map], tuple[Map, Map]], float]


def _signed(a: tuple[Map, Map], b: tuple[Map, Map]) -> float:
    """Undefined for raw maps of different shapes, such as a coarse one and an edge map."""
    return spearman(a[0], b[0]) if a[0].shape == b[0].shape else math.nan


def _sized(formula: Callable[[Map, Map], float]) -> Callable[[tuple[Map, Map], tuple[Map, Map]], float]:
    """``formula`` of the saliency; undefined below :data:`LEAST` pixels a side."""
    return lambda a, b: formula(a[1], b[1]) if min(a[1].shape) >= LEAST else math.nan


#: Every measure, by key: the first of the raw maps with their signs, the others of their saliency.
SIMILARITIES: Mapping[str, Similarity] = MappingProxyType(
    {
        "signed": Similarity("Spearman, signed", _signed),
        "absolute": Similarity("Spearman, absolute", lambda a, b: spearman(a[1], b[1])),
        "ssim": Similarity("SSIM", _sized(ssim)),
        "hog": Similarity("HOG correlation", _sized(hog_correlation)),
    }
)
