"""Pictures with truth to evaluate on: drawn scenes, or a folder of pictures with masks."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from relume.demo.scenes import CLASSES, TRAINING_SEEDS, Scene, draw_scene
from relume.errors import ImageError, InputError, TargetError
from relume.evaluation.run import Sample
from relume.measures.localisation import Mask
from relume.models.labels import find_class
from relume.pictures.decoding import opened
from relume.pictures.photo import load_photo

if TYPE_CHECKING:
    from relume.models.opened import Opened

__all__ = ["MASKS", "folder_samples", "scene_samples"]

#: The file that lists the masks of a folder.
MASKS = "masks.csv"

#: How far apart the scenes of two seeds are.
SPREAD = 1_000_000

Loader: TypeAlias = Callable[[], Sample]


def sample_of(name: str, picture: Image.Image, masks: Sequence[tuple[int | None, Mask]], network: Opened) -> Sample:
    """A picture as ``network`` sees it, with its masks: each of a class to explain, or None for a thing that is only there.

    Raises:
        ImageError: of no class to explain anything is left in what the network sees.
    """
    # Pillow never blends pictures of one bit
    seen = [(index, np.asarray(network.preprocessing.view(Image.fromarray(mask)))) for index, mask in masks]
    targets: dict[int, Mask] = {}
    for index, mask in seen:
        if index is not None and mask.any():
            targets[index] = targets[index] | mask if index in targets else mask
    if not targets:
        raise ImageError(f"{name!r}: nothing of what its masks show is in the part that the network sees; leave it out")
    view = network.preprocessing.view(picture)
    return Sample(name, network.image(view), targets, np.logical_or.reduce([mask for _, mask in seen]))


# --- Scenes --------------------------------------------------------------------------------------------------------------


def scene_samples(count: int, seed: int, network: Opened) -> Iterator[Loader]:
    """The first ``count`` held-out scenes of at least two classes, from ``seed`` million on.

    Raises:
        InputError: the network does not know the classes of the scenes, or the seed leads into those it was trained on.
    """
    unknown = set(CLASSES) - set(network.labels or ())
    if unknown:
        raise InputError(
            f"{network.name} does not know what is in the scenes ({', '.join(sorted(unknown)[:3])}, …); "
            "give pictures with masks by --data"
        )
    if not 0 <= seed < TRAINING_SEEDS // SPREAD:
        raise InputError(f"a seed here is a number from 0 to {TRAINING_SEEDS // SPREAD - 1}; got {seed}")
    drawn = (draw_scene(number) for number in itertools.count(seed * SPREAD))
    fitting = itertools.islice((scene for scene in drawn if len(scene.classes) > 1), count)
    return (functools.partial(_scene_sample, scene, network) for scene in fitting)


def _scene_sample(scene: Scene, network: Opened) -> Sample:
    assert network.labels is not None, "checked before"
    masks = [(network.labels.index(thing.name), thing.mask) for thing in scene.things]
    return sample_of(f"scene {scene.seed}", scene.picture, masks, network)


# --- A folder ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A line of the list: a mask's file, the values in it that are the thing, and its class."""

    mask: Path
    values: tuple[int, ...]
    index: int | None


def folder_samples(folder: str | Path, network: Opened) -> list[Loader]:
    """The pictures that ``masks.csv`` in ``folder`` lists, each with all its masks.

    Its columns are ``picture`` and ``mask`` (files, relative to the folder; a mask has one channel, or a palette, and the size
    of its picture), ``class`` (an index or a name; empty for a thing that is there and not explained) and, if wanted,
    ``value`` (the pixel values of the mask that are the thing, between spaces; anything but 0 without it). A picture with
    several things has several lines.

    Raises:
        InputError: the list is missing, is no such table, names files that are not there, or unknown classes.
    """
    path = Path(folder) / MASKS
    pictures: dict[Path, list[_Row]] = {}
    for number, line in _lines(path):
        place = f"line {number} of {str(path)!r}"
        picture = _file(path.parent, line["picture"], f"{place} has no picture", place)
        pictures.setdefault(picture, []).append(_row(path.parent, line, place, network))
    if not pictures:
        raise InputError(f"{str(path)!r} lists no picture; give a line for each mask")
    return [functools.partial(_folder_sample, picture, rows, network) for picture, rows in pictures.items()]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of the list that hold anything, by column, with their numbers."""
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


def _row(folder: Path, line: Mapping[str, str], place: str, network: Opened) -> _Row:
    name = line["class"]
    try:
        values = tuple(int(value) for value in line.get("value", "").split())
        known = name.isdecimal() or not name
        index = (int(name) if name else None) if known else find_class(name, network.labels or ())
        if index is not None and network.labels is not None and index >= len(network.labels):
            raise TargetError(f"there is no class {index}; {network.name} has 0 to {len(network.labels) - 1}")
    except ValueError as error:  # a TargetError is one, and says more
        reason = error if isinstance(error, TargetError) else f"{line['value']!r} is no list of pixel values"
        raise InputError(f"{place}: {reason}") from None
    return _Row(_file(folder, line["mask"], f"{place} has no mask", place), values, index)


def _folder_sample(path: Path, rows: Sequence[_Row], network: Opened) -> Sample:
    photo = load_photo(path)
    if photo.orientation != 1:
        turned = f"it is to be turned (EXIF orientation {photo.orientation}), and its masks may not be"
        raise ImageError(f"{str(path)!r}: {turned}; save it upright")
    masks = [(row.index, _mask(row, photo.picture.size)) for row in rows]
    return sample_of(path.name, photo.picture, masks, network)


def _mask(row: _Row, size: tuple[int, int]) -> Mask:
    """Where the thing is, in the pixels of the picture."""
    with opened(row.mask) as file:
        if file.format in ("JPEG", "MPO"):
            raise ImageError("a mask in JPEG does not keep its values; save it as a PNG")
        values = np.asarray(file.convert("L") if file.mode == "1" else file)
    if values.ndim != 2:
        raise ImageError(f"{str(row.mask)!r}: a mask has one channel, and this has {values.shape[-1]}; save it in grey")
    if values.shape[::-1] != size:
        raise ImageError(
            f"{str(row.mask)!r}: the mask has {values.shape[1]}×{values.shape[0]} pixels and its picture {size[0]}×{size[1]}; "
            "give one for every pixel"
        )
    mask = np.isin(values, row.values) if row.values else values != 0
    if not mask.any():
        wanted = f"of value {' or '.join(map(str, row.values))}" if row.values else "other than 0"
        seen = np.unique(values)
        listed = ", ".join(map(str, seen[:8])) + (", …" if len(seen) > 8 else "")
        raise ImageError(f"{str(row.mask)!r}: the mask has no pixel {wanted}; it has {listed}")
    return mask
