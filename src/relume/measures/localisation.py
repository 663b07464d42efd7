"""Measures of one map against ground truth, each one formula.

Throughout, ``R`` is a map's saliency, ``(*spatial)`` of any number of axes, not negative; ``T`` are the pixels of the class
explained, ``(*spatial)`` boolean. In a volume a pixel is a voxel, in a signal a point in time. A measure is NaN where it is
undefined: a map that is zero everywhere has no shares.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from relume.measures.statistics import area_under_curve
from relume.registry import Registry

__all__ = [
    "MEASURES",
    "Column",
    "Measure",
    "Truth",
    "cell_bounds",
    "cell_masks",
    "cell_masses",
    "correlation_length",
    "entropy",
    "gini",
    "measure",
    "pointing",
    "rank_accuracy",
    "rank_correlation",
    "share",
]

Map: TypeAlias = NDArray[np.floating]
Mask: TypeAlias = NDArray[np.bool_]

#: Half the width of the band about a mask's boundary, in pixels.
BAND = 2


@dataclass(frozen=True)
class Truth:
    """The ground truth of one class of an image, and the regions derived from it, which are computed once.

    Attributes:
        target: the pixels of the class explained, ``(*spatial)``.
        things: the pixels of every thing in the image, ``(*spatial)``.

    Example:
        >>> import numpy as np
        >>> from relume.measures import Truth
        >>> target = np.zeros((32, 32), dtype=bool)
        >>> target[8:16, 8:16] = True
        >>> truth = Truth(target, things=target)
        >>> int(truth.near.sum()), truth.reach
        (132, 2.0)
    """

    target: Mask
    things: Mask

    @functools.cached_property
    def away(self) -> NDArray[np.float64]:
        """The distance of each pixel to the nearest one of the target, in pixels; 0 on it."""
        return _distance(~self.target)

    @functools.cached_property
    def band(self) -> Mask:
        """The pixels within :data:`BAND` of the target's boundary, on either side."""
        return np.where(self.target, _distance(self.target), self.away) <= BAND

    @functools.cached_property
    def near(self) -> Mask:
        """The target and its neighbourhood within :attr:`reach`."""
        return self.away <= self.reach

    @functools.cached_property
    def tolerated(self) -> Mask:
        """The target and what is within 3 % of the longest side: 15 of PASCAL VOC's 500 pixels, as in the pointing game."""
        tolerated: Mask = self.away <= round(0.03 * max(self.target.shape))
        return tolerated

    @functools.cached_property
    def blurred(self) -> Map:
        """The target blurred by a Gaussian whose ``σ`` is :attr:`reach`: a map that is right and coarse."""
        return ndimage.gaussian_filter(self.target.astype(np.float64), self.reach)

    @property
    def reach(self) -> float:
        """A sixteenth of the image's longest side, in pixels: 8 of 128."""
        return float(max(self.target.shape)) / 16


def _distance(mask: Mask) -> NDArray[np.float64]:
    """Compute the distance of each pixel of ``mask`` to the nearest one beyond it, and infinity if none is beyond."""
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(mask)
    return np.where(mask, np.inf, 0.0) if mask.all() else distance


# --- One map -------------------------------------------------------------------------------------------------------------


def share(heat: Map, region: Mask, within: Mask | None = None) -> float:
    """Compute ``Σ_region R / Σ_within R``, in [0, 1]; ``within`` is the whole map if None, and holds the region otherwise.

    The share on ``T`` of the whole map is the relevance mass accuracy of Arras et al. 2022, arXiv:2003.07258.

    Example:
        >>> import numpy as np
        >>> from relume.measures import share
        >>> share(np.array([[3.0, 1.0]]), region=np.array([[True, False]]))
        0.75
    """
    total = float(heat.sum() if within is None else heat[within].sum())
    return float(heat[region].sum()) / total if total else math.nan


def rank_accuracy(heat: Map, target: Mask) -> float:
    """Compute relevance rank accuracy, ``|P ∩ T| / K``, in [0, 1], of the ``K = |T|`` pixels ``P`` where ``R`` is highest.

    Arras et al. 2022, arXiv:2003.07258. Pixels that tie for the last places count by the share of them that gets in, the
    expectation over every way to break the tie: so a constant map scores the share of the image that is target.

    Example:
        >>> import numpy as np
        >>> from relume.measures import rank_accuracy
        >>> rank_accuracy(np.array([[4.0, 3.0, 1.0]]), np.array([[True, False, True]]))
        0.5
    """
    k = int(target.sum())
    if k == 0 or not heat.any():
        return math.nan
    last = np.partition(heat, -k, axis=None)[-k]
    above, tied = heat > last, heat == last
    places = k - int(above.sum())
    return float((above & target).sum() + places * (tied & target).sum() / tied.sum()) / k


def pointing(heat: Map, hit: Mask) -> float:
    """Play the pointing game: 1 if the highest pixel of ``R`` lies in ``hit``, else 0; of several, the share that does.

    Zhang et al. 2018, arXiv:1608.00507, where ``hit`` is the target and what is within 15 pixels of it.

    Example:
        >>> import numpy as np
        >>> from relume.measures import pointing
        >>> pointing(np.array([[4.0, 4.0, 1.0]]), np.array([[True, False, True]]))
        0.5
    """
    return float(hit[heat == heat.max()].mean()) if heat.any() else math.nan


def correlation_length(heat: Map) -> float:
    """Compute the distance in pixels at which a map's autocorrelation falls below ``1/e``; a small one is fine-grained.

    With ``x = R - mean(R)`` and ``c(d)`` the mean of ``x_p x_{p+d}`` over all pairs of pixels ``d`` apart, ``a(r)`` is the mean
    of ``c(d) / c(0)`` over lags with ``r - ½ ≤ |d| < r + ½``. The length is the first ``r`` at which ``a(r) = 1/e``,
    interpolated linearly, and half the shortest side if there is none: the correlation length of statistical physics.

    Example:
        >>> import numpy as np
        >>> from relume.measures import correlation_length
        >>> round(correlation_length(np.random.default_rng(0).random((64, 64))), 1)  # white noise
        0.6
    """
    x = heat - heat.mean()
    variance = float((x**2).mean())
    if variance <= np.finfo(heat.dtype).eps ** 2 * float((heat**2).mean()):  # constant but for rounding
        return math.nan
    pairs, counts = _autocorrelation(x.astype(np.float64)), _pairs(heat.shape)
    radius, bins = _radius(heat.shape)
    profile = np.bincount(radius, (pairs / counts).ravel()[bins]) / np.bincount(radius) / variance
    below = (profile < np.exp(-1)).nonzero()[0]
    if not len(below):
        return float(min(heat.shape)) / 2
    r = int(below[0])
    return r - 1 + float((profile[r - 1] - np.exp(-1)) / (profile[r - 1] - profile[r]))


def gini(heat: Map) -> float:
    """Compute the Gini index of a map, in [0, 1]: 0 where all pixels are equal, near 1 where one pixel has all.

    With the ``d`` pixels in ascending order it is ``Σ_k (2k - d - 1) R_k / (d Σ R)``: Chalasani et al. 2020, arXiv:1810.06583.

    Example:
        >>> import numpy as np
        >>> from relume.measures import gini
        >>> gini(np.array([[0.0, 0.0, 0.0, 1.0]]))
        0.75
    """
    ranked, total = np.sort(heat, axis=None).astype(np.float64), float(heat.sum(dtype=np.float64))
    ranks = 2 * np.arange(1, ranked.size + 1) - ranked.size - 1
    return float(ranks @ ranked) / (ranked.size * total) if total else math.nan


def entropy(heat: Map) -> float:
    """Compute the entropy of a map's shares as a part of that of an even map, in [0, 1]: ``-Σ p log p / log d``, p = R / Σ R.

    Bhatt et al. 2020, arXiv:2005.00631, who do not divide by ``log d`` and call it complexity.

    Example:
        >>> import numpy as np
        >>> from relume.measures import entropy
        >>> round(entropy(np.array([[0.0, 0.0, 1.0, 1.0]])), 6)
        0.5
    """
    total = float(heat.sum(dtype=np.float64))
    if not total or heat.size < 2:
        return math.nan
    shares = heat[heat > 0].astype(np.float64) / total
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / math.log(heat.size)) + 0.0


def cell_masses(heat: Map, grid: int) -> Map:
    """Sum a map ``(H, W)`` over each of ``grid × grid`` cells, ``(grid, grid)``; cells differ by a pixel where they must.

    Example:
        >>> import numpy as np
        >>> from relume.measures import cell_masses
        >>> cell_masses(np.eye(4), 2).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    rows = np.add.reduceat(heat.astype(np.float64), cell_bounds(heat.shape[0], grid)[:-1], axis=0)
    masses: Map = np.add.reduceat(rows, cell_bounds(heat.shape[1], grid)[:-1], axis=1)
    return masses


def cell_bounds(side: int, grid: int) -> list[int]:
    """Return where each of ``grid`` cells along a side of so many pixels begins, and the end of the last.

    Example:
        >>> from relume.measures import cell_bounds
        >>> cell_bounds(7, 2)
        [0, 4, 7]
    """
    return [round(i * side / grid) for i in range(grid + 1)]


def cell_masks(size: Sequence[int], grid: int) -> list[Mask]:
    """Return the pixels of each of ``grid × grid`` cells of a map of ``size``, row by row.

    Example:
        >>> from relume.measures import cell_masks
        >>> cell_masks((4, 4), 2)[3].nonzero()[0].tolist()
        [2, 2, 3, 3]
    """
    rows, columns = (np.searchsorted(cell_bounds(side, grid)[1:], np.arange(side), "right") for side in size)
    number = rows[:, None] * grid + columns
    return [number == i for i in range(grid**2)]


def _autocorrelation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute ``Σ_p x_p x_{p+d}`` for every lag ``d`` down to minus the size, without wrapping around."""
    size, axes = [2 * n for n in x.shape], range(x.ndim)
    return np.fft.irfftn(np.abs(np.fft.rfftn(x, size, axes)) ** 2, size, axes)


@functools.lru_cache(maxsize=8)
def _pairs(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Count the pairs of pixels at each lag, 1 where there are none."""
    return np.maximum(np.round(_autocorrelation(np.ones(shape))), 1)


@functools.lru_cache(maxsize=8)
def _radius(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rounded length of each lag up to half the shortest side, and the indices of these lags."""
    lags = np.meshgrid(*(np.fft.fftfreq(2 * n, 1 / (2 * n)) for n in shape), indexing="ij", sparse=True)
    length = np.floor(functools.reduce(np.hypot, lags, 0.0) + 0.5).ravel().astype(np.int64)
    (bins,) = (length <= min(shape) // 2).nonzero()
    return length[bins], bins


# --- Two maps ------------------------------------------------------------------------------------------------------------


def rank_correlation(a: Map, b: Map) -> float:
    """Compute Spearman's rank correlation of two maps, in [-1, 1], ties at their mean rank: Spearman 1904.

    Between the maps for two classes of an image, a low one is discriminating. It is NaN where a map is constant.

    Example:
        >>> import numpy as np
        >>> from relume.measures import rank_correlation
        >>> round(rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])), 6)
        1.0
    """
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


# --- The measures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of measures.

    Attributes:
        title: its heading.
        better: ``high`` or ``low``, whichever value is better.
        group: the heading of the columns that it stands among.

    Example:
        >>> from relume.measures import Column
        >>> str(Column("share on the thing", "high"))
        'share on the thing ↑'
    """

    title: str
    better: Literal["high", "low"]
    group: str = "Further measures"

    def __str__(self) -> str:
        return f"{self.title} {'↑' if self.better == 'high' else '↓'}"


@dataclass(frozen=True, slots=True)
class Measure(Column):
    """A measure of one map against the truth.

    Attributes:
        compute: its formula, from the saliency ``(*spatial)`` and the truth to a number; NaN where it is undefined.

    Example:
        >>> import numpy as np
        >>> from relume.measures import MEASURES, Measure, Truth, measure
        >>> MEASURES["peak"] = Measure("highest on target", "high", compute=lambda heat, truth: float(heat[truth.target].max()))
        >>> target = np.eye(4, dtype=bool)
        >>> measure(np.full((4, 4), 0.5), Truth(target, target))["peak"]
        0.5
        >>> del MEASURES["peak"]
    """

    compute: Callable[[Map, Truth], float] = field(kw_only=True)


def _right_thing(heat: Map, truth: Truth) -> float:
    """Compute the target's share of what falls on things; undefined where nothing else is in the image."""
    return share(heat, truth.target, truth.things) if (truth.things & ~truth.target).any() else math.nan


def _pixel_auc(heat: Map, truth: Truth) -> float:
    """Compute the chance that a pixel of the target is above one that is not; undefined for an empty map."""
    return area_under_curve(heat, truth.target) if heat.any() else math.nan


_CLASSES, _RESOLUTION, _NOISE = "Class discrimination", "Resolution", "Noise and pointing"

#: The measures of one map by key; ``MEASURES["mine"] = Measure(...)`` adds one.
MEASURES: Registry[Measure] = Registry(
    "measure",
    "relume.measures",
    {
        "mass_accuracy": Measure("mass on target", "high", _CLASSES, compute=lambda r, t: share(r, t.target)),
        "rank_accuracy": Measure("rank accuracy", "high", _CLASSES, compute=lambda r, t: rank_accuracy(r, t.target)),
        "pixel_auc": Measure("pixel AUC", "high", _CLASSES, compute=_pixel_auc),
        "right_thing": Measure("on the right thing", "high", _CLASSES, compute=_right_thing),
        "correlation_length": Measure("correlation length, px", "low", _RESOLUTION, compute=lambda r, _: correlation_length(r)),
        "gini": Measure("Gini index", "high", _RESOLUTION, compute=lambda r, _: gini(r)),
        "entropy": Measure("entropy", "low", _RESOLUTION, compute=lambda r, _: entropy(r)),
        "boundary": Measure("mass at boundary", "high", _RESOLUTION, compute=lambda r, t: share(r, t.band)),
        "within": Measure("at boundary or inside", "high", _RESOLUTION, compute=lambda r, t: share(r, t.band | t.target)),
        "noise": Measure("mass off things", "low", _NOISE, compute=lambda r, t: share(r, ~t.things)),
        "local_noise": Measure("off things nearby", "low", _NOISE, compute=lambda r, t: share(r, t.near & ~t.things, t.near)),
        "pointing": Measure("pointing game", "high", _NOISE, compute=lambda r, t: pointing(r, t.target)),
        "pointing_tolerant": Measure("pointing, tolerant", "high", _NOISE, compute=lambda r, t: pointing(r, t.tolerated)),
    },
)


def measure(heat: Map, truth: Truth) -> dict[str, float]:
    """Compute every measure of one map, by key; each is NaN where the map is zero everywhere.

    Args:
        heat: the map's saliency, ``(*spatial)``, not negative.
        truth: the pixels of the class explained, and of everything.

    Example:
        >>> import numpy as np
        >>> from relume.measures import Truth, measure
        >>> target = np.zeros((8, 8), dtype=bool)
        >>> target[:2] = True
        >>> measure(np.ones((8, 8)), Truth(target, target))["mass_accuracy"]
        0.25
    """
    return {key: m.compute(heat, truth) for key, m in MEASURES.items()}
