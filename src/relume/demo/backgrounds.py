"""Backgrounds: sky-like gradients under clutter that belongs to no class, so that an edge detector does not find the things."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from relume.demo.pen import Color, Pen, hsv, mixed

__all__ = ["background"]


def background(side: int, finer: int, rng: Generator) -> Image.Image:
    """Draw a background of ``side`` × ``side`` pixels, ``finer`` times larger, in RGBA; alpha is 0: it is no thing."""
    base = _base(rng)
    canvas = base.resize((side, side), Image.Resampling.BICUBIC).convert("RGBA")
    canvas.putalpha(0)
    canvas = canvas.resize((side * finer, side * finer), Image.Resampling.NEAREST)
    pen = Pen(ImageDraw.Draw(canvas), 0, np.zeros(2), np.eye(2) * side * finer)
    tone = base.getpixel((int(rng.integers(16)), int(rng.integers(16))))
    for kind in rng.choice(len(CLUTTER), size=rng.integers(1, 4), replace=False):
        CLUTTER[kind](pen, rng, lambda: _near(tone, rng))  # type: ignore[arg-type]
    return canvas


def _near(tone: Color, rng: Generator) -> Color:
    """Choose a colour to draw clutter in: sometimes bold, mostly close to ``tone``, the colour behind it."""
    return mixed(tone, hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.2, 1)), rng.uniform(0.15, 0.75))


def _base(rng: Generator) -> Image.Image:
    """Blend two colours, one flowing into the other, under cloudy noise: 16 × 16 pixels, to be enlarged."""
    hue = rng.random()
    one = np.array(hsv(hue, rng.uniform(0.1, 0.55), rng.uniform(0.35, 1)))
    two = np.array(hsv(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.1, 0.55), rng.uniform(0.35, 1)))
    angle, ramp = rng.uniform(0, 2 * np.pi), np.linspace(-0.7, 0.7, 16)
    along = np.clip(0.5 + np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None], 0, 1)[..., None]
    clouds = rng.normal(0, rng.uniform(0, 22), (16, 16, 1))
    return Image.fromarray(np.clip(one + along * (two - one) + clouds, 0, 255).astype(np.uint8))


Palette = Callable[[], Color]


def _stripes(pen: Pen, rng: Generator, color: Palette) -> None:
    own, wide = pen.part(0.5, 0.5, 1, rng.uniform(0, np.pi)), rng.uniform(0.02, 0.07)
    ink = color()
    for y in np.arange(-0.75, 0.75, wide * rng.uniform(2, 5)):
        own.fill([(-1, y), (1, y), (1, y + wide), (-1, y + wide)], ink)


def _blobs(pen: Pen, rng: Generator, color: Palette) -> None:
    for _ in range(rng.integers(3, 9)):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 9)))
        radii = rng.uniform(0.04, 0.16, len(angles))
        pen.blob(rng.random(2) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), color())


def _shards(pen: Pen, rng: Generator, color: Palette) -> None:
    for _ in range(rng.integers(3, 10)):
        pen.fill(rng.random(2) + rng.uniform(-0.14, 0.14, (rng.integers(3, 5), 2)), color())


def _lines(pen: Pen, rng: Generator, color: Palette) -> None:
    for _ in range(rng.integers(4, 12)):
        steps = rng.normal(0, 0.1, (rng.integers(2, 6), 2))
        pen.stroke(rng.random(2) + steps.cumsum(0), rng.uniform(0.006, 0.03), color())


def _rings(pen: Pen, rng: Generator, color: Palette) -> None:
    for _ in range(rng.integers(2, 7)):
        (x, y), r = rng.random(2), rng.uniform(0.03, 0.12)
        pen.oval(x, y, r, r * rng.uniform(0.5, 1), color())
        pen.oval(x, y, 0.6 * r, 0.6 * r * rng.uniform(0.5, 1), color())


def _confetti(pen: Pen, rng: Generator, color: Palette) -> None:
    inks = [color() for _ in range(3)]
    for x, y in rng.random((rng.integers(15, 40), 2)):
        pen.oval(x, y, 0.012, 0.012 * rng.uniform(0.5, 2), inks[rng.integers(3)])


def _hills(pen: Pen, rng: Generator, color: Palette) -> None:
    x = np.linspace(-0.1, 1.1, 7)
    for low in np.sort(rng.uniform(0.45, 1.0, rng.integers(1, 4))):
        ridge = np.stack([x, low + rng.uniform(-0.09, 0.09, 7)], 1)
        pen.fill([*map(tuple, ridge), (1.1, 1.2), (-0.1, 1.2)], color())


CLUTTER: tuple[Callable[[Pen, Generator, Palette], None], ...] = (
    _stripes,
    _blobs,
    _shards,
    _lines,
    _rings,
    _confetti,
    _hills,
)
