"""Maps that know nothing of the network, or all of the truth, beside which those of methods are read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from relume.measures.localisation import Truth
from relume.registry import Registry

__all__ = ["BASELINES", "Baseline", "centred", "sobel"]

Map: TypeAlias = NDArray[np.floating]


def sobel(image: Map) -> Map:
    """Compute Sobel's edge magnitude ``√(Σ g²)`` of the mean over channels: ``(C, *spatial)`` to ``spatial``, of any axes.

    ``g`` along an axis is the difference of both neighbours, ``[-1, 0, 1]``, smoothed by ``[1, 2, 1]`` along each other axis.

    Example:
        A single bright column has an edge on either side:

        >>> import numpy as np
        >>> from relume.measures import sobel
        >>> sobel(np.array([[[0.0, 0.0, 1.0, 0.0, 0.0]] * 3]))[1]
        array([0., 4., 0., 4., 0.])
    """
    grey = image.mean(axis=0, dtype=np.float64)
    return functools.reduce(np.hypot, (ndimage.sobel(grey, axis) for axis in range(grey.ndim)), np.zeros_like(grey))


def centred(shape: tuple[int, ...]) -> Map:
    """Compute a Gaussian about the centre of ``(*spatial)``, its ``σ`` a quarter of each side: photographers put things there.

    Example:
        >>> from relume.measures import centred
        >>> values = centred((5, 7))
        >>> values.shape, float(values[2, 3])
        ((5, 7), 1.0)
    """
    away = np.meshgrid(*(((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in shape), indexing="ij", sparse=True)
    heat: Map = np.exp(-0.5 * sum(axis**2 for axis in away))
    return heat


@dataclass(frozen=True, slots=True)
class Baseline:
    """A map that no network made.

    Attributes:
        title: its name in tables.
        draw: makes its saliency ``(*spatial)`` for one class, of the image ``(C, *spatial)``, the truth, and a generator.

    Example:
        The image's brightness, as a baseline beside the others in :func:`relume.evaluate`:

        >>> import numpy as np
        >>> from relume.measures import BASELINES, Baseline
        >>> BASELINES["brightness"] = Baseline("brightness", lambda image, truth, generator: image.mean(axis=0))
        >>> list(BASELINES)
        ['sobel_edges', 'centred_gaussian', 'uniform', 'random', 'blurred_target_mask', 'brightness']
        >>> del BASELINES["brightness"]
    """

    title: str
    draw: Callable[[Map, Truth, Generator], Map]


#: The baselines by key; the last one knows the truth and shows it as coarsely as a Grad-CAM would.
BASELINES: Registry[Baseline] = Registry(
    "baseline",
    "relume.baselines",
    {
        "sobel_edges": Baseline("Sobel edges", lambda image, _truth, _rng: sobel(image)),
        "centred_gaussian": Baseline("centred Gaussian", lambda image, _truth, _rng: centred(image.shape[1:])),
        "uniform": Baseline("uniform", lambda image, _truth, _rng: np.ones(image.shape[1:])),
        "random": Baseline("random", lambda image, _truth, rng: rng.random(image.shape[1:])),
        "blurred_target_mask": Baseline("blurred target mask", lambda _image, truth, _rng: truth.blurred),
    },
)
