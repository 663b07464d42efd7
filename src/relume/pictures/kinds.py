"""Kinds of picture that are drawn of a map. Each is one entry of :data:`KINDS`.

Maps are scaled for display here and nowhere else, and none is changed by it. A map comes at the input's resolution,
signed: ``(H, W)``, or ``(C, H, W)``, of which :func:`strongest` is drawn where a kind does not show the channels. ``scale`` is
the value drawn at full strength. Without a photo a picture has the map's pixels; with one it has the photo's, the map lies
where the network looked, and what the network never saw is dimmed.

A kind that shows one value for each pixel is a table: a colour for each of 255 levels of the value and 256 of the photo's grey.
So the values are interpolated and not their colours (between red and blue lies white, and not purple), and a large photo costs
one look-up a pixel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image, ImageDraw

from relume.maps import MapInfo
from relume.pictures.canvas import BILINEAR, LEVELS, Pixels, as_image, blank, coloured, dimmed, levels, pixels_of, placed, seen
from relume.pictures.photo import Photo
from relume.pictures.scale import Array
from relume.registry import Registry

__all__ = [
    "DIVERGING",
    "HEAT",
    "KINDS",
    "Kind",
    "absolute",
    "colour",
    "contours",
    "default_kind",
    "diverging",
    "extreme",
    "layer",
    "masked",
    "mass_thresholds",
    "negative",
    "over",
    "positive",
    "strongest",
]

HEAT = colormaps["inferno"]

# Brewer's red and blue, which the colour-blind tell apart; matplotlib has light grey in their middle, where zero is white here
_ARMS = colormaps["RdBu_r"](np.linspace(0, 1, 9))
DIVERGING = LinearSegmentedColormap.from_list("blue-white-red", [*_ARMS[:4], (1, 1, 1), *_ARMS[5:]], N=511)

MASSES = (0.5, 0.8)
BLUR = 0.015


# --- Values ---------------------------------------------------------------------------------------------------------------


def strongest(values: Array) -> Array:
    """Take the value of largest magnitude among the channels, with its sign: ``(C, H, W)`` to ``(H, W)``.

    Its magnitude is the saliency ``max_c |values|``, so that every kind of picture shows the same numbers.
    """
    return values if values.ndim == 2 else extreme(values, 0)


def extreme(values: Array, axis: int) -> Array:
    """Take the value of largest magnitude along an axis, with its sign."""
    largest: Array = np.take_along_axis(values, np.abs(values).argmax(axis, keepdims=True), axis).squeeze(axis)
    return largest


def _for(photo: Photo | None, values: Array) -> Array:
    """Prepare ``values`` for a photo: where it has fewer pixels than the map, each shows the strongest value around it.

    Where signs alternate, a mean would be zero, and the picture would be empty under a scale that says otherwise.
    """
    if photo is None:
        return values
    from scipy import ndimage

    left, top, right, bottom = photo.box
    size = [math.ceil(n / side) for n, side in zip(values.shape[-2:], (bottom - top, right - left), strict=True)]
    if max(size) < 2:
        return values
    window = (*[1] * (values.ndim - 2), *size)
    high: Array = ndimage.maximum_filter(values, window)
    if not (values < 0).any():
        return high
    low = ndimage.minimum_filter(values, window)
    return np.where(high >= -low, high, low)


def _relative(values: Array, scale: float) -> Array:
    """Divide ``values`` by ``scale``, within -1 and 1; zero if the scale is zero: a map of zeros is drawn as one."""
    if scale == 0:
        return np.zeros_like(values, dtype=np.float32)
    return np.clip(values.astype(np.float64) / scale, -1, 1).astype(np.float32)  # the scale may be beyond float32


def mass_thresholds(values: Array, masses: Sequence[float]) -> list[float]:
    """Find, for each share of the map's mass ``Σ |values|``, the largest threshold above which at least that share lies."""
    falling = np.sort(np.abs(values), axis=None)[::-1]
    cumulated = np.cumsum(falling, dtype=np.float64)
    return [float(falling[np.searchsorted(cumulated, mass * cumulated[-1])]) for mass in masses]


# --- Kinds of picture -----------------------------------------------------------------------------------------------------


def colour(values: Array, scale: float, photo: Photo | None = None) -> Image.Image:
    """Draw a signed map about mid-grey, in colour if it has three channels, as Springenberg et al. 2015 do; else in grey."""
    three = values if values.ndim == 3 and len(values) == 3 else strongest(values)[None].repeat(3, axis=0)
    three = _for(photo, three)
    drawn = as_image(0.5 + 0.5 * _relative(three, scale).transpose(1, 2, 0))
    if photo is None:
        return drawn
    return placed(photo, lambda part: _enlarged(drawn, part, photo))


def diverging(values: Array, scale: float, photo: Photo | None = None) -> Image.Image:
    """Draw signed heat: negative blue, positive red, and zero exactly white."""
    return _of_value(0.5 + 0.5 * _relative(_for(photo, strongest(values)), scale), DIVERGING, photo)


def positive(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Draw heat of what is above zero."""
    return _of_value(np.maximum(_relative(_for(photo, strongest(values)), scale), 0), colors, photo)


def negative(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Draw heat of what is below zero, the most negative brightest."""
    return positive(-values, scale, photo, colors=colors)


def absolute(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Draw heat of magnitudes: the saliency."""
    return positive(np.abs(values), scale, photo, colors=colors)


def over(values: Array, scale: float, photo: Photo | None = None, *, colors: Colormap = HEAT) -> Image.Image:
    """Draw heat of magnitudes over the greyed photo; its opacity follows its strength, so that the photo stays visible."""
    pixels = _heat_over() if colors is HEAT else _laid_over(colors)
    return coloured(np.abs(_relative(_for(photo, strongest(values)), scale)), pixels, photo)


def masked(values: Array, scale: float, photo: Photo | None = None) -> Image.Image:
    """Draw the photo in its colours where the map is strong; the rest fades to a dark grey with the magnitude."""
    mask = as_image(np.sqrt(np.abs(_relative(_for(photo, strongest(values)), scale))))
    photo = photo or blank(mask.size)

    def draw(part: tuple[int, int, int, int]) -> Image.Image:
        inside = photo.picture.crop(part)
        return Image.composite(inside, dimmed(inside), _enlarged(mask, part, photo))

    return placed(photo, draw)


def _enlarged(drawn: Image.Image, part: tuple[int, int, int, int], photo: Photo) -> Image.Image:
    """Resize what a part of a photo shows of the input to the pixels of that part."""
    left, top, right, bottom = part
    return drawn.resize((right - left, bottom - top), BILINEAR, box=photo.within(part, drawn.size))


def contours(
    values: Array, scale: float, photo: Photo | None = None, *, masses: Sequence[float] = MASSES, blur: float = BLUR
) -> Image.Image:
    """Draw the photo with a line around the strongest pixels for each share of ``masses``; the smallest is brightest.

    Inside a line lies its share of the map's mass. The magnitudes are blurred first, or lines would run around single pixels:
    ``blur`` is the standard deviation of the Gaussian, as a share of the longer side. A ``scale`` of zero means an empty map.
    """
    from contourpy import contour_generator
    from scipy import ndimage

    magnitudes = np.abs(strongest(values)).astype(np.float64)
    height, width = magnitudes.shape
    photo = photo or blank((width, height))
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
    """Draw lines through points of a picture; on a small picture finer than its pixels, so that they are smooth."""
    fine = max(1, round(1200 / max(drawn.size)))
    sheet = drawn if fine == 1 else Image.new("L", (fine * drawn.width, fine * drawn.height))
    pen = ImageDraw.Draw(sheet)
    for path in paths:
        places = [(fine * x - 0.5, fine * y - 0.5) for x, y in path]
        pen.line(places, fill=ink if fine == 1 else 255, width=fine * width, joint="curve")
    if fine > 1:
        drawn.paste(ink, (0, 0), sheet.reduce(fine))


def layer(values: Array, scale: float) -> Image.Image:
    """Draw the heat that :func:`over` lays over a photo, RGBA at the map's own resolution."""
    table = np.round(255 * np.concatenate(_inked(HEAT), axis=1)).astype(np.uint8)
    return Image.fromarray(table[levels(np.abs(_relative(strongest(values), scale)))])


def _inked(colors: Colormap) -> tuple[Array, Array]:
    """Return for each level its colour ``(255, 3)`` and the opacity it is laid over a photo with, ``(255, 1)``."""
    strength = np.linspace(0, 1, LEVELS, dtype=np.float32)
    return colors(strength)[:, :3].astype(np.float32), 0.85 * strength[:, None] ** np.float32(0.6)


def _laid_over(colors: Colormap) -> Pixels:
    """Return the pixels of a photo's greys under heat in ``colors``."""
    ink, opacity = _inked(colors)
    grey = np.linspace(0, 1, 256)[None, :, None]
    return pixels_of((1 - opacity[:, None]) * grey + opacity[:, None] * ink[:, None])


@functools.cache
def _heat_over() -> Pixels:
    return _laid_over(HEAT)  # a colour map cannot be the key of a cache


def _of_value(unit: Array, colors: Colormap, photo: Photo | None) -> Image.Image:
    """Draw values from 0 to 1 in ``colors``, whatever the photo."""
    table = colors(np.linspace(0, 1, LEVELS))[:, None, :3].repeat(256, axis=1)
    return coloured(unit, pixels_of(table), photo)


# --- The table of them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of picture, and all that is to be known of it.

    Attributes:
        key: its name in :data:`KINDS` and on the command line.
        draw: draws a map ``(H, W)`` or ``(C, H, W)`` at a scale on a photo, or by itself if that is None.
        ends: the values of its darkest, or bluest, colour and of its brightest, in units of the scale; None if its colours
            stand for no values.
        title: its description in a few words, for documentation and help.
        note: a remark under figures of this kind.
        on_photo: True if the photo is to be seen in it; a page, which has the photo below, shows the heat alone.

    Example:
        A kind of picture of your own:

        >>> import numpy as np
        >>> from PIL import Image
        >>> from relume.pictures import KINDS, Kind
        >>> def grey(values, scale, photo=None):
        ...     return Image.fromarray(np.uint8(255 * np.abs(values).max(0) / scale))
        >>> KINDS["grey"] = Kind("grey", grey, (0, 1), "magnitudes in grey")
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> e = relume.open_model("demo").explain(draw_scene(0).picture, methods=["gradient"])
        >>> e.picture("gradient", kind="grey").size
        (128, 128)
        >>> del KINDS["grey"]
    """

    key: str
    draw: Callable[[Array, float, Photo | None], Image.Image]
    ends: tuple[float, float] | None
    title: str
    note: str = ""
    on_photo: bool = False

    def layer(self, values: Array, scale: float) -> Image.Image:
        """Draw a map to be laid over its photo: RGBA, at its own resolution; heat where the kind shows the photo itself."""
        return layer(values, scale) if self.on_photo else self.draw(values, scale, None).convert("RGBA")

    @property
    def ramp(self) -> Array:
        """Return values from one of the :attr:`ends` to the other, ``(1, 256)``: a colour bar is their picture at scale 1."""
        low, high = self.ends or (0, 1)
        return np.linspace(low, high, 256, dtype=np.float32)[None]

    def bar(self) -> Image.Image | None:
        """Draw the colour bar, 256 pixels in a row; None where colours stand for no values."""
        return None if self.ends is None else self.draw(self.ramp, 1, None)


_CONTOURS = f"lines hold {' and '.join(f'{m:.0%}' for m in MASSES)} of the mass, after a blur of {BLUR:.1%} of the side"

#: Every kind of picture, by key. Another package adds one by an entry point of the group ``relume.kinds``.
KINDS: Registry[Kind] = Registry(
    "kind of picture",
    "relume.kinds",
    {
        kind.key: kind
        for kind in (
            Kind("colour", colour, (-1, 1), "the signed map around mid-grey, in the colours of its channels, as in the paper"),
            Kind("diverging", diverging, (-1, 1), "negative values blue, positive values red, zero exactly white"),
            Kind("positive", positive, (0, 1), "values above zero", "values above zero"),
            Kind("negative", negative, (0, -1), "values below zero", "values below zero"),
            Kind("absolute", absolute, (0, 1), "magnitudes: the saliency"),
            Kind("over", over, (0, 1), "magnitudes over the photo in grey; the stronger, the more opaque", on_photo=True),
            Kind("masked", masked, (0, 1), "the photo where the map is strong, and faded elsewhere", on_photo=True),
            Kind(
                "contours",
                contours,
                None,
                "lines around the strongest pixels, which hold 50 % and 80 % of the map's strength",
                _CONTOURS,
                on_photo=True,
            ),
        )
    },
)


def default_kind(info: MapInfo, ground: Literal["photo", "signal", "bands", "volume", "video"] = "photo") -> Kind:
    """Choose the kind of picture that suits a map on its ground.

    Heat over the ground for the map of a layer, and for any map on a volume or a video; else colours if it is signed, red and
    blue along a signal, and heat if it is not.

    Example:
        >>> from relume.maps import MapInfo
        >>> from relume.pictures import default_kind
        >>> default_kind(MapInfo("gradient", "gradient", place="input", signed=True)).key
        'colour'
        >>> default_kind(MapInfo("gradcam", "Grad-CAM", place="layer", signed=False)).key
        'over'
        >>> default_kind(MapInfo("gradient", "gradient", place="input", signed=True), "signal").key
        'diverging'
    """
    if info.place == "layer" or ground in ("volume", "video"):
        return KINDS["over"]
    if ground == "signal":
        return KINDS["diverging" if info.signed else "over"]
    return KINDS["colour" if info.signed else "absolute"]
