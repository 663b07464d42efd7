"""The truth about a scene: its things, where each one is, and how their places are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from relume.errors import InputError

__all__ = ["TRAINING_SEEDS", "Array", "RecordedScene", "SceneTruth", "Thing", "checked_generator", "draw_recorded", "places"]

Array: TypeAlias = NDArray[np.float64]

#: Seeds below are held out; training draws from here on.
TRAINING_SEEDS = 2**32

_MOST_RECORDED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A thing in a scene.

    Attributes:
        name: its class.
        mask: where it is visible, with the spatial axes of the scene: ``(128, 128)`` in a picture.

    Example:
        >>> from relume.demo import draw_scene
        >>> cat, dog = draw_scene(7, ["cat", "dog"]).things
        >>> cat.name, cat.mask.shape, len(cat.box)
        ('cat', (128, 128), 4)
    """

    name: str
    mask: NDArray[np.bool_] = field(repr=False)

    @property
    def box(self) -> tuple[int, ...]:
        """The smallest box about its mask, the last axis first, the ends excluded: ``x0 y0 x1 y1`` in pixels of a picture."""
        places = self.mask.nonzero()[::-1]
        return (*(int(place.min()) for place in places), *(int(place.max()) + 1 for place in places))


@dataclass(frozen=True, slots=True, eq=False)
class SceneTruth:
    """The part that every scene has, whatever is drawn.

    Attributes:
        seed: the seed that it was drawn from.
        things: from back to front.
        labels: the names of all classes of such scenes, in the order of the network's scores.
    """

    seed: int
    things: tuple[Thing, ...]
    labels: tuple[str, ...]

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes of its things, as indices into ``labels``, ascending."""
        return tuple(sorted({self.labels.index(thing.name) for thing in self.things}))

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return where the things of one class are visible, with the spatial axes of the scene."""
        mask: NDArray[np.bool_] = np.logical_or.reduce(
            [thing.mask & (thing.name == self.labels[index]) for thing in self.things]
        )
        return mask


@dataclass(frozen=True, slots=True, eq=False)
class RecordedScene(SceneTruth):
    """A signal, a volume or a picture of several bands, with ground truth.

    Attributes:
        values: the network's input, ``(C, *spatial)`` float32, about zero.

    Example:
        >>> from relume.demo import draw_volume
        >>> scene = draw_volume(7, ["box", "tube"])
        >>> scene.values.shape, scene.values.dtype, [scene.labels[index] for index in scene.classes]
        ((1, 24, 32, 40), dtype('float32'), ['box', 'tube'])
        >>> scene.things[0].mask.shape
        (24, 32, 40)
    """

    values: NDArray[np.float32]


def checked_generator(seed: int, names: Sequence[str] | None, labels: Sequence[str], most: int) -> Generator:
    """Return the generator of a seed, if a scene of it can be drawn.

    Raises:
        InputError: a negative seed, an unknown class, or not one to ``most`` things.
    """
    if seed < 0:
        raise InputError(f"a seed is a number not below zero; got {seed}")
    if names is not None and not (1 <= len(names) <= most and set(names) <= set(labels)):
        raise InputError(f"a scene holds one to {most} things out of {', '.join(labels)}; got {', '.join(names) or 'none'}")
    return np.random.default_rng(seed)


def places(
    count: int, sides: tuple[int, ...], smallest: float, largest: float, apart: float, rng: Generator
) -> list[tuple[Array, float]]:
    """Choose places for things: for each its centre, along each axis, and its size, half its width.

    Args:
        count: the number of things.
        sides: the extent along each axis.
        smallest: the least size.
        largest: the largest size, as long as there is room.
        apart: the least distance of two centres, in sums of their sizes: below 1 they may overlap.
        rng: the generator.
    """
    chosen: list[tuple[Array, float]] = []
    while len(chosen) < count:
        size = rng.uniform(smallest, largest)
        centre = rng.uniform(0.8 * size, np.array(sides) - 0.8 * size)
        if all(np.linalg.norm(centre - other) >= apart * (size + radius) for other, radius in chosen):
            chosen.append((centre, size))
        else:
            largest = max(smallest + 1, largest * 0.99)  # crowded scenes end with small things
    return chosen


def draw_recorded(
    seed: int,
    names: Sequence[str] | None,
    labels: tuple[str, ...],
    background: Callable[[Generator], Array],
    sizes: tuple[float, float],
    thing: Callable[[str, Array, float, Generator], tuple[Array, NDArray[np.bool_]]],
) -> RecordedScene:
    """Add one to three things to a background.

    Args:
        seed: any number not below zero.
        names: the classes of the things; one of each of some classes if None.
        labels: the classes that there are.
        background: draws the values ``(C, *spatial)`` without things.
        sizes: the least and the largest half width of a thing.
        thing: draws the values to add, ``(C, *spatial)`` or ``(*spatial)`` for all channels, and the mask of a thing, of its
            class, its centre and its size.

    Raises:
        InputError: a negative seed, an unknown class, or not one to three things.
    """
    rng = checked_generator(seed, names, labels, _MOST_RECORDED)
    chosen = rng.permutation(labels)[: rng.integers(1, _MOST_RECORDED + 1)].tolist() if names is None else names
    values, things = background(rng), []
    for name, (centre, size) in zip(chosen, places(len(chosen), values.shape[1:], *sizes, 1.0, rng), strict=True):
        added, mask = thing(name, centre, size, rng)
        values = values + added
        things.append(Thing(name, mask))
    return RecordedScene(seed, tuple(things), labels, values.astype(np.float32))
