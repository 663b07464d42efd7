"""Pictures of five bands with ground truth: a class shows in one band only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from relume.demo.truth import Array, RecordedScene, draw_recorded

__all__ = ["BANDS", "SHOWN_IN", "draw_bands"]

SIDE = 64

#: The names of the bands, in the order of the values.
BANDS = ("blue", "green", "red", "near infrared", "short-wave infrared")

#: The band that each class shows in, by the name of the class, in the order of the network's scores.
SHOWN_IN: Mapping[str, int] = MappingProxyType({"algae": 1, "clay": 4, "leaves": 3})


def draw_bands(seed: int, names: Sequence[str] | None = None) -> RecordedScene:
    """Draw the picture of a seed, ``(5, 64, 64)``: always the same for the same arguments.

    Patches of algae, clay and leaves look alike, and each class shows in one band only, see :data:`relume.demo.SHOWN_IN`.
    Patches like them that show in blue, in red, or in all bands belong to no class, and so does the land under them.

    Args:
        seed: any number not below zero.
        names: the classes of its patches; one to three different ones if None.

    Raises:
        InputError: a negative seed, an unknown class, or not one to three patches.

    Example:
        >>> from relume.demo import BANDS, SHOWN_IN, draw_bands
        >>> scene = draw_bands(7, ["leaves"])
        >>> BANDS[SHOWN_IN["leaves"]], scene.values.shape, scene.mask(2).shape
        ('near infrared', (5, 64, 64), (64, 64))
        >>> int(scene.values[:, scene.mask(2)].mean(axis=1).argmax())
        3
    """
    return draw_recorded(seed, names, tuple(SHOWN_IN), _background, (6, 11), _thing)


def _patch(centre: Array, size: float, rng: Generator) -> Array:
    """Compute how far each pixel is inside a wavy patch, at most 1 there."""
    y, x = np.indices((SIDE, SIDE)) + 0.5 - centre[:, None, None]
    waves = 1 + 0.2 * np.sin(rng.integers(2, 6) * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
    patch: Array = np.clip(0.5 + size * waves / 1.2 - np.hypot(y, x), 0, 1)
    return patch


def _thing(name: str, centre: Array, size: float, rng: Generator) -> tuple[Array, NDArray[np.bool_]]:
    patch = _patch(centre, size, rng)
    return _in_bands(patch, [SHOWN_IN[name]], rng), patch >= 0.5


def _in_bands(patch: Array, bands: Sequence[int], rng: Generator) -> Array:
    brightness: Array = np.zeros((len(BANDS), 1, 1))
    brightness[bands] = rng.uniform(0.8, 1.6)
    shown: Array = brightness * patch
    return shown


def _background(rng: Generator) -> Array:
    """Draw land that all bands show, and patches of no class; grain over them in each band."""
    land = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), rng.uniform(2, 6))
    values: Array = np.broadcast_to(rng.uniform(0.2, 0.5) * land / land.std(), (len(BANDS), SIDE, SIDE))
    for bands in ([0], [2], range(len(BANDS))):
        for centre in rng.uniform(0, SIDE, (rng.integers(3), 2)):
            values = values + _in_bands(_patch(centre, rng.uniform(6, 11), rng), list(bands), rng)
    return values + rng.normal(0, rng.uniform(0.1, 0.4), values.shape)
