"""Decoding of picture files to upright pixels in RGB, with one sentence for everything that can be wrong with a file."""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, _imaging

from relume.errors import ImageError
from relume.text import printable

__all__ = ["Upright", "decoding", "libtiff_silent", "opened", "regular_file", "upright"]

#: The operation that undoes each EXIF orientation. ``ImageOps.exif_transpose`` also writes the EXIF data again, and fails
#: where that is damaged.
TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: The numbers of bits that cameras and scanners put into 16.
DEPTHS = (8, 10, 12, 14)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or what it logs would be printed where nobody set up logging

_ORIENTATION, _BITS = 0x0112, 0x0102  # tags of EXIF and of TIFF
_LONGEST = 200  # characters of a reason that a library gives


@dataclass(frozen=True, slots=True, eq=False)
class Upright:
    """The pixels of a picture, upright and in RGB.

    Attributes:
        picture: the pixels, with the colour profile of the file and no other facts of it.
        orientation: the EXIF orientation of the file, from 1 to 8, which ``picture`` has undone.
        notes: remarks on the file that a reader needs: that it holds more pictures, or fewer bits than it has room for.
    """

    picture: Image.Image
    orientation: int
    notes: tuple[str, ...]


@contextmanager
def opened(path: str | Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open a picture file; an error while its pixels are read inside becomes an error about this file.

    Its ``content`` is given if it lies in another file, such as an archive; then ``path`` is only its name.

    Raises:
        ImageError: the file is missing, not a picture, damaged, or too large; or one raised inside, with its name before.
    """
    name = repr(str(path))
    data = regular_file(Path(path), name) if content is None else io.BytesIO(content)
    with data as file, decoding(name), Image.open(file) as picture:
        if picture.format == "EPS":  # Pillow would run Ghostscript, where there is one, on a program that may never end
            raise ImageError("it is EPS, a program that Ghostscript would have to run; convert it to PNG")
        yield picture


def regular_file(path: Path, name: str) -> BinaryIO:
    """Open a regular file, and never a pipe, which would wait for somebody to write into it.

    Raises:
        ImageError: there is no such file, it is empty or a directory, or it cannot be opened.
    """
    try:
        status = path.stat()
        regular, size = stat.S_ISREG(status.st_mode), status.st_size
        if regular and size:
            return path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"there is no file {name}; check the path") from None
    except PermissionError:
        raise ImageError(f"there is no permission to read {name}; change it, or copy the file") from None
    except (OSError, ValueError) as error:  # a name that no file can have, a disk that fails
        raise ImageError(f"{name} cannot be opened: {_reason(error)}; check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name} is a directory; name the pictures in it, {printable(path)}/*.jpg")
    if not regular:
        raise ImageError(f"{name} is a pipe, a socket or a device, and no file; save the picture as a file first")
    raise ImageError(f"{name} is empty, 0 bytes long; copy or download it again")


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises inside into an error about ``name``, and keep its warnings from the user.

    Raises:
        ImageError: something was raised.
    """
    try:
        with warnings.catch_warnings(), libtiff_silent():
            warnings.simplefilter("ignore")  # of EXIF data, and of sizes below those that are refused
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture in a format that Pillow reads; convert it to PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has more than 179 million pixels; scale it down first") from None
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory; scale it down first") from None
    except Exception as error:  # a damaged file leads Pillow's readers to exceptions of any type
        raise ImageError(f"{name} cannot be read: {_reason(error)}; it may be damaged or cut short") from error


@functools.cache
def _libtiff_setters() -> tuple[Callable[[Any], Any], ...]:
    """Return libtiff's functions that set its handlers of errors and warnings; none where Pillow does not show them."""
    try:
        library = ctypes.CDLL(_imaging.__file__)  # a symbol is looked for in the libraries that it is linked to as well
        setters = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (AttributeError, OSError):
        return ()
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setters


@contextmanager
def libtiff_silent() -> Iterator[None]:
    """Keep libtiff from printing on stderr, which it does by itself, past Python."""
    before = [(setter, setter(None)) for setter in _libtiff_setters()]
    try:
        yield
    finally:
        for setter, handler in before:
            setter(handler)


def _reason(error: Exception) -> str:
    """Return the words of a library's error in one line."""
    words = " ".join((getattr(error, "strerror", None) or str(error)).split()).rstrip(".")
    if not words or not isinstance(error, OSError | SyntaxError | ValueError):
        words = f"{type(error).__name__} {words}".strip()  # a bare "273" would say nothing
    else:
        words = words.lower()
    return printable(words[:_LONGEST])


def upright(picture: Image.Image) -> Upright:
    """Decode a picture: EXIF orientation applied, transparency over white, 16 bits scaled to 8.

    Call it inside :func:`decoding`.

    Raises:
        ImageError: there are no pixels, or their values have no known range.
    """
    # Pillow 13 turns a TIFF while it reads its pixels, and takes its tag away
    before = _orientation(picture)[0] if picture.format == "TIFF" else 1
    deep = any(";16" in str(tile) for tile in getattr(picture, "tile", ()))  # emptied as pixels are read
    picture.load()
    orientation, notes = _orientation(picture)
    if 0 in picture.size:
        raise ImageError(f"there are no pixels in {picture.width}×{picture.height} pixels; give another picture")
    pixels, dark = _rgb(picture, deep=deep)
    profile = picture.info.get("icc_profile")
    # Pillow would write comments, XMP and the rest into every picture that is made of this one, or fail to
    pixels.info = {"icc_profile": profile} if isinstance(profile, bytes) else {}
    turned = pixels if orientation == 1 else pixels.transpose(TURNS[orientation])
    return Upright(turned, max(before, orientation), (*notes, *dark, *_others(picture)))


def _orientation(picture: Image.Image) -> tuple[int, list[str]]:
    """Return the EXIF orientation, 1 if there is none that can be read, and the note on that."""
    try:
        with decoding("its EXIF data"):
            value = picture.getexif().get(_ORIENTATION, 1)
    except ImageError:
        return 1, ["its EXIF data cannot be read, so it is taken to be upright"]
    return (value if isinstance(value, int) and value in TURNS else 1), []


def _others(picture: Image.Image) -> list[str]:
    """Return the note that a file holds more pictures; for a GIF, this throws away the pixels that were read of it."""
    try:
        with decoding("what follows"):
            several = picture.format != "PSD" and getattr(picture, "is_animated", False)  # a PSD is shown with all its layers
            place = picture.tell() + 1
    except ImageError:  # damage behind the first picture
        return []
    return [f"{'the first' if place == 1 else f'number {place}'} of several pictures in it is taken"] if several else []


def _rgb(picture: Image.Image, *, deep: bool) -> tuple[Image.Image, list[str]]:
    """Return a picture in RGB, always another object, and the note on its values."""
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        return _grey(picture)
    if picture.mode == "F":
        raise ImageError("a picture of floating-point values has no known range; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB"), []
    pixels = picture.convert("RGB")
    # of 16 bits a colour Pillow keeps the upper 8
    highest = max(high for _, high in pixels.getextrema()) if deep else 0  # type: ignore[misc]
    return pixels, _depth_note(highest << 8)


def _grey(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return grey of up to 16 bits in RGB, scaled by the range that the file states."""
    values = np.asarray(picture)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ImageError("a picture with 32 bits per pixel has no known range; save it with 8 or 16 bits")
    twelve = picture.format == "TIFF" and getattr(picture, "tag_v2", {}).get(_BITS) == (12,)
    levels = np.round(np.arange(65536) / ((4095 if twelve else 65535) / 255)).clip(max=255).astype(np.uint8)
    return Image.fromarray(levels[values]).convert("RGB"), [] if twelve else _depth_note(highest)


def _depth_note(highest: int) -> list[str]:
    """Return the note on 16-bit values of which the highest is so low that the picture is nearly black.

    The values are never scaled by the highest one, which differs between the pictures of a series.
    """
    bits = next((depth for depth in DEPTHS if 0 < highest < 1 << depth), None)
    if bits is None:
        return []
    seen = f"none of its 16-bit values is above {(1 << bits) - 1}, so it is nearly black"
    return [f"{seen}; if it holds {bits} bits, multiply them by {1 << (16 - bits)} and save it again"]
