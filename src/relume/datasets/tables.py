"""Lists of pictures: tables in CSV or Parquet with a column ``path``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from relume.datasets.manifest import items, manifest_of
from relume.datasets.source import MANIFEST, Item, Source
from relume.errors import ImageError, InputError
from relume.models.photos import read_photo
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["Listed", "open_table"]


@dataclass(frozen=True)
class Listed(Source):
    """The pictures that a table lists, in its order.

    Attributes:
        spec: the file, as it was written. Paths in it are relative to its folder.
        file: its path.
    """

    spec: str
    file: Path

    def manifest(self) -> pa.Table:
        """List the pictures by the ids of the table, or by their paths as they are written there.

        Raises:
            InputError: the table cannot be read, has no column ``path``, is empty, or an id is missing or comes twice.
        """
        try:
            table = _read_csv(self.file) if self.file.suffix.lower() == ".csv" else parquet.read_table(self.file)
            table = _texts(table, self.spec)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"the list {self.spec!r} cannot be read: {first_line(error)}; check the file") from error
        return manifest_of(self._rows(table), empty=f"the list {self.spec!r} has no rows")

    def _rows(self, table: pa.Table) -> Iterator[Item]:
        for item in items(table):
            files = {name: str(self.file.parent / item[name]) for name in ("path", "mask") if item.get(name)}
            yield {"id": item["path"], **item, **files}

    def read(self, item: Item) -> Photo | Recording:
        """Read a picture by its path.

        Raises:
            ImageError: it has none, or cannot be read.
        """
        if item["path"] is None:
            raise ImageError(f"the list {self.spec!r} has no path in the row of {item['id']!r}; fill it in")
        return read_photo(item["path"])


def _read_csv(file: Path) -> pa.Table:
    """Read a table of strings; empty ones are null."""
    parsing = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(file, parse_options=parsing) as head:
        texts = dict.fromkeys(head.schema.names, pa.string())
    empty = csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""])
    return csv.read_csv(file, parse_options=parsing, convert_options=empty)


def _texts(table: pa.Table, spec: str) -> pa.Table:
    """Take the columns of a manifest, as strings without space around them.

    Raises:
        InputError: there is no ``path``, or a column comes twice.
    """
    names = [name.strip().casefold() for name in table.column_names]
    if "path" not in names:
        raise InputError(f"the list {spec!r} has no column path; it has {', '.join(names)}, so rename one or add it")
    columns = [name for name in MANIFEST.names if name in names]
    if several := [name for name in columns if names.count(name) > 1]:
        raise InputError(f"the list {spec!r} has several columns {several[0]}; leave one")
    texts = [pc.utf8_trim_whitespace(table.column(names.index(name)).cast(pa.string())) for name in columns]
    return pa.table(texts, columns)


def open_table(spec: str) -> Source:
    """Open a list of pictures."""
    return Listed(spec, Path(os.path.abspath(spec)))  # noqa: PTH100 - resolve() would follow links, and its folder be another
