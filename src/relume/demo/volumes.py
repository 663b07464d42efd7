"""Volumes with ground truth: ellipsoids, boxes and tubes among sheets and specks, in noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from relume.demo.truth import Array, RecordedScene, draw_recorded

__all__ = ["VOLUME_CLASSES", "draw_volume"]

SIDES = (24, 32, 40)


def _box(own: Array, size: float, rng: Generator) -> Array:
    half = size * rng.uniform(0.45, 0.65, 3)
    distance: Array = np.max(np.abs(own) - half[:, None, None, None], axis=0)
    return distance


def _ellipsoid(own: Array, size: float, rng: Generator) -> Array:
    radii = size * rng.uniform(0.55, 0.95, 3)
    distance: Array = (np.linalg.norm(own / radii[:, None, None, None], axis=0) - 1) * radii.min()
    return distance


def _tube(own: Array, size: float, rng: Generator) -> Array:
    radius, wall = size * rng.uniform(0.35, 0.45), rng.uniform(0.8, 1.2)
    distance: Array = np.maximum(np.abs(np.hypot(own[0], own[1]) - radius) - wall, np.abs(own[2]) - 0.85 * size)
    return distance


#: The distance of each voxel to the surface of a thing, negative inside, of its coordinates about the centre and its size.
SHAPES: Mapping[str, Callable[[Array, float, Generator], Array]] = MappingProxyType(
    {"box": _box, "ellipsoid": _ellipsoid, "tube": _tube}
)
VOLUME_CLASSES: tuple[str, ...] = tuple(SHAPES)


def draw_volume(seed: int, names: Sequence[str] | None = None) -> RecordedScene:
    """Draw the volume of a seed, ``(1, 24, 32, 40)``: always the same for the same arguments.

    Boxes, ellipsoids and tubes lie in noise, at any angle. Clouds, sheets and specks belong to no class.

    Args:
        seed: any number not below zero.
        names: the classes of its things; those of one to three different things if None.

    Raises:
        InputError: a negative seed, an unknown class, or not one to three things.

    Example:
        >>> from relume.demo import VOLUME_CLASSES, draw_volume
        >>> VOLUME_CLASSES
        ('box', 'ellipsoid', 'tube')
        >>> scene = draw_volume(7, ["ellipsoid", "tube"])
        >>> scene.values.shape, bool(scene.mask(1).any()), bool(scene.mask(0).any())
        ((1, 24, 32, 40), True, False)
    """
    return draw_recorded(seed, names, VOLUME_CLASSES, _background, (6.5, 9), _thing)


def _own(centre: Array, rng: Generator) -> Array:
    """Return the coordinates of each voxel, ``(3, *SIDES)``, about a centre, turned by any angle."""
    about = np.ogrid[tuple(slice(0.5 - middle, side - middle) for middle, side in zip(centre, SIDES, strict=True))]
    turned = Rotation.random(rng=rng).as_matrix()
    return np.stack([a * about[0] + b * about[1] + c * about[2] for a, b, c in turned])


def _covered(distance: Array) -> Array:
    """Compute the share of each voxel that lies inside a surface."""
    return np.clip(0.5 - distance, 0, 1)


def _thing(name: str, centre: Array, size: float, rng: Generator) -> tuple[Array, NDArray[np.bool_]]:
    distance = SHAPES[name](_own(centre, rng), size, rng)
    return rng.uniform(1, 2) * _covered(distance), distance <= 0


def _background(rng: Generator) -> Array:
    """Draw clouds, sometimes a sheet, and specks, and grain over them."""
    values = ndimage.gaussian_filter(rng.standard_normal(SIDES), 4, truncate=2)
    values *= rng.uniform(0, 0.4) / values.std()
    if rng.random() < 0.5:
        own = _own(rng.uniform(0, SIDES), rng)
        values += rng.uniform(0.5, 1.5) * _covered(np.abs(own[0]) - rng.uniform(0.4, 1))
    specks = np.zeros(SIDES)
    specks.flat[rng.integers(specks.size, size=rng.integers(4, 16))] = 1
    width = rng.uniform(0.7, 1.3)
    values += rng.uniform(0.5, 2) * (2 * np.pi) ** 1.5 * width**3 * ndimage.gaussian_filter(specks, width)
    return (values + rng.normal(0, rng.uniform(0.05, 0.25), SIDES))[None]
