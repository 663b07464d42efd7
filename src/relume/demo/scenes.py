"""Scenes with ground truth: small pictures of everyday things, drawn from a seed, with a mask and a box for each thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from relume.demo.backgrounds import background
from relume.demo.pen import Pen, turned
from relume.demo.things import THINGS
from relume.errors import InputError

__all__ = ["CLASSES", "SIDE", "TRAINING_SEEDS", "Scene", "Thing", "draw_scene"]

SIDE = 128
CLASSES: tuple[str, ...] = tuple(THINGS)

#: Seeds below are held out; training draws from here on.
TRAINING_SEEDS = 2**32

_FINER = 3  # drawn this many times larger, then averaged
_LEAST_PIXELS = 150  # of a thing, to count as there
_APART = 0.66  # how far two things are from each other at least, in sums of their sizes: below 1 they may overlap
_MOST = 4


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A thing in a scene.

    Attributes:
        name: its class.
        mask: its visible pixels, ``(128, 128)``.
        box: the smallest box about them, ``x0 y0 x1 y1`` in pixels, the last ones excluded.

    Example:
        >>> from relume.demo import draw_scene
        >>> cat, dog = draw_scene(7, ["cat", "dog"]).things
        >>> cat.name, cat.mask.shape, len(cat.box)
        ('cat', (128, 128), 4)
    """

    name: str
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture with ground truth.

    Attributes:
        seed: the seed that it was drawn from.
        picture: 128 × 128 pixels, RGB.
        things: from back to front.

    Example:
        >>> from relume.demo import CLASSES, draw_scene
        >>> scene = draw_scene(7, ["cat", "dog"])
        >>> bool(scene.mask(CLASSES.index("cat")).any()), bool(scene.mask(CLASSES.index("cup")).any())
        (True, False)
    """

    seed: int
    picture: Image.Image
    things: tuple[Thing, ...]

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes of its things, as indices into :data:`relume.demo.CLASSES`, ascending."""
        return tuple(sorted({CLASSES.index(thing.name) for thing in self.things}))

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return the visible pixels of all things of one class, ``(128, 128)``."""
        masks = [thing.mask for thing in self.things if thing.name == CLASSES[index]]
        return np.logical_or.reduce(masks) if masks else np.zeros((SIDE, SIDE), dtype=bool)


def draw_scene(seed: int, names: Sequence[str] | None = None) -> Scene:
    """Draw the scene of a seed: always the same for the same arguments.

    Args:
        seed: any number not below zero.
        names: the classes of its things; one to four things of any class, mostly different ones, if None.

    Raises:
        InputError: a negative seed, an unknown class, or not one to four things.

    Example:
        >>> from relume.demo import CLASSES, draw_scene
        >>> scene = draw_scene(7, ["cat", "dog"])
        >>> scene.picture.size, [CLASSES[index] for index in scene.classes]
        ((128, 128), ['cat', 'dog'])
        >>> bool(scene.things[0].mask[scene.things[0].box[1]].any())
        True
    """
    if seed < 0:
        raise InputError(f"a seed is a number not below zero; got {seed}")
    if names is not None and not (1 <= len(names) <= _MOST and set(names) <= THINGS.keys()):
        raise InputError(f"a scene holds one to {_MOST} things out of {', '.join(CLASSES)}; got {', '.join(names) or 'none'}")
    rng = np.random.default_rng(seed)
    while True:  # a thing can come out too small or too hidden: then another scene is drawn, from the same stream
        chosen = (
            list(names)
            if names is not None
            else [CLASSES[i] for i in rng.integers(len(CLASSES), size=rng.integers(1, _MOST + 1))]
        )
        canvas = _draw(chosen, rng)
        # NEAREST takes the middle of each pixel's block
        owner = np.asarray(canvas.getchannel("A").resize((SIDE, SIDE), Image.Resampling.NEAREST))
        masks = [owner == k for k in range(1, len(chosen) + 1)]
        if min(mask.sum() for mask in masks) >= _LEAST_PIXELS:
            things = tuple(Thing(name, mask, _box(mask)) for name, mask in zip(chosen, masks, strict=True))
            return Scene(seed, _finished(canvas, rng), things)


def _draw(names: Sequence[str], rng: Generator) -> Image.Image:
    """Draw the things on a background, ``_FINER`` times larger; alpha holds the number of the visible thing, from 1."""
    canvas = background(SIDE, _FINER, rng)
    draw = ImageDraw.Draw(canvas)
    for owner, (name, (x, y, size)) in enumerate(zip(names, _places(len(names), rng), strict=True), start=1):
        stretch = math.exp(rng.normal(0, 0.08))
        axes = np.diag([size * stretch * (1 if rng.random() < 0.5 else -1), size / stretch]) @ turned(rng.normal(0, 0.22))
        THINGS[name](Pen(draw, owner, np.array([x, y]) * _FINER, axes * _FINER), rng)
    return canvas


def _places(count: int, rng: Generator) -> list[tuple[float, float, float]]:
    """Choose places for things, ``x, y, size`` in pixels, apart enough that none is hidden."""
    places: list[tuple[float, float, float]] = []
    largest: float = (44, 37, 32, 29)[count - 1]
    while len(places) < count:
        size = rng.uniform(17, largest)
        x, y = rng.uniform(0.8 * size, SIDE - 0.8 * size, 2)
        if all(math.hypot(x - u, y - v) >= _APART * (size + other) for u, v, other in places):
            places.append((x, y, size))
        else:
            largest = max(18, largest * 0.99)  # crowded scenes end with small things
    return places


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Find the smallest box about a mask: ``x0 y0 x1 y1``, the last ones excluded."""
    ys, xs = mask.nonzero()
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def _finished(canvas: Image.Image, rng: Generator) -> Image.Image:
    """Reduce the drawing to its final size, with soft shadows under the things, uneven light and grain."""
    colors = np.asarray(canvas.convert("RGB").reduce(_FINER), dtype=np.float32)
    covered = canvas.getchannel("A").point(lambda owner: 255 * (owner > 0)).reduce(_FINER)
    behind = 1 - np.asarray(covered, dtype=np.float32) / 255
    aside = (1, 0, int(rng.integers(-2, 3)), 0, 1, -3)
    soft = covered.transform(covered.size, Image.Transform.AFFINE, aside).filter(ImageFilter.GaussianBlur(2.5))
    shadow = np.asarray(soft, dtype=np.float32) / 255 * behind * rng.uniform(0.1, 0.5)
    light = np.linspace(1 - rng.uniform(0, 0.18), 1, SIDE, dtype=np.float32)
    light = light[:, None] if rng.random() < 0.5 else light[None, ::-1]
    grain = rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * rng.uniform(0, 6)
    finished = colors * ((1 - shadow) * light)[..., None] + grain
    return Image.fromarray(np.clip(np.round(finished), 0, 255).astype(np.uint8))
