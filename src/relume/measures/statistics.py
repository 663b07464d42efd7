"""The mean of a measure over images, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["RESAMPLES", "Estimate", "area_under_curve", "estimate", "mean_of_defined", "widened"]

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of a measure over the ``count`` images where it is defined, with its bootstrap 95 % interval.

    Attributes:
        mean: NaN if the measure is defined nowhere.
        low: the lower end of the interval, NaN for fewer than two images.
        high: the upper end.
        count: the number of images where the measure is defined.

    Example:
        >>> from relume.measures import Estimate
        >>> print(Estimate(-0.17, -0.18, -0.15, count=500))
        −0.17 [−0.18, −0.15]
        >>> Estimate(0.5, 0.4, 0.7, count=9).brief()
        '0.50 ±0.15'
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        interval = f" [{self._rounded(self.low)}, {self._rounded(self.high)}]" if self.count > 1 else ""
        return self._rounded(self.mean) + interval

    def brief(self) -> str:
        """Return the mean with half the width of its interval."""
        return self._rounded(self.mean) + (f" ±{self._rounded((self.high - self.low) / 2)}" if self.count > 1 else "")

    def _rounded(self, value: float) -> str:
        digits = 2 if abs(self.mean) < 10 else 1
        return "–" if self.count == 0 else f"{value:z.{digits}f}".replace("-", "−")


def estimate(values: Sequence[float], seed: int = 0, *, few: bool = False) -> Estimate:
    """Compute the mean of the values that are not NaN, and its percentile bootstrap interval.

    Efron & Tibshirani 1993, chapter 13. The same ``seed`` draws the same resamples, so that two measures of the same images
    are resampled alike.

    Args:
        values: a measure of each image; NaN where it is undefined.
        seed: seeds the :data:`RESAMPLES` resamples.
        few: take the percentiles further out, as far as Student's t lies beyond a normal one, since percentiles are too narrow
            for few values: Hesterberg 2015, arXiv:1411.5279.

    Example:
        >>> from relume.measures import estimate
        >>> print(estimate([0.5, 0.75, float("nan"), 1.0]))
        0.75 [0.50, 1.00]
    """
    defined = np.array([v for v in values if not np.isnan(v)])
    if len(defined) < 2:
        return Estimate(float(defined[0]) if len(defined) else np.nan, np.nan, np.nan, len(defined))
    n, level = len(defined), 0.95
    if few:
        level = float(1 - 2 * stats.norm.sf(math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)))
    interval = stats.bootstrap(
        (defined,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
        vectorized=True,
    ).confidence_interval
    return Estimate(float(defined.mean()), float(interval.low), float(interval.high), n)


def widened(proportion: Estimate, trials: int) -> Estimate:
    """Widen the interval of a proportion to Wilson's for so many ``trials`` where that is wider: Wilson 1927.

    Where all trials succeed, every resample is the same, and a bootstrap interval has no width.

    Example:
        >>> from relume.measures import estimate
        >>> from relume.measures.statistics import widened
        >>> print(widened(estimate([1.0, 1.0, 1.0, 1.0]), trials=16))
        1.00 [0.81, 1.00]
    """
    wilson = stats.binomtest(round(proportion.mean * trials), trials).proportion_ci(method="wilson")
    low, high = (float(f(a, b)) for f, a, b in ((min, proportion.low, wilson.low), (max, proportion.high, wilson.high)))
    return replace(proportion, low=low, high=high)


def area_under_curve(values: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Compute the area under the ROC curve, in [0, 1]: the chance that a positive value is above another, ties counted half.

    Mann & Whitney 1947. It is NaN where all are positive, or none.

    Args:
        values: any number of values, of any shape.
        positive: which of them are positive, of the same shape.

    Example:
        >>> import numpy as np
        >>> from relume.measures import area_under_curve
        >>> area_under_curve(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]))
        1.0
    """
    count, total = int(positive.sum()), positive.size
    if count in (0, total):
        return np.nan
    ranks = stats.rankdata(values).reshape(values.shape)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (total - count)))


def mean_of_defined(values: Sequence[float]) -> float:
    """Compute the mean of the values that are not NaN; NaN if there are none.

    Example:
        >>> from relume.measures import mean_of_defined
        >>> mean_of_defined([0.5, float("nan"), 1.0])
        0.75
    """
    defined = [value for value in values if not np.isnan(value)]
    return sum(defined) / len(defined) if defined else np.nan
