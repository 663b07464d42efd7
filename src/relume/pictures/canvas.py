"""Photos as the ground that maps are drawn on, band by band, and pictures as files."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from PIL import Image

from relume.pictures.photo import Photo
from relume.pictures.scale import Array

__all__ = [
    "BILINEAR",
    "LEVELS",
    "Pixels",
    "as_image",
    "blank",
    "coloured",
    "dimmed",
    "jpeg",
    "levels",
    "pixels_of",
    "placed",
    "png",
    "seen",
    "stretched",
]

#: Pixels of a photo: left, top, right, bottom.
Part: TypeAlias = tuple[int, int, int, int]

#: A pixel of four bytes for each level and each grey of a photo.
Pixels: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.uint32]]"

#: Values have the levels 0 to 254; 255 stands for what the network never saw.
LEVELS = 255
BILINEAR = Image.Resampling.BILINEAR

_BAND = 1 << 20  # pixels: smaller bands cost more than they save


def as_image(unit: Array) -> Image.Image:
    """Convert values from 0 to 1, ``(H, W)`` or ``(H, W, 3)``, to an image of 8 bits."""
    return Image.fromarray(np.round(unit * 255).astype(np.uint8))


def levels(unit: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the level of each value from 0 to 1."""
    return np.round(unit * (LEVELS - 1)).astype(np.uint8)


def blank(size: tuple[int, int]) -> Photo:
    """Make a photo of mid-grey."""
    return Photo.whole(Image.new("RGB", size, (128, 128, 128)))


def png(image: Image.Image) -> bytes:
    """Return ``image`` as the bytes of a PNG file; a large one is compressed less and written several times as fast."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6 if image.width * image.height < _BAND else 1)
    return buffer.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """Return ``image`` as the bytes of a small JPEG file."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def stretched(values: Array) -> Image.Image:
    """Draw an input ``(C, H, W)`` of unknown normalisation in the whole range of a display; a constant one is mid-grey."""
    channels = values if len(values) == 3 else values.mean(axis=0, keepdims=True).repeat(3, axis=0)
    low, high = float(channels.min()), float(channels.max())
    unit = np.full_like(channels, 0.5) if low == high else (channels - low) / (high - low)
    return as_image(unit.transpose(1, 2, 0))


def seen(photo: Photo) -> Image.Image:
    """Draw the photo, dimmed where the network never looked."""
    return placed(photo, photo.picture.crop)


def _dim(grey: Array) -> Array:
    """Return the grey, from 0 to 1, that a grey of the photo becomes where it does not count."""
    return 0.1 + 0.3 * grey


def dimmed(picture: Image.Image) -> Image.Image:
    """Draw a picture as where it does not count: dark and grey."""
    greys = np.round(255 * _dim(np.linspace(0, 1, 256, dtype=np.float32)))
    grey = picture.convert("L").point([int(level) for level in greys])
    return Image.merge("RGB", (grey, grey, grey))


def placed(photo: Photo, draw: Callable[[Part], Image.Image]) -> Image.Image:
    """Make a picture of the photo's size: ``draw(part)`` where the network looked, the photo dimmed elsewhere."""
    (width, _), (left, top, right, bottom) = photo.picture.size, photo.seen

    def band(first: int, last: int) -> Image.Image:
        strip = dimmed(photo.picture.crop((0, first, width, last)))
        upper, lower = max(first, top), min(last, bottom)
        if upper < lower:
            strip.paste(draw((left, upper, right, lower)), (left, upper - first))
        return strip

    return _banded(photo.picture.size, band)


def pixels_of(table: Array) -> Pixels:
    """Return the pixels for :func:`coloured`; ``table`` ``(255, 256, 3)`` has the colour for each level and grey of a photo."""
    unseen = _dim(np.linspace(0, 1, 256, dtype=np.float32))[None, :, None].repeat(3, axis=2)
    rgbx = np.zeros((256, 256, 4), np.uint8)
    rgbx[..., :3] = np.round(255 * np.concatenate([table, unseen]))
    return rgbx.reshape(-1, 4).view(np.uint32).ravel()


def coloured(unit: Array, pixels: Pixels, photo: Photo | None) -> Image.Image:
    """Draw values from 0 to 1 over a photo, in the ``pixels`` that :func:`pixels_of` makes of a table."""
    coarse = Image.fromarray(levels(unit))
    photo = photo or blank(coarse.size)
    picture, (left, top, right, bottom) = photo.picture, photo.seen

    def band(first: int, last: int) -> Image.Image:
        index = np.full((last - first, picture.width), LEVELS, np.uint16)
        upper, lower = max(first, top), min(last, bottom)
        if upper < lower:
            part = (left, upper, right, lower)
            fine = coarse.resize((right - left, lower - upper), BILINEAR, box=photo.within(part, coarse.size))
            index[upper - first : lower - first, left:right] = np.asarray(fine)
        index <<= 8
        index |= np.asarray(picture.crop((0, first, picture.width, last)).convert("L"))
        strip = Image.frombuffer("RGBX", (picture.width, last - first), pixels.take(index), "raw", "RGBX", 0, 1)
        return strip.convert("RGB")

    return _banded(picture.size, band)


def _banded(size: tuple[int, int], draw: Callable[[int, int], Image.Image]) -> Image.Image:
    """Make a picture of bands of rows by ``draw(first, last)``, several at once: the work is Pillow's and NumPy's."""
    width, height = size
    rows = max(1, _BAND // width)
    firsts = range(0, height, rows)
    if len(firsts) == 1:
        return draw(0, height)
    picture = Image.new("RGB", size)
    with ThreadPoolExecutor() as pool:
        for first, band in zip(firsts, pool.map(draw, firsts, (*firsts[1:], height)), strict=True):
            picture.paste(band, (0, first))
    return picture
