"""Photos at their own resolution, and the part of each that a network saw."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from relume.errors import ImageError
from relume.pictures.decoding import decoding, opened, upright

__all__ = ["Box", "Photo", "as_photo", "load_photo", "load_picture"]

#: Left, top, right and bottom in pixels, counted from the left and upper edges: the first pixel reaches from 0 to 1.
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A photo as it is, and which part of it the network saw.

    Attributes:
        picture: the whole photo, upright, RGB, at its own resolution.
        box: the part that the network saw, in pixels of ``picture``; it reaches over the edges where the input was padded.
        orientation: the EXIF orientation of its file, from 1 to 8, which ``picture`` has undone.
        content: the bytes of its file, if it is one: saved with a result as they are.
        notes: remarks on its file that a reader needs: that it holds more pictures, or fewer bits than it has room for.
        original: width and height of the photo, if ``picture`` was scaled down: see :meth:`fitted`.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures import IMAGENET, Photo
        >>> photo = IMAGENET.frame(Photo.whole(Image.new("RGB", (512, 256))))
        >>> photo.box  # a square from the middle
        (144.0, 16.0, 368.0, 240.0)
    """

    picture: Image.Image
    box: Box
    orientation: int = 1
    content: bytes | None = None
    notes: tuple[str, ...] = ()
    original: tuple[int, int] | None = None

    @classmethod
    def whole(
        cls, picture: Image.Image, orientation: int = 1, content: bytes | None = None, notes: tuple[str, ...] = ()
    ) -> Photo:
        """Make a photo that the network saw all of, from a picture that is upright."""
        picture = picture if picture.mode == "RGB" else picture.convert("RGB")
        picture.load()
        return cls(picture, (0.0, 0.0, float(picture.width), float(picture.height)), orientation, content, notes)

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of the pixels that the network saw all of, at least one."""
        (left, top, right, bottom), (width, height) = self.box, self.picture.size
        (x0, x1), (y0, y1) = _inside(left, right, width), _inside(top, bottom, height)
        return x0, y0, x1, y1

    def within(self, part: tuple[int, int, int, int], size: tuple[int, int]) -> Box:
        """Return where ``part`` of the photo, which the network saw, lies in an input of ``size`` (width, height)."""
        left, top, right, bottom = self.box
        (width, height), (x0, y0, x1, y1) = size, part
        across, down = width / (right - left), height / (bottom - top)
        u0, u1 = (min(max((x - left) * across, 0.0), width) for x in (x0, x1))
        v0, v1 = (min(max((y - top) * down, 0.0), height) for y in (y0, y1))
        return u0, v0, u1, v1

    def fitted(self, side: int) -> Photo:
        """Scale the photo down so that its longer side has ``side`` pixels, if it has more, and its box with it."""
        width, height = self.picture.size
        factor = side / max(width, height)
        if factor >= 1:
            return self
        size = max(1, round(width * factor)), max(1, round(height * factor))
        across, down = size[0] / width, size[1] / height
        left, top, right, bottom = self.box
        picture = self.picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        box = left * across, top * down, right * across, bottom * down
        return replace(self, picture=picture, box=box, original=self.original or (width, height))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        facts = {"size": list(self.picture.size), "box": list(self.box), "orientation": self.orientation}
        return facts | {"notes": list(self.notes)}


def _inside(low: float, high: float, side: int) -> tuple[int, int]:
    """Return the first of the whole pixels between two edges and the one after the last; without any, the one in the middle."""
    first, last = max(math.ceil(low - 1e-6), 0), min(math.floor(high + 1e-6), side)
    middle = min(max(math.floor((low + high) / 2), 0), side - 1)
    return (first, last) if first < last else (middle, middle + 1)


def load_photo(path: str | Path, content: bytes | None = None) -> Photo:
    """Read a picture file as a photo: EXIF orientation applied, transparency over white, 16 bits scaled to 8.

    Args:
        path: the file.
        content: its bytes, if it lies in another file, such as an archive; then ``path`` is only its name in errors.

    Raises:
        ImageError: the file is missing, not a picture, damaged, or too large.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from relume.pictures import load_photo
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("L", (60, 40)).save(file.name)
        ...     photo = load_photo(file.name)
        >>> photo.picture.mode, photo.picture.size, photo.orientation
        ('RGB', (60, 40), 1)
    """
    with opened(path, content) as file:
        pixels = upright(file)
        content = Path(path).read_bytes() if content is None else content
        return Photo.whole(pixels.picture, pixels.orientation, content, pixels.notes)


def load_picture(path: str | Path) -> Image.Image:
    """Read a picture file upright and in RGB: the picture of :func:`load_photo`.

    Raises:
        ImageError: as :func:`load_photo`.
    """
    with opened(path) as file:
        return upright(file).picture


def as_photo(photo: str | Path | Image.Image | Photo) -> Photo:
    """Make a photo of a file or a picture; a photo stays as it is.

    Raises:
        ImageError: a file cannot be read or used, or it is none of these.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures import as_photo
        >>> as_photo(Image.new("RGB", (60, 40))).box
        (0.0, 0.0, 60.0, 40.0)
    """
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, str | Path):
        return load_photo(photo)
    if not isinstance(photo, Image.Image):
        raise ImageError(f"a photo is a path or a PIL image; got {type(photo).__name__}")
    with decoding("the picture"):
        pixels = upright(photo)
        return Photo.whole(pixels.picture, notes=pixels.notes)
