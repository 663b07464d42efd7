"""Scenes with ground truth: small pictures of everyday things, drawn from a seed, with a mask and a box for each thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from relume.demo.backgrounds import background
from relume.demo.pen import Pen, turned
from relume.demo.things import THINGS
from relume.demo.truth import SceneTruth, Thing, checked_generator, places

__all__ = ["CLASSES", "SIDE", "Scene", "draw_scene"]

SIDE = 128
CLASSES: tuple[str, ...] = tuple(THINGS)

_FINER = 3  # drawn this many times larger, then averaged
_LEAST_PIXELS = 150  # of a thing, to count as there
_APART = 0.66  # how far two things are from each other at least, in sums of their sizes: below 1 they may overlap
_LARGEST = (44, 37, 32, 29)  # the size of a thing at most, in pixels, where there are one, two, three or four
_MOST = len(_LARGEST)


@dataclass(frozen=True, slots=True, eq=False)
class Scene(SceneTruth):
    """A picture with ground truth.

    Attributes:
        picture: 128 × 128 pixels, RGB.

    Example:
        >>> from relume.demo import CLASSES, draw_scene
        >>> scene = draw_scene(7, ["cat", "dog"])
        >>> bool(scene.mask(CLASSES.index("cat")).any()), bool(scene.mask(CLASSES.index("cup")).any())
        (True, False)
    """

    picture: Image.Image


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
    rng = checked_generator(seed, names, CLASSES, _MOST)
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
            return Scene(seed, tuple(map(Thing, chosen, masks)), CLASSES, _finished(canvas, rng))


def _draw(names: Sequence[str], rng: Generator) -> Image.Image:
    """Draw the things on a background, ``_FINER`` times larger; alpha holds the number of the visible thing, from 1."""
    canvas = background(SIDE, _FINER, rng)
    draw = ImageDraw.Draw(canvas)
    placed = places(len(names), (SIDE, SIDE), 17, _LARGEST[len(names) - 1], _APART, rng)
    for owner, (name, (centre, size)) in enumerate(zip(names, placed, strict=True), start=1):
        stretch = math.exp(rng.normal(0, 0.08))
        axes = np.diag([size * stretch * (1 if rng.random() < 0.5 else -1), size / stretch]) @ turned(rng.normal(0, 0.22))
        THINGS[name](Pen(draw, owner, centre * _FINER, axes * _FINER), rng)
    return canvas


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
