"""Pictures with truth to evaluate on: drawn scenes, or a folder of pictures with masks."""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from relume.demo.scenes import CLASSES, TRAINING_SEEDS, Scene, draw_scene
from relume.errors import ImageError, InputError, TargetError
from relume.evidence.evaluation import Sample
from relume.evidence.localisation import Mask
from relume.image import load_picture
from relume.models.labels import find_class

if TYPE_CHECKING:
    from relume.models import Opened

__all__ = ["MASKS", "folder_samples", "scene_samples"]

#: The file that lists the masks of a folder.
MASKS = "masks.csv"

#: How far apart the scenes of two seeds are.
SPREAD = 1_000_000

Loader: TypeAlias = Callable[[], Sample]


def sample_of(name: str, picture: Image.Image, masks: Sequence[tuple[int | None, Mask]], opened: Opened) -> Sample:
    """A picture as ``opened`` sees it, with its masks: each of a class to explain, or None for a thing that is only there.

    Raises:
        ImageError: of no class to explain anything is left in what the network sees.
    """
    nearest = dataclasses.replace(opened.preprocessing, interpolation="nearest")
    seen = [(index, np.asarray(nearest.view(Image.fromarray(mask))).astype(bool)) for index, mask in masks]
    targets: dict[int, Mask] = {}
    for index, mask in seen:
        if index is not None and mask.any():
            targets[index] = targets[index] | mask if index in targets else mask
    if not targets:
        raise ImageError(f"{name!r}: nothing of what its masks show is in the part that the network sees; leave it out")
    view = opened.preprocessing.view(picture)
    return Sample(name, opened.preprocessing.tensor(view), targets, np.logical_or.reduce([mask for _, mask in seen]))


# --- Scenes --------------------------------------------------------------------------------------------------------------


def scene_samples(count: int, seed: int, opened: Opened) -> Iterator[Loader]:
    """The first ``count`` held-out scenes of at least two classes, from ``seed`` million on.

    Raises:
        InputError: the network does not know the classes of the scenes, or the seed leads into those it was trained on.
    """
    unknown = set(CLASSES) - set(opened.labels or ())
    if unknown:
        raise InputError(
            f"{opened.name} does not know what is in the scenes ({', '.join(sorted(unknown)[:3])}, …); "
            "give pictures with masks by --data"
        )
    if not 0 <= seed < TRAINING_SEEDS // SPREAD:
        raise InputError(f"a seed here is a number from 0 to {TRAINING_SEEDS // SPREAD - 1}; got {seed}")
    drawn = (draw_scene(number) for number in itertools.count(seed * SPREAD))
    fitting = itertools.islice((scene for scene in drawn if len(scene.classes) > 1), count)
    return (functools.partial(_scene_sample, scene, opened) for scene in fitting)


def _scene_sample(scene: Scene, opened: Opened) -> Sample:
    assert opened.labels is not None, "checked before"
    masks = [(opened.labels.index(thing.name), thing.mask) for thing in scene.things]
    return sample_of(f"scene {scene.seed}", scene.picture, masks, opened)


# --- A folder ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A line of the list: a mask's file, the values in it that are the thing, and its class."""

    mask: Path
    values: tuple[int, ...]
    index: int | None


def folder_samples(folder: str | Path, opened: Opened) -> list[Loader]:
    """The pictures that ``masks.csv`` in ``folder`` lists, each with all its masks.

    Its columns are ``picture`` and ``mask`` (files, relative to the folder; a mask has one channel and the size of its
    picture), ``class`` (an index or a name; empty for a thing that is there and not explained) and, if wanted, ``value`` (the
    pixel values of the mask that are the thing, between spaces; anything but 0 without it). A picture with several things has
    several lines.

    Raises:
        InputError: the list is missing, is no such table, names files that are not there, or unknown classes.
    """
    folder = Path(folder)
    path = folder / MASKS
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(
            f"the list of masks {str(path)!r} cannot be read: {reason}; give a CSV with columns picture, mask, class"
        ) from None
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = {"picture", "mask", "class"} - set(table.fieldnames or ())
    if missing:
        raise InputError(
            f"{str(path)!r} has no column {' or '.join(sorted(missing))}; its first line names picture, mask, class"
        )
    pictures: dict[Path, list[_Row]] = {}
    for line in table:
        place = f"line {table.line_num} of {str(path)!r}"
        pictures.setdefault(_file(folder, line["picture"], place), []).append(_row(folder, line, place, opened))
    if not pictures:
        raise InputError(f"{str(path)!r} lists no picture; give a line for each mask")
    return [functools.partial(_folder_sample, picture, rows, opened) for picture, rows in pictures.items()]


def _file(folder: Path, name: str | None, place: str) -> Path:
    path = folder / (name or "")
    if not path.is_file():
        raise InputError(f"{place} names {name!r}, and there is no such file in {str(folder)!r}; check the path")
    return path


def _row(folder: Path, line: Mapping[str, str | None], place: str, opened: Opened) -> _Row:
    name = (line["class"] or "").strip()
    try:
        values = tuple(int(value) for value in (line.get("value") or "").split())
        known = name.isdecimal() or not name
        index = (int(name) if name else None) if known else find_class(name, opened.labels or ())
        if index is not None and opened.labels is not None and index >= len(opened.labels):
            raise TargetError(f"there is no class {index}; {opened.name} has 0 to {len(opened.labels) - 1}")
    except ValueError as error:  # a TargetError is one, and says more
        reason = error if isinstance(error, TargetError) else f"{line.get('value')!r} is no list of pixel values"
        raise InputError(f"{place}: {reason}") from None
    return _Row(_file(folder, line["mask"], place), values, index)


def _folder_sample(path: Path, rows: Sequence[_Row], opened: Opened) -> Sample:
    picture = load_picture(path)
    return sample_of(path.name, picture, [(row.index, _mask(row, picture.size)) for row in rows], opened)


def _mask(row: _Row, size: tuple[int, int]) -> Mask:
    """Where the thing is, in the pixels of the picture."""
    try:
        with Image.open(row.mask) as file:
            values = np.asarray(file)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the mask {str(row.mask)!r} cannot be read; save it as a PNG of one channel") from error
    if values.ndim != 2:
        raise ImageError(f"the mask {str(row.mask)!r} has {values.shape[-1]} channels; save it as a PNG of one channel")
    if values.shape[::-1] != size:
        raise ImageError(
            f"the mask {str(row.mask)!r} has {values.shape[1]}×{values.shape[0]} pixels and its picture {size[0]}×{size[1]}; "
            "give one for every pixel"
        )
    return np.isin(values, row.values) if row.values else values.astype(bool)
