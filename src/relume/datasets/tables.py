"""Lists of pictures: tables in CSV or Parquet with a column ``path``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from relume.datasets.contents import read_picture
from relume.datasets.manifest import items, manifest_of
from relume.datasets.source import MANIFEST, Item, Source
from relume.datasets.storage import absolute, is_url, joined, split_url, storage_of
from relume.errors import ImageError, InputError
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["Listed", "open_table"]


@dataclass(frozen=True)
class Listed(Source):
    """The pictures that a table lists, in its order.

    Attributes:
        spec: the file, as it was written. Paths in it are relative to its folder.
        file: its path or URL.
    """

    spec: str
    file: str

    def manifest(self) -> pa.Table:
        """List the pictures by the ids of the table, or by their paths as they are written there.

        Raises:
            InputError: the table cannot be read, has no column ``path``, is empty, or an id is missing or comes twice.
        """
        try:
            table = _texts(_read(self.file), self.spec)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"the list {self.spec!r} cannot be read: {first_line(error)}; check the file") from error
        return manifest_of(self._rows(table), empty=f"the list {self.spec!r} has no rows")

    @property
    def _folder(self) -> str:
        """The folder of the list."""
        if not is_url(self.file):
            return str(Path(self.file).parent)
        protocol, path, outer = split_url(self.file)
        return f"{protocol}{path.rpartition('/')[0]}{outer}"

    def _rows(self, table: pa.Table) -> Iterator[Item]:
        for item in items(table):
            files = {name: joined(self._folder, item[name]) for name in ("path", "mask") if item.get(name)}
            yield {"id": item["path"], **item, **files}

    def read(self, item: Item) -> Photo | Recording:
        """Read a picture by its path or URL.

        Raises:
            ImageError: it has none, or cannot be read.
        """
        if item["path"] is None:
            raise ImageError(f"the list {self.spec!r} has no path in the row of {item['id']!r}; fill it in")
        return read_picture(item["path"])


def _read(file: str) -> pa.Table:
    """Read a table; in CSV all are strings, and empty ones are null."""
    whole = io.BytesIO(storage_of(file).read()) if is_url(file) else file
    if not file.lower().endswith(".csv"):
        return parquet.read_table(whole)
    parsing = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(whole, parse_options=parsing) as head:
        texts = dict.fromkeys(head.schema.names, pa.string())
    if not isinstance(whole, str):
        whole.seek(0)
    empty = csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""])
    return csv.read_csv(whole, parse_options=parsing, convert_options=empty)


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
    return Listed(spec, absolute(spec))
