"""Data sets of the library datasets on disk, as its ``save_to_disk`` writes them: Arrow files, which pyarrow reads alone."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from relume.datasets.contents import read_content
from relume.datasets.manifest import manifest_of
from relume.datasets.source import Item, Source
from relume.errors import ImageError, InputError
from relume.models.photos import read_photo
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["Saved", "open_arrow"]


@dataclass(frozen=True)
class Saved(Source):
    """The rows of a data set on disk that have a picture.

    Attributes:
        spec: its folder, as it was written.
        folder: its folder.
        column: its first column of pictures.
        label: its first column of classes, or else the one called ``label``; None if it has neither.
        classes: the names of the classes; empty if they have none.
    """

    spec: str
    folder: str
    column: str
    label: str | None
    classes: tuple[str, ...]

    def manifest(self) -> pa.Table:
        """List the rows by their numbers, which are in the column ``row``.

        Raises:
            InputError: there is none.
        """
        return manifest_of(self._rows(), [pa.field("row", pa.int64())], empty=f"the data set {self.spec!r} has no rows")

    def _rows(self) -> Iterator[Item]:
        table = _table(self.folder)
        for row in range(len(table)):
            value = None if self.label is None else table[self.label][row].as_py()
            if self.classes and value is not None:  # -1 is a class that nobody knows
                value = self.classes[value] if 0 <= value < len(self.classes) else None
            yield {"id": str(row), "row": row, "label": None if value is None else str(value)}

    def read(self, item: Item) -> Photo | Recording:
        """Read the picture of a row.

        Raises:
            ImageError: it cannot be read or used.
        """
        place = f"row {item['row']} of {self.spec!r}"
        try:
            cell = _table(self.folder)[self.column][item["row"]].as_py() or {}
        except (OSError, IndexError, KeyError, pa.ArrowException) as error:
            raise ImageError(f"{place} cannot be read: {first_line(error)}; check the data set") from error
        if cell.get("bytes"):
            return read_content(place, cell["bytes"])
        if cell.get("path"):
            return read_photo(cell["path"])
        raise ImageError(f"{place} has no picture in column {self.column}; fill it in, or leave the row out")


@functools.lru_cache(maxsize=8)
def _table(folder: str) -> pa.Table:
    """Map the rows of a data set into memory, once in each process; they are read from disk when they are needed."""
    files = [file["filename"] for file in _json(folder, "state.json")["_data_files"]]
    return pa.concat_tables(pa.ipc.open_stream(pa.memory_map(f"{folder}/{name}")).read_all() for name in files)


def _json(folder: str, name: str) -> Any:
    return json.loads(Path(folder, name).read_text(encoding="utf-8"))


def _of_type(features: Mapping[str, Any], kind: str) -> str | None:
    """Return the name of the first column of a type."""
    return next(
        (name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == kind), None
    )


def open_arrow(spec: str) -> Source:
    """Open a data set on disk.

    Raises:
        InputError: it is no such folder, holds several splits, cannot be read, or has no column of pictures.
    """
    folder = os.path.abspath(spec)  # noqa: PTH100 - resolve() would follow links
    try:
        if Path(folder, "dataset_dict.json").is_file():
            splits = ", ".join(f"{spec}/{name}" for name in _json(folder, "dataset_dict.json")["splits"])
            raise InputError(f"the data set {spec!r} has several splits; name one: {splits}")
        features = _json(folder, "dataset_info.json")["features"]
        _table(folder)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{spec!r} is no data set that save_to_disk wrote, or is damaged: {first_line(error)}; write it again"
        ) from error
    column, label = _of_type(features, "Image"), _of_type(features, "ClassLabel")
    if label is None and "label" in features:
        label = "label"
    classes = features[label].get("names", ()) if label and isinstance(features[label], dict) else ()
    if column is None:
        raise InputError(f"the data set {spec!r} has no column of pictures; it has {', '.join(features)}: cast one to Image")
    return Saved(spec, folder, column, label, tuple(classes))
