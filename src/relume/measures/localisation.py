"""How well a map shows what is there: measures of one map against ground truth, each one formula.

Throughout, ``R`` is a map's saliency, ``(H, W)``, not negative; ``T`` are the pixels of the class explained,
``(H, W)`` boolean. A measure is NaN where it is undefined: a map that is zero everywhere has no shares.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

__all__ = [
    "MEASURES",
    "Measure",
    "Truth",
    "correlation_length",
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
    """What is where: the pixels of the class explained, and those of every thing.

    The regions derived from them are computed once.
    """

    target: Mask
    things: Mask

    @functools.cached_property
    def away(self) -> NDArray[np.float64]:
        """The distance of each pixel to the nearest one of the target, 0 on it."""
        return _distance(~self.target)

    @functools.cached_property
    def band(self) -> Mask:
        """Pixels of the target within :data:`BAND` of one beyond it, and pixels beyond it within as much of the target."""
        return np.where(self.target, _distance(self.target), self.away) <= BAND

    @functools.cached_property
    def near(self) -> Mask:
        """The target and its neighbourhood: what is within a sixteenth of the picture's longer side, 8 of 128 pixels."""
        return self.away <= self.reach

    @functools.cached_property
    def tolerated(self) -> Mask:
        """Within 3 % of the longer side of the target: the pointing game's 15 pixels on PASCAL VOC's pictures of 500."""
        tolerated: Mask = self.away <= round(0.03 * max(self.target.shape))
        return tolerated

    @functools.cached_property
    def blurred(self) -> Map:
        """A map that is right and coarse: the target blurred by a Gaussian whose ``σ`` is a sixteenth of the longer side."""
        return ndimage.gaussian_filter(self.target.astype(np.float64), self.reach)

    @property
    def reach(self) -> float:
        """A sixteenth of the longer side, in pixels."""
        return float(max(self.target.shape)) / 16


def _distance(mask: Mask) -> NDArray[np.float64]:
    """The distance of each pixel of ``mask`` to the nearest one that is not, and infinity if all are."""
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(mask)
    return np.where(mask, np.inf, 0.0) if mask.all() else distance


# --- One map -------------------------------------------------------------------------------------------------------------


def share(heat: Map, region: Mask, within: Mask | None = None) -> float:
    """``Σ_region R / Σ_within R``, in [0, 1]; ``within`` is the whole picture if None, and holds the region otherwise.

    On ``T`` of the whole picture it is the relevance mass accuracy of Arras et al. 2022, arXiv:2003.07258.
    """
    total = float(heat.sum() if within is None else heat[within].sum())
    return float(heat[region].sum()) / total if total else math.nan


def rank_accuracy(heat: Map, target: Mask) -> float:
    """``|P ∩ T| / K``, ``P`` the ``K = |T|`` pixels where ``R`` is highest: relevance rank accuracy, in [0, 1].

    Arras et al. 2022, arXiv:2003.07258. Pixels that tie for the last places count by the share of them that gets in, the
    expectation over every way to break the tie: so a constant map scores the share of the picture that is target.
    """
    k = int(target.sum())
    if k == 0 or not heat.any():
        return math.nan
    last = np.partition(heat, -k, axis=None)[-k]
    above, tied = heat > last, heat == last
    places = k - int(above.sum())
    return float((above & target).sum() + places * (tied & target).sum() / tied.sum()) / k


def pointing(heat: Map, hit: Mask) -> float:
    """The pointing game: 1 if the highest pixel of ``R`` lies in ``hit``, else 0; of several highest ones, the share that does.

    Zhang et al. 2018, arXiv:1608.00507, where ``hit`` is the target and what is within 15 pixels of it.
    """
    return float(hit[heat == heat.max()].mean()) if heat.any() else math.nan


def correlation_length(heat: Map) -> float:
    """How far a map resembles itself, in pixels: where its autocorrelation falls below ``1/e``. Small is fine-grained.

    With ``x = R - mean(R)`` and ``c(d)`` the mean of ``x_p x_{p+d}`` over all pairs of pixels ``d`` apart, ``a(r)`` is the mean
    of ``c(d) / c(0)`` over lags with ``r - ½ ≤ |d| < r + ½``. The length is the first ``r`` at which ``a(r) = 1/e``,
    interpolated linearly, and half the shorter side if there is none: the correlation length of statistical physics.
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


def _autocorrelation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``Σ_p x_p x_{p+d}`` for every lag ``d`` down to minus the size, without wrapping around."""
    size = (2 * x.shape[0], 2 * x.shape[1])
    return np.fft.irfft2(np.abs(np.fft.rfft2(x, size)) ** 2, size)


@functools.lru_cache(maxsize=8)
def _pairs(shape: tuple[int, int]) -> NDArray[np.float64]:
    """How many pairs of pixels are at each lag, 1 where there are none."""
    return np.maximum(np.round(_autocorrelation(np.ones(shape))), 1)


@functools.lru_cache(maxsize=8)
def _radius(shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rounded length of each lag up to half the shorter side, and which lags these are."""
    down, across = (np.fft.fftfreq(2 * n, 1 / (2 * n)) for n in shape)
    length = np.floor(np.hypot(down[:, None], across[None]) + 0.5).ravel().astype(np.int64)
    (bins,) = (length <= min(shape) // 2).nonzero()
    return length[bins], bins


# --- Two maps ------------------------------------------------------------------------------------------------------------


def rank_correlation(a: Map, b: Map) -> float:
    """Spearman's rank correlation of two maps, in [-1, 1]: of the maps for two classes of a picture, low is discriminating.

    The correlation of the ranks, ties at their mean rank: Spearman 1904. Undefined where a map is constant.
    """
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


# --- The table of measures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of one map: its name in tables, whether ``high`` or ``low`` is better, and how it is computed."""

    title: str
    better: Literal["high", "low"]
    compute: Callable[[Map, Truth], float]


def _right_thing(heat: Map, truth: Truth) -> float:
    """The share of what falls on things that falls on the target; undefined where nothing else is in the picture."""
    return share(heat, truth.target, truth.things) if (truth.things & ~truth.target).any() else math.nan


#: Every measure of one map, by key.
MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "mass_accuracy": Measure("mass on target", "high", lambda r, t: share(r, t.target)),
        "rank_accuracy": Measure("rank accuracy", "high", lambda r, t: rank_accuracy(r, t.target)),
        "right_thing": Measure("on the right thing", "high", _right_thing),
        "correlation_length": Measure("correlation length, px", "low", lambda r, _: correlation_length(r)),
        "boundary": Measure("mass at boundary", "high", lambda r, t: share(r, t.band)),
        "within": Measure("at boundary or inside", "high", lambda r, t: share(r, t.band | t.target)),
        "noise": Measure("mass off things", "low", lambda r, t: share(r, ~t.things)),
        "local_noise": Measure("off things nearby", "low", lambda r, t: share(r, t.near & ~t.things, t.near)),
        "pointing": Measure("pointing game", "high", lambda r, t: pointing(r, t.target)),
        "pointing_tolerant": Measure("pointing, tolerant", "high", lambda r, t: pointing(r, t.tolerated)),
    }
)


def measure(heat: Map, truth: Truth) -> dict[str, float]:
    """Every measure of one map, by key; none is a number where the map is zero everywhere."""
    return {key: m.compute(heat, truth) for key, m in MEASURES.items()}
