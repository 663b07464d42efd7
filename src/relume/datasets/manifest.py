"""Manifests: built from rows that a source yields, checked, and told apart by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from relume.datasets.source import MANIFEST, Item
from relume.errors import InputError
from relume.text import encoded

__all__ = ["check_manifest", "hash_of", "items", "manifest_of"]

#: The number of rows that are Python objects at once.
_ROWS = 4096


def manifest_of(rows: Iterable[Item], others: Iterable[pa.Field] = (), *, empty: str) -> pa.Table:
    """Make a manifest of rows, of which few are Python objects at any time; columns that a row lacks are null.

    Args:
        rows: the items, in the order of the source.
        others: the columns that the source adds to :data:`~relume.datasets.MANIFEST`.
        empty: the sentence that says that there are none.

    Raises:
        InputError: as :func:`check_manifest`.
    """
    schema = pa.schema([*MANIFEST, *others])
    remaining = iter(rows)
    batches = []
    while some := [*islice(remaining, _ROWS)]:
        texts = [{name: _text(value) for name, value in row.items()} for row in some]
        batches.append(pa.RecordBatch.from_pylist(texts, schema=schema.remove_metadata()))
    if not batches:
        raise InputError(f"{empty}; name another source")
    table = pa.Table.from_batches(batches, schema)
    check_manifest(table)
    return table


def _text(value: Any) -> Any:
    """Escape the bytes of a file's name that are no text, which Arrow does not hold."""
    return value if not isinstance(value, str) or value.isascii() else encoded(value).decode()


def items(table: pa.Table) -> Iterator[Item]:
    """Yield the rows of a manifest, of which few are Python objects at any time."""
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield from batch.to_pylist()


def check_manifest(table: pa.Table) -> None:
    """Check that a table is a manifest.

    Raises:
        InputError: it has no rows, lacks a column of :data:`~relume.datasets.MANIFEST` or has it in another type, or an id is
            missing or comes twice.

    Example:
        >>> import pyarrow as pa
        >>> from relume.datasets import MANIFEST, check_manifest
        >>> check_manifest(pa.Table.from_pylist([{"id": "a"}, {"id": "a"}], schema=MANIFEST))
        Traceback (most recent call last):
        relume.errors.InputError: 1 id comes more than once, such as 'a'; give each picture an id of its own
    """
    types = {field.name: field.type for field in table.schema}
    wrong = [field.name for field in MANIFEST if types.get(field.name) != field.type]
    if wrong or len(types) < table.num_columns:
        seen = ", ".join(f"{field.name} ({field.type})" for field in table.schema) or "none"
        raise InputError(f"a manifest has the columns {', '.join(MANIFEST.names)}, once each and of strings; this has {seen}")
    if not table.num_rows:
        raise InputError("the source holds no pictures; name another")
    ids = table["id"]
    if missing := ids.null_count + (pc.sum(pc.equal(ids, "")).as_py() or 0):
        raise InputError(f"{missing} of {len(ids)} pictures {'has' if missing == 1 else 'have'} no id; give each its own")
    if len(ids) == pc.count_distinct(ids).as_py():
        return
    counts = pa.Table.from_struct_array(ids.value_counts())
    several = counts.filter(pc.greater(counts["counts"], 1))["values"]
    examples = ", ".join(map(repr, several[:3].to_pylist()))
    words = "1 id comes" if len(several) == 1 else f"{len(several)} ids come"
    raise InputError(f"{words} more than once, such as {examples}; give each picture an id of its own")


def hash_of(table: pa.Table) -> str:
    """Return a hash of what a manifest says, in hexadecimal digits: of all rows in their order, and all columns.

    Example:
        >>> import pyarrow as pa
        >>> from relume.datasets import MANIFEST, hash_of
        >>> table = pa.Table.from_pylist([{"id": "a"}, {"id": "b"}], schema=MANIFEST)
        >>> hash_of(table)[:8], hash_of(table[:1])[:8]
        ('1558f834', '037ab58d')
    """
    digest = hashlib.sha256()
    for item in items(table):
        digest.update(json.dumps(item, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
