"""Maps as pictures. Each kind of picture is a function from a raw map, its scale and a photo to an image.

Maps are scaled for display here and nowhere else, and none is changed by it. A map comes at the input's resolution,
signed: ``(H, W)``, or ``(C, H, W)``, of which :func:`strongest` is drawn where a kind does not show the channels. ``scale`` is
the value drawn at full strength. Without a photo a picture has the map's pixels; with one it has the photo's, the map lies
where the network looked, and what the network never saw is dimmed.

A kind that shows one value for each pixel is a table: a colour for each of 255 levels of the value and 256 of the photo's grey.
So the values are interpolated and not their colours (between red and blue lies white, and not purple), and a large photo costs
one look-up a pixel.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image, ImageDraw

from relume.pictures.photo import Photo
from relume.pictures.scale import Array

__all__ = [
    "DIVERGING",
    "HEAT",
    "KINDS",
    "Array",
    "Kind",
    "absolute",
    "colour",
    "contours",
    "diverging",
    "layer",
    "masked",
    "mass_thresholds",
    "negative",
    "over",
    "png",
    "positive",
    "seen",
    "share_beyond",
    "stretched",
    "strongest",
]

_Bytes: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"

HEAT = colormaps["inferno"]

# Brewer's red and blue, which the colour-blind tell apart; matplotlib has light grey in their middle, where zero is white here
_ARMS = colormaps["RdBu_r"](np.linspace(0, 1, 9))
DIVERGING = LinearSegmentedColormap.from_list("blue-white-red", [*_ARMS[:4], (1, 1, 1), *_ARMS[5:]], N=511)

MASSES = (0.5, 0.8)
BLUR = 0.015

_STEPS = 254  # values have the levels 0 to 254; 255 stands for what the network never saw
_BAND = 1 << 20  # pixels: smaller bands cost more than they save
_BILINEAR = Image.Resampling.BILINEAR


# --- Values ---------------------------------------------------------------------------------------------------------------


def strongest(values: Array) -> Array:
    """The value of largest magnitude among the channels, with its sign: ``(C, H, W)`` to ``(H, W)``.

    Its magnitude is the saliency ``max_c |values|``, so that every kind of picture speaks of the same figures.
    """
    if values.ndim == 2:
        return values
    largest: Array = np.take_along_axis(values, np.abs(values).argmax(axis=0, keepdims=True), axis=0)[0]
    return largest


def _for(photo: Photo | None, values: Array) -> Array:
    """``values`` to be drawn on ``photo``: where it has fewer pixels than the map, each shows the strongest value around it.

    Their mean would be nothing where signs alternate, and a picture of nothing under a scale that says otherwise.
    """
    if photo is None:
        return values
    from scipy import ndimage

    left, top, right, bottom = photo.box
    size = [math.ceil(n / side) for n, side in zip(values.shape[-2:], (bottom - top, right - left), strict=True)]
    if max(size) < 2:
        return values
    window = (*[1] * (values.ndim - 2), *size)
    high, low = ndimage.maximum_filter(values, window), ndimage.minimum_filter(values, window)
    kept: Array = np.where(high >= -low, high, low)
    return kept


def share_beyond(values: Array, photo: Photo) -> float:
    """Which share of a map's mass ``Σ |values|`` lies beyond the edges of the photo, in the padding of the input."""
    magnitudes = np.abs(strongest(values)).astype(np.float64)
    (height, width), (left, top, right, bottom) = magnitudes.shape, photo.box
    x = left + (np.arange(width) + 0.5) / width * (right - left)
    y = top + (np.arange(height) + 0.5) / height * (bottom - top)
    inside = magnitudes[(y >= 0) & (y <= photo.picture.height)][:, (x >= 0) & (x <= photo.picture.width)]
    return 1 - float(inside.sum()) / (float(magnitudes.sum()) or 1.0) if magnitudes.any() else 0.0


def _relative(values: Array, scale: float) -> Array:
    """``values`` in units of ``scale``, zero if the scale is zero: a map of zeros is drawn as one."""
    if scale == 0:
        return np.zeros_like(values, dtype=np.float32)
    return np.clip(values.astype(np.float64) / scale, -1, 1).astype(np.float32)  # the scale may be beyond float32


def mass_thresholds(values: Array, masses: Sequence[float]) -> list[float]:
    """For each share of the map's mass ``Σ |values|``, the largest threshold above which at least that share lies."""
    falling = np.sort(np.abs(values), axis=None)[::-1]
    cumulated = np.cumsum(falling, dtype=np.float64)
    return [float(falling[np.searchsorted(cumulated, mass * cumulated[-1])]) for mass in masses]


# --- Kinds of picture -----------------------------------------------------------------------------------------------------


def colour(values: Array, scale: float, photo: Photo | None = None) -> Image.Image:
    """A signed map about mid-grey, in colour if it has three channels, as Springenberg et al. 2015 draw it; else in grey."""
    three = values if values.ndim == 3 and len(values) == 3 else strongest(values)[None].repeat(3, axis=0)
    three = _for(photo, three)
    drawn = _image(0.5 + 0.5 * _relative(three, scale).transpose(1, 2, 0))
    if photo is None:
        return drawn
    return _placed(photo, lambda part, size: drawn.resize(size, _BILINEAR, box=photo.within(part, drawn.size)))


def diverging(values: Array, scale: float, photo: Photo | None = None) -> Image.Image:
    """Signed heat: negative blue, positive red, and zero exactly white."""
    return _flat(0.5 + 0.5 * _relative(_for(photo, strongest(values)), scale), DIVERGING, photo)


def positive(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Heat of what is above zero."""
    return _flat(np.maximum(_relative(_for(photo, strongest(values)), scale), 0), colors, photo)


def negative(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Heat of what is below zero, the most negative brightest."""
    return positive(-values, scale, photo, colors=colors)


def absolute(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Heat of magnitudes: the saliency."""
    return positive(np.abs(values), scale, photo, colors=colors)


def over(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Heat of magnitudes over the greyed photo; its opacity follows its strength, so that the photo stays visible."""
    ink, opacity = _inked(colors)
    grey = np.linspace(0, 1, 256)[None, :, None]
    table = (1 - opacity[:, None]) * grey + opacity[:, None] * ink[:, None]
    return _looked_up(np.abs(_relative(_for(photo, strongest(values)), scale)), table, photo)


def masked(values: Array, scale: float, photo: Photo | None = None) -> Image.Image:
    """The photo where the map is strong, in its colours; the rest faded to a dark grey. The fade follows the magnitude."""
    mask = _image(np.sqrt(np.abs(_relative(_for(photo, strongest(values)), scale))))
    photo = photo or _blank(mask.size)

    def draw(part: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
        inside = photo.picture.crop(part)
        return Image.composite(inside, _dimmed(inside), mask.resize(size, _BILINEAR, box=photo.within(part, mask.size)))

    return _placed(photo, draw)


def contours(
    values: Array, scale: float, photo: Photo | None = None, *, masses: Sequence[float] = MASSES, blur: float = BLUR
) -> Image.Image:
    """The photo with lines around the strongest pixels that hold each of ``masses`` of the map's mass, the smallest brightest.

    ``blur`` is the standard deviation of a Gaussian that the magnitudes go through first, as a share of the longer side: the
    lines around single pixels would be no lines. ``scale`` only says whether there is anything to draw.
    """
    from contourpy import contour_generator
    from scipy import ndimage

    magnitudes = np.abs(strongest(values)).astype(np.float64)
    height, width = magnitudes.shape
    photo = photo or _blank((width, height))
    drawn = seen(photo)
    if scale == 0:
        return drawn
    smooth = ndimage.gaussian_filter(magnitudes, blur * max(width, height), mode="nearest")
    padded = np.pad(smooth, 1, mode="edge")  # lines are found between pixels, of which there must be two
    lines, side = contour_generator(z=padded), max(drawn.size)
    (left, top, right, bottom), thick = photo.box, max(1, round(side / 300))
    across, down = (right - left) / width, (bottom - top) / height
    inks = colormaps["viridis"](np.linspace(1, 0.6, len(masses)))
    for threshold, ink in reversed(list(zip(mass_thresholds(smooth.astype(np.float32), sorted(masses)), inks, strict=True))):
        paths = [
            [(left + (x - 0.5) * across, top + (y - 0.5) * down) for x, y in np.asarray(line).tolist()]
            for line in lines.lines(threshold * (1 - 1e-6))  # at the height of a plateau there is no line
        ]
        _stroke(drawn, paths, (0, 0, 0), 3 * thick)
        _stroke(drawn, paths, tuple(round(255 * c) for c in ink[:3]), thick)
    return drawn


def _stroke(drawn: Image.Image, paths: Sequence[Sequence[tuple[float, float]]], ink: tuple[int, ...], width: int) -> None:
    """Draw lines through places counted from the edges; on a small picture finer than its pixels, so that they are smooth."""
    fine = max(1, round(1200 / max(drawn.size)))
    sheet = drawn if fine == 1 else Image.new("L", (fine * drawn.width, fine * drawn.height))
    pen = ImageDraw.Draw(sheet)
    for path in paths:
        places = [(fine * x - 0.5, fine * y - 0.5) for x, y in path]
        pen.line(places, fill=ink if fine == 1 else 255, width=fine * width, joint="curve")
    if fine > 1:
        drawn.paste(ink, (0, 0), sheet.reduce(fine))


def layer(values: Array, scale: float) -> Image.Image:
    """The heat that :func:`over` lays over a photo, RGBA at the map's own resolution."""
    table = np.round(255 * np.concatenate(_inked(HEAT), axis=1)).astype(np.uint8)
    return Image.fromarray(table[_levels(np.abs(_relative(strongest(values), scale)))])


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of picture: its key, its function, the values it shows in units of the scale, and what to know of it.

    ``ends`` are the values from its darkest, or bluest, colour to its brightest; None if it shows no values.
    """

    key: str
    draw: Callable[[Array, float, Photo | None], Image.Image]
    ends: tuple[float, float] | None
    note: str = ""


_CONTOURS = f"lines hold {' and '.join(f'{m:.0%}' for m in MASSES)} of the mass, after a blur of {BLUR:.1%} of the side"

KINDS: Mapping[str, Kind] = {
    kind.key: kind
    for kind in (
        Kind("colour", colour, (-1, 1)),
        Kind("diverging", diverging, (-1, 1)),
        Kind("positive", positive, (0, 1), "what is above zero"),
        Kind("negative", negative, (0, -1), "what is below zero"),
        Kind("absolute", absolute, (0, 1)),
        Kind("over", over, (0, 1)),
        Kind("masked", masked, (0, 1)),
        Kind("contours", contours, None, _CONTOURS),
    )
}


# --- Photos ---------------------------------------------------------------------------------------------------------------


def seen(photo: Photo) -> Image.Image:
    """The photo, dimmed where the network never looked."""
    return _placed(photo, lambda part, _: photo.picture.crop(part))


def stretched(values: Array) -> Image.Image:
    """An input ``(C, H, W)`` of unknown normalisation, stretched to the range of a display; constant ones are mid-grey."""
    channels = values if len(values) == 3 else values.mean(axis=0, keepdims=True).repeat(3, axis=0)
    low, high = float(channels.min()), float(channels.max())
    unit = np.full_like(channels, 0.5) if low == high else (channels - low) / (high - low)
    return _image(unit.transpose(1, 2, 0))


def png(image: Image.Image) -> bytes:
    """``image`` as the bytes of a PNG file; a large one is compressed less and written several times as fast."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6 if image.width * image.height < _BAND else 1)
    return buffer.getvalue()


def _image(unit: Array) -> Image.Image:
    return Image.fromarray(np.round(unit * 255).astype(np.uint8))


def _blank(size: tuple[int, int]) -> Photo:
    return Photo.whole(Image.new("RGB", size, (128, 128, 128)))


def _dim(grey: Array) -> Array:
    """The grey, from 0 to 1, that stands for a grey of the photo where it does not count."""
    return 0.1 + 0.3 * grey


def _dimmed(picture: Image.Image) -> Image.Image:
    levels = np.round(255 * _dim(np.linspace(0, 1, 256, dtype=np.float32)))
    grey = picture.convert("L").point([int(level) for level in levels])
    return Image.merge("RGB", (grey, grey, grey))


# --- Tables and bands -----------------------------------------------------------------------------------------------------


def _levels(unit: Array) -> _Bytes:
    return np.round(unit * _STEPS).astype(np.uint8)


def _inked(colors: Colormap) -> tuple[Array, Array]:
    """For each level, its colour ``(255, 3)`` and the opacity it is laid over a photo with, ``(255, 1)``."""
    strength = np.linspace(0, 1, _STEPS + 1, dtype=np.float32)
    return colors(strength)[:, :3].astype(np.float32), 0.85 * strength[:, None] ** np.float32(0.6)


def _flat(unit: Array, colors: Colormap, photo: Photo | None) -> Image.Image:
    """Values from 0 to 1 in ``colors``, whatever the photo."""
    table = colors(np.linspace(0, 1, _STEPS + 1))[:, None, :3].repeat(256, axis=1)
    return _looked_up(unit, table, photo)


def _looked_up(unit: Array, table: Array, photo: Photo | None) -> Image.Image:
    """Values from 0 to 1 over a photo: ``table`` ``(255, 256, 3)`` holds the colour for each level and grey."""
    unseen = _dim(np.linspace(0, 1, 256, dtype=np.float32))[None, :, None].repeat(3, axis=2)
    rgbx = np.zeros((256, 256, 4), np.uint8)
    rgbx[..., :3] = np.round(255 * np.concatenate([table, unseen]))
    words = rgbx.reshape(-1, 4).view(np.uint32).ravel()
    levels = Image.fromarray(_levels(unit))
    photo = photo or _blank(levels.size)
    picture, (left, top, right, bottom) = photo.picture, photo.seen
    drawn = Image.new("RGB", picture.size)

    def band(first: int, last: int) -> None:
        index = np.full((last - first, picture.width), _STEPS + 1, np.uint16)
        upper, lower = max(first, top), min(last, bottom)
        if upper < lower:
            part = (left, upper, right, lower)
            fine = levels.resize((right - left, lower - upper), _BILINEAR, box=photo.within(part, levels.size))
            index[upper - first : lower - first, left:right] = np.asarray(fine)
        index <<= 8
        index |= np.asarray(picture.crop((0, first, picture.width, last)).convert("L"))
        pixels = words.take(index)
        drawn.paste(
            Image.frombuffer("RGBX", (picture.width, last - first), pixels, "raw", "RGBX", 0, 1).convert("RGB"), (0, first)
        )

    _in_bands(picture.size, band)
    return drawn


def _placed(photo: Photo, draw: Callable[[tuple[int, int, int, int], tuple[int, int]], Image.Image]) -> Image.Image:
    """A picture of the photo's size: ``draw(part, size)`` where the network looked, the photo dimmed elsewhere."""
    (width, _), (left, top, right, bottom) = photo.picture.size, photo.seen
    drawn = Image.new("RGB", photo.picture.size)

    def band(first: int, last: int) -> None:
        upper, lower = min(max(first, top), last), max(min(last, bottom), first)
        for part in ((0, first, width, upper), (0, lower, width, last), (0, upper, left, lower), (right, upper, width, lower)):
            if part[0] < part[2] and part[1] < part[3]:
                drawn.paste(_dimmed(photo.picture.crop(part)), part[:2])
        if upper < lower:
            drawn.paste(draw((left, upper, right, lower), (right - left, lower - upper)), (left, upper))

    _in_bands(photo.picture.size, band)
    return drawn


def _in_bands(size: tuple[int, int], draw: Callable[[int, int], None]) -> None:
    """Call ``draw(first, last)`` for bands of rows that make up a picture, on every core: the work is Pillow's and numpy's."""
    width, height = size
    rows = max(1, _BAND // width)
    bands = [(first, min(first + rows, height)) for first in range(0, height, rows)]
    if len(bands) == 1:
        draw(0, height)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda band: draw(*band), bands):
            pass
