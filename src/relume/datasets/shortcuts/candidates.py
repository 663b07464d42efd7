"""Candidates: groups of pictures of a class whose maps point at one place, or at things that the network sees alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import binom
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

__all__ = ["GRID", "LEAST_MEMBERS", "Peaks", "clusters", "likely_windows", "peaks_of", "resized", "typical_first", "whitened"]

#: Maps are resized to so many cells along each side.
GRID = 16

#: A group has at least so many pictures.
LEAST_MEMBERS = 6

_NEAR = 2  # cells: of the maxima nearer than this to a higher value none counts
_HIGH = 0.3  # of the highest value of its map, which a maximum has at least
_MOST = 3  # maxima of a map
_WINDOWS = 2  # places of a class that are looked at
_CLUSTERS, _LEAST_OF_CLUSTER, _COMPONENTS = 12, 8, 20


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """The maxima of maps.

    Attributes:
        pictures: the picture of each, ``(peaks,)``.
        cells: row and column of each on a grid of 16 × 16, ``(peaks, 2)``.
    """

    pictures: NDArray[np.intp]
    cells: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, some: NDArray[np.intp] | NDArray[np.bool_]) -> Peaks:
        return Peaks(self.pictures[some], self.cells[some])

    @property
    def centres(self) -> NDArray[np.float64]:
        """Row and column of each in its picture, from 0 to 1."""
        return (self.cells + 0.5) / GRID


def resized(heat: Tensor) -> Tensor:
    """Resize a map ``(rows, columns)`` to the grid; its highest value is 1."""
    values = F.interpolate(heat.clamp(min=0)[None, None], (GRID, GRID), mode="bilinear", antialias=True)[0, 0]
    return values / values.max().clamp(min=torch.finfo(values.dtype).tiny)


def peaks_of(maps: Tensor) -> Peaks:
    """Find up to three maxima in each of the maps ``(N, 16, 16)``, whose highest values are 1."""
    side = 2 * _NEAR + 1
    is_peak = (maps == F.max_pool2d(maps[:, None], side, 1, _NEAR)[:, 0]) & (maps >= _HIGH)
    values, places = torch.where(is_peak, maps, 0.0).flatten(1).topk(_MOST)
    pictures, ranks = values.nonzero(as_tuple=True)
    cells = places[pictures, ranks]
    return Peaks(pictures.numpy(), torch.stack([cells // GRID, cells % GRID], 1).numpy())


def likely_windows(own: Peaks, others: Peaks) -> Iterator[NDArray[np.intp]]:
    """Yield the peaks in windows of 3 × 3 cells that hold more of them than those of other classes would make likely.

    The count in a window is binomial, with the share of the other classes' peaks there as its chance.
    """
    expected = _in_windows(others) / max(len(others), 1) + 1e-3
    surprise = -np.asarray(binom.logsf(_in_windows(own) - 1, len(own), np.minimum(expected, 1)))
    for _ in range(_WINDOWS):
        centre = np.array(np.unravel_index(surprise.argmax(), surprise.shape))
        yield np.flatnonzero((np.abs(own.cells - centre) <= 1).all(1))
        (top, left), (bottom, right) = np.maximum(centre - 2, 0), centre + 3
        surprise[top:bottom, left:right] = -1


def _in_windows(peaks: Peaks) -> NDArray[np.float64]:
    """Count the peaks in the window about each cell."""
    counts = np.zeros((GRID, GRID))
    np.add.at(counts, tuple(peaks.cells.T), 1)
    result: NDArray[np.float64] = ndimage.convolve(counts, np.ones((3, 3)), mode="constant")
    return result


def whitened(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the main components of activations ``(peaks, channels)``, each with the same variance, as vectors of length 1."""
    count, channels = activations.shape
    if min(count - 1, channels) < 1 or not np.ptp(activations, 0).any():
        return np.zeros((count, 0), np.float32)
    values = PCA(min(_COMPONENTS, count - 1, channels), whiten=True, random_state=0).fit_transform(activations)
    points: NDArray[np.float32] = values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-9)
    return points


def clusters(points: NDArray[np.float32]) -> Iterator[NDArray[np.intp]]:
    """Yield clusters of points ``(peaks, components)``."""
    number = min(_CLUSTERS, len(np.unique(points, axis=0)) // _LEAST_OF_CLUSTER)
    if points.shape[1] and number > 1:
        labels = KMeans(number, n_init=3, random_state=0).fit_predict(points)
        yield from (np.flatnonzero(labels == label) for label in range(number))


def typical_first(points: NDArray[np.float32], group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Sort a group by how near each of its points is to the direction of their mean."""
    return group[np.argsort(-points[group] @ points[group].mean(0), kind="stable")]
