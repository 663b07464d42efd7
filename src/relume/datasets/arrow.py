"""Data sets of the library datasets on disk, as its ``save_to_disk`` writes them: Arrow files, which pyarrow reads alone."""

from __future__ import annotations

import functools
import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from relume.datasets.contents import read_content, read_picture
from relume.datasets.manifest import manifest_of
from relume.datasets.source import Item, Source
from relume.datasets.storage import absolute, is_url, joined, storage_of
from relume.errors import ImageError, InputError
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["Saved", "open_arrow"]

#: The columns by which a row is found again: its file, where the batch begins that holds it, and its number there.
_COLUMNS = [pa.field("file", pa.string()), pa.field("offset", pa.int64()), pa.field("index", pa.int64())]

_LOCK = threading.Lock()


@dataclass(frozen=True)
class Saved(Source):
    """The rows of a data set on disk that have a picture.

    Attributes:
        spec: its folder, as it was written.
        folder: its folder, or the URL of that.
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
        """List the rows by their numbers, with the places of the batches that hold them.

        Raises:
            InputError: there is none.
        """
        return manifest_of(self._rows(), _COLUMNS, empty=f"the data set {self.spec!r} has no rows")

    def _rows(self) -> Iterator[Item]:
        row = itertools.count()
        for file, offset, batch in _batches(self.folder):
            values = [None] * len(batch) if self.label is None else batch[self.label].to_pylist()
            for index, value in enumerate(values):
                if self.classes and value is not None:  # -1 is a class that nobody knows
                    value = self.classes[value] if 0 <= value < len(self.classes) else None  # noqa: PLW2901
                place = {"file": file, "offset": offset, "index": index}
                yield {"id": str(next(row)), "label": None if value is None else str(value)} | place

    def read(self, item: Item) -> Photo | Recording:
        """Read the picture of a row.

        Raises:
            ImageError: it cannot be read or used.
            UnreachableError: the place of the data set does not answer.
        """
        place = f"row {item['id']} of {self.spec!r}"
        try:
            with _LOCK:  # threads that need the same batch read it once
                cell = _batch(joined(self.folder, item["file"]), item["offset"])[self.column][item["index"]].as_py() or {}
        except (OSError, IndexError, KeyError, pa.ArrowException) as error:
            raise ImageError(f"{place} cannot be read: {first_line(error)}; check the data set") from error
        if cell.get("bytes"):
            return read_content(place, cell["bytes"])
        if cell.get("path"):
            return read_picture(cell["path"])
        raise ImageError(f"{place} has no picture in column {self.column}; fill it in, or leave the row out")


@contextmanager
def _stream(place: str) -> Iterator[pa.NativeFile]:
    """Open a file of rows; one of this machine is mapped into memory, and read from disk when a row is needed."""
    if not is_url(place):
        with pa.memory_map(place) as file:
            yield file
        return
    with storage_of(place).open() as file, pa.PythonFile(file, "r") as stream:
        yield stream


def _batches(folder: str) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """Yield the batches of rows, each with its file and its place there."""
    for name in (file["filename"] for file in _json(folder, "state.json")["_data_files"]):
        with _stream(joined(folder, name)) as stream:
            schema, offset = pa.ipc.read_schema(stream), stream.tell()
            while (message := _message(stream)) is not None:
                yield name, offset, pa.ipc.read_record_batch(message, schema)
                offset = stream.tell()


def _message(stream: pa.NativeFile) -> pa.Message | None:
    """Read the next message of a stream; None at its end."""
    try:
        return pa.ipc.read_message(stream)
    except EOFError:
        return None


@functools.lru_cache(maxsize=8)
def _batch(place: str, offset: int) -> pa.RecordBatch:
    """Read the batch of rows that begins at a place of a file."""
    with _stream(place) as stream:
        schema = pa.ipc.read_schema(stream)
        stream.seek(offset)
        return pa.ipc.read_record_batch(pa.ipc.read_message(stream), schema)


def _json(folder: str, name: str) -> Any:
    return json.loads(storage_of(folder).read(name))


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
    folder = absolute(spec)
    try:
        if storage_of(folder).exists("dataset_dict.json"):
            splits = ", ".join(joined(spec, name) for name in _json(folder, "dataset_dict.json")["splits"])
            raise InputError(f"the data set {spec!r} has several splits; name one: {splits}")
        features = _json(folder, "dataset_info.json")["features"]
        next(_batches(folder), None)
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
