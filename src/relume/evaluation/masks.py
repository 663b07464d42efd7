"""Photos with masks as samples: ``masks:FOLDER``, or the folder alone."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from relume.errors import ImageError, InputError, TargetError
from relume.evaluation.samples import Loader, Sample, sample_of
from relume.measures.localisation import Mask
from relume.models.labels import find_class
from relume.pictures.decoding import opened as decoded
from relume.pictures.photo import load_photo

if TYPE_CHECKING:
    from relume.models.opened import Opened

__all__ = ["MASKS", "masks", "read_mask"]

#: The file that lists the masks of a folder.
MASKS = "masks.csv"


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A line of the list: a mask's file, the values in it that are the thing (none: all but 0), and its class."""

    mask: Path
    values: tuple[int, ...]
    index: int | None


def masks(folder: str, opened: Opened, seed: int = 0) -> list[Loader]:  # noqa: ARG001 - nothing is random
    """Read the list of photos in ``folder``, ``masks.csv``, and give for each a function that loads it with all its masks.

    Its columns are ``picture`` and ``mask`` (files, relative to the folder; a mask has one channel, or a palette, and the size
    of its picture), ``class`` (an index or a name; empty for a thing that is there and not explained) and, if wanted,
    ``value`` (the pixel values of the mask that are the thing, separated by spaces; without it, all but 0). A photo with
    several things has several lines.

    Raises:
        InputError: the list is missing, is no such table, names files that are not there, or unknown classes.
    """
    path = Path(folder) / MASKS
    pictures: dict[Path, list[_Row]] = {}
    for number, line in _lines(path):
        place = f"line {number} of {str(path)!r}"
        picture = _file(path.parent, line["picture"], f"{place} has no picture", place)
        pictures.setdefault(picture, []).append(_row(path.parent, line, place, opened))
    if not pictures:
        raise InputError(f"{str(path)!r} lists no picture; give a line for each mask")
    return [functools.partial(_sample, picture, rows, opened) for picture, rows in pictures.items()]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of the list that hold anything, by column, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(
            f"the list of masks {str(path)!r} cannot be read: {reason}; "
            f"give a folder with {MASKS} in it, a CSV with columns picture, mask, class"
        ) from None
    table = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip().casefold() for name in next(table, [])]
        missing = {"picture", "mask", "class"} - set(header)
        if missing:
            raise InputError(
                f"{str(path)!r} has no column {' or '.join(sorted(missing))}; "
                f"its first line is to be picture,mask,class and is {','.join(header)!r}"
            )
        for cells in table:
            if any(cell.strip() for cell in cells):
                filled = zip_longest(header, (cell.strip() for cell in cells[: len(header)]), fillvalue="")
                yield table.line_num, dict(filled)
    except csv.Error as error:
        raise InputError(f"line {table.line_num} of {str(path)!r} is no CSV: {error}") from None


def _file(folder: Path, name: str, without: str, place: str) -> Path:
    if not name:
        raise InputError(f"{without}; name a file")
    try:
        if (folder / name).is_file():
            return folder / name
    except (OSError, ValueError):  # a name that no file can have
        pass
    raise InputError(f"{place} names {name[:200]!r}, and there is no such file in {str(folder)!r}; check the path")


def _row(folder: Path, line: Mapping[str, str], place: str, opened: Opened) -> _Row:
    name = line["class"]
    try:
        values = tuple(int(value) for value in line.get("value", "").split())
        known = name.isdecimal() or not name
        index = (int(name) if name else None) if known else find_class(name, opened.labels or ())
        if index is not None and opened.labels is not None and index >= len(opened.labels):
            raise TargetError(f"there is no class {index}; {opened.name} has 0 to {len(opened.labels) - 1}")
    except ValueError as error:  # a TargetError is one, and says more
        reason = error if isinstance(error, TargetError) else f"{line['value']!r} is no list of pixel values"
        raise InputError(f"{place}: {reason}") from None
    return _Row(_file(folder, line["mask"], f"{place} has no mask", place), values, index)


def _sample(path: Path, rows: Sequence[_Row], opened: Opened) -> Sample:
    photo = load_photo(path)
    if photo.orientation != 1:
        turned = f"it is to be turned (EXIF orientation {photo.orientation}), and its masks may not be"
        raise ImageError(f"{str(path)!r}: {turned}; save it upright")
    masks = [(row.index, read_mask(row.mask, photo.picture.size, row.values)) for row in rows]
    return sample_of(path.name, photo.picture, masks, opened)


def read_mask(path: str | Path, size: tuple[int, int], values: Sequence[int] = (), *, content: bytes | None = None) -> Mask:
    """Read the pixels of a thing from the file of its mask, in those of a photo.

    Args:
        path: a picture of one channel or with a palette.
        size: width and height of the photo.
        values: the values in it that are the thing; all but 0 if there are none.
        content: the bytes of the file, if it lies elsewhere; then ``path`` is only its name in errors.

    Raises:
        ImageError: it cannot be read, does not fit the photo, or has no such pixel.
    """
    with decoded(path, content) as file:
        if file.format in ("JPEG", "MPO"):
            raise ImageError("a mask in JPEG does not keep its values; save it as a PNG")
        pixels = np.asarray(file.convert("L") if file.mode == "1" else file)
    if pixels.ndim != 2:
        raise ImageError(f"{str(path)!r}: a mask has one channel, and this has {pixels.shape[-1]}; save it in grey")
    if pixels.shape[::-1] != size:
        raise ImageError(
            f"{str(path)!r}: the mask has {pixels.shape[1]}×{pixels.shape[0]} pixels and its picture {size[0]}×{size[1]}; "
            "give one for every pixel"
        )
    mask: Mask = np.isin(pixels, values) if values else pixels != 0
    if not mask.any():
        wanted = f"of value {' or '.join(map(str, values))}" if values else "other than 0"
        seen = np.unique(pixels)
        listed = ", ".join(map(str, seen[:8])) + (", …" if len(seen) > 8 else "")
        raise ImageError(f"{str(path)!r}: the mask has no pixel {wanted}; it has {listed}")
    return mask
