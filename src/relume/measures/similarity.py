"""Similarities of two maps of one image, each one formula.

Throughout, ``a`` is the map that ``b`` is compared with. If ``a`` is constant, the similarity is NaN. If only ``b`` is
constant, it is 0, the expectation over every way to break its ties.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relume.maps import saliency, upsample
from relume.measures.localisation import Map, rank_correlation
from relume.registry import Registry

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

#: For each similarity its values, of one image in each column: ``(N,)``, or ``(steps, N)``.
Similarities: TypeAlias = Mapping[str, Values]

#: The least side of a map that has three cells of three pixels, and enough windows of 11 pixels a side.
LEAST = 24


# --- Two maps ------------------------------------------------------------------------------------------------------------


def _where_defined(formula: Callable[[Map, Map], float]) -> Callable[[Map, Map], float]:
    """Make ``formula`` give NaN where ``a`` is constant or a value is not finite, and 0 where only ``b`` is constant."""

    @functools.wraps(formula)
    def similarity(a: Map, b: Map) -> float:
        if np.ptp(a) == 0 or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return math.nan
        return formula(a, b) if np.ptp(b) else 0.0

    return similarity


@_where_defined
def spearman(a: Map, b: Map) -> float:
    """Compute Spearman's rank correlation, in [-1, 1]: Spearman 1904.

    Adebayo et al. 2018, arXiv:1810.03292, compute it of signed and of absolute values.

    Example:
        >>> import numpy as np
        >>> from relume.measures import spearman
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.zeros(3))
        0.0
    """
    return rank_correlation(a, b)


@_where_defined
def correlation(a: Map, b: Map) -> float:
    """Compute ``cov(a, b) / √(var(a) var(b))``, in [-1, 1]: Pearson 1895.

    Example:
        >>> import numpy as np
        >>> from relume.measures import correlation
        >>> round(correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])), 6)
        -1.0
    """
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@_where_defined
def ssim(a: Map, b: Map) -> float:
    """Compute the structural similarity of maps of any axes, each divided by its highest value, in [-1, 1].

    Wang et al. 2004, doi:10.1109/TIP.2003.819861: means and covariances under a Gaussian of ``σ = 1.5``, cut at 11 pixels along
    each axis, which every side must have.

    Example:
        >>> import numpy as np
        >>> from relume.measures import ssim
        >>> heat = np.random.default_rng(0).random((32, 32))
        >>> round(ssim(heat, 2 * heat), 6)
        1.0
    """
    from skimage.metrics import structural_similarity

    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a / np.abs(a).max(), b / np.abs(b).max(), **options))  # type: ignore[no-untyped-call]


@_where_defined
def hog_correlation(a: Map, b: Map) -> float:
    """Compute Pearson's correlation of the histograms of oriented gradients of ``(H, W)`` maps, in [-1, 1].

    Example:
        >>> import numpy as np
        >>> from relume.measures import hog_correlation
        >>> heat = np.random.default_rng(0).random((32, 32))
        >>> round(hog_correlation(heat, 2 * heat), 6)
        1.0
    """
    return correlation(hog(a), hog(b))


def hog(heat: Map) -> Values:
    """Compute histograms of oriented gradients of a map divided by its highest value.

    Dalal & Triggs 2005, doi:10.1109/CVPR.2005.177: nine directions, blocks of 3 × 3 cells. A cell has 16 pixels a side as in
    Adebayo et al. 2018, and in maps below 128 pixels an eighth of the shorter side.
    """
    from skimage import feature

    cell = min(16, min(heat.shape) // 8)
    histograms: Values = feature.hog(heat / np.abs(heat).max(), orientations=9, pixels_per_cell=(cell, cell))
    return histograms


def defined_mean(values: Values) -> Values:
    """Compute the mean over the first axis of the values that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    counts = defined.sum(0)
    return np.where(counts > 0, np.where(defined, values, 0).sum(0) / np.maximum(counts, 1), np.nan)


# --- Maps of several images ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """The maps of ``N`` images.

    Attributes:
        raw: the maps as the method made them, ``(N, C, *spatial)`` or coarse, ``(N, *coarse)``.
        saliency: at the resolution of the images, ``(N, *spatial)``.

    Example:
        >>> import torch
        >>> from relume.measures import Maps
        >>> maps = Maps.of(torch.rand(2, 3, 32, 32), (32, 32))
        >>> {key: values.round(3).tolist() for key, values in maps.compare(maps).items()}
        {'signed': [1.0, 1.0], 'absolute': [1.0, 1.0], 'ssim': [1.0, 1.0], 'hog': [1.0, 1.0]}
    """

    raw: NDArray[np.floating]
    saliency: Values

    @classmethod
    def of(cls, raw: Tensor, size: tuple[int, ...]) -> Maps:
        """Compute the saliency of raw maps ``(N, C, *size)``, or of coarse ones ``(N, *coarse)``, which are upsampled."""
        raw = raw.detach().to("cpu", torch.promote_types(raw.dtype, torch.float32))
        heat = saliency(raw) if raw.ndim == 2 + len(size) else upsample(raw, size)
        return cls(raw.numpy(), heat.double().numpy())

    def __len__(self) -> int:
        return len(self.saliency)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """True for each map that is constant or NaN and so says nothing, ``(N,)``."""
        spread: Values = np.ptp(self.saliency.reshape(len(self), -1), axis=1)
        return ~(spread > 0)

    def defined(self) -> Maps:
        """Return the maps with NaN in place of each empty one, whose similarities would be 0, which reads as a finding."""
        raw, heat = (
            np.where(self.empty.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values) for values in (self.raw, self.saliency)
        )
        return Maps(raw, heat)

    def unknown(self) -> Maps:
        """Return as many maps of NaN."""
        return Maps(np.full_like(self.raw, np.nan), np.full_like(self.saliency, np.nan))

    def compare(self, other: Maps) -> dict[str, Values]:
        """Compute each of :data:`SIMILARITIES` that suits their axes to ``other``, ``(N,)``; NaN where it is undefined."""
        pairs, axes = [(self._at(i), other._at(i)) for i in range(len(self))], self.saliency.ndim - 1
        suited = {key: s for key, s in SIMILARITIES.items() if s.axes in (None, axes)}
        return {key: np.array([s.compute(a, b) for a, b in pairs]) for key, s in suited.items()}

    def _at(self, i: int) -> tuple[Map, Map]:
        return self.raw[i], self.saliency[i]


@dataclass(frozen=True, slots=True)
class Similarity:
    """A similarity of two maps, each a pair of its raw values and its saliency.

    Attributes:
        title: its name in tables.
        compute: its formula, from two pairs to a number; NaN where it is undefined.
        axes: the number of spatial axes of the maps that it is for; None for any.

    Example:
        >>> import torch
        >>> from relume.measures import SIMILARITIES, Maps, Similarity
        >>> SIMILARITIES["peaks"] = Similarity("same highest pixel", lambda a, b: float(a[1].argmax() == b[1].argmax()))
        >>> maps = Maps.of(torch.rand(1, 3, 8, 8), (8, 8))
        >>> maps.compare(maps)["peaks"].tolist()
        [1.0]
        >>> del SIMILARITIES["peaks"]
    """

    title: str
    compute: Callable[[tuple[Map, Map], tuple[Map, Map]], float]
    axes: int | None = None


def _signed(a: tuple[Map, Map], b: tuple[Map, Map]) -> float:
    """Compare raw maps; undefined for maps of different shapes, such as a coarse one and an edge map."""
    return spearman(a[0], b[0]) if a[0].shape == b[0].shape else math.nan


def _if_large(formula: Callable[[Map, Map], float], a: tuple[Map, Map], b: tuple[Map, Map]) -> float:
    """Compare the saliency by ``formula``; undefined below :data:`LEAST` pixels a side."""
    return formula(a[1], b[1]) if min(a[1].shape) >= LEAST else math.nan


#: The similarities by key: the first one of the raw maps with their signs, the others of their saliency.
SIMILARITIES: Registry[Similarity] = Registry(
    "similarity",
    "relume.similarities",
    {
        "signed": Similarity("Spearman, signed", _signed),
        "absolute": Similarity("Spearman, absolute", lambda a, b: spearman(a[1], b[1])),
        "ssim": Similarity("SSIM", functools.partial(_if_large, ssim)),
        "hog": Similarity("HOG correlation", functools.partial(_if_large, hog_correlation), axes=2),
    },
)
