"""A measure with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["RESAMPLES", "Estimate", "estimate"]

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of a measure over the ``count`` pictures where it is defined, with its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        interval = f" [{self._rounded(self.low)}, {self._rounded(self.high)}]" if self.count > 1 else ""
        return self._rounded(self.mean) + interval

    def brief(self) -> str:
        """The mean with half the width of its interval."""
        return self._rounded(self.mean) + (f" ±{self._rounded((self.high - self.low) / 2)}" if self.count > 1 else "")

    def _rounded(self, value: float) -> str:
        digits = 2 if abs(self.mean) < 10 else 1
        return "–" if self.count == 0 else f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: not -0.00


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of the values that are numbers, and its percentile bootstrap interval: Efron & Tibshirani 1993, chapter 13.

    The same ``seed`` draws the same resamples, so that two columns of the same pictures are resampled alike.
    """
    defined = np.array([v for v in values if not np.isnan(v)])
    if len(defined) < 2:
        return Estimate(float(defined[0]) if len(defined) else np.nan, np.nan, np.nan, len(defined))
    drawn = stats.bootstrap(
        (defined,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
        vectorized=True,
    )
    interval = drawn.confidence_interval
    return Estimate(float(defined.mean()), float(interval.low), float(interval.high), len(defined))
