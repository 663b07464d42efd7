from .baselines import BASELINES, Baseline, centred, sobel
from .localisation import (
    MEASURES,
    Column,
    Measure,
    Truth,
    correlation_length,
    measure,
    pointing,
    rank_accuracy,
    rank_correlation,
    share,
)
from .similarity import SIMILARITIES, Maps, Similarity, correlation, hog_correlation, spearman, ssim
from .statistics import Estimate, estimate

__all__ = [
    "BASELINES",
    "MEASURES",
    "SIMILARITIES",
    "Baseline",
    "Column",
    "Estimate",
    "Maps",
    "Measure",
    "Similarity",
    "Truth",
    "centred",
    "correlation",
    "correlation_length",
    "estimate",
    "hog_correlation",
    "measure",
    "pointing",
    "rank_accuracy",
    "rank_correlation",
    "share",
    "sobel",
    "spearman",
    "ssim",
]
