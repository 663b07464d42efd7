"""Maps that know nothing of the network: what any measure must be read against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from relume.measures.localisation import Truth

__all__ = ["BASELINES", "REFERENCE", "TITLES", "centred", "sobel"]

Map: TypeAlias = NDArray[np.floating]


def sobel(image: Map) -> Map:
    """Sobel's edge magnitude ``√(gx² + gy²)`` of the mean over channels: ``(C, H, W)`` to ``(H, W)``."""
    grey = image.mean(axis=0, dtype=np.float64)
    edges: Map = np.hypot(ndimage.sobel(grey, axis=0), ndimage.sobel(grey, axis=1))
    return edges


def centred(shape: tuple[int, ...]) -> Map:
    """A Gaussian about the centre of ``(H, W)``, its ``σ`` a quarter of each side: where photographers put things."""
    down, across = (((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in shape)
    return np.exp(-0.5 * (down[:, None] ** 2 + across[None] ** 2))


#: Every baseline, by key: from the image ``(C, H, W)`` and a generator to a map.
BASELINES: Mapping[str, Callable[[Map, Generator], Map]] = MappingProxyType(
    {
        "sobel_edges": lambda image, _: sobel(image),
        "centred_gaussian": lambda image, _: centred(image.shape[1:]),
        "uniform": lambda image, _: np.ones(image.shape[1:]),
        "random": lambda image, rng: rng.random(image.shape[1:]),
    }
)

#: The one that knows the truth and shows it coarsely, with its key.
REFERENCE: tuple[str, Callable[[Truth], Map]] = ("blurred_target_mask", lambda truth: truth.blurred)

#: What tables call them.
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "sobel_edges": "Sobel edges",
        "centred_gaussian": "centred Gaussian",
        "uniform": "uniform",
        "random": "random",
        "blurred_target_mask": "blurred target mask",
    }
)
