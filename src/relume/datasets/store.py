"""A run on disk: ``run.json``, ``manifest.parquet`` and ``parts/part-NNNNNN.parquet``, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from relume.explanation.result import Explanation

__all__ = ["Run", "clear_unfinished", "parts", "read_record", "write_manifest", "write_part", "write_record"]

#: The files of a run.
RECORD, MANIFEST, PARTS = "run.json", "manifest.parquet", "parts"


def write_record(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """Write ``run.json``, with its ``format``.

    :class:`Run` reads these keys: ``model`` and ``source`` (specs), ``labels``, ``layer``, ``request``
    (:meth:`relume.datasets.request.RunRequest.as_dict`). An engine adds its own.

    Raises:
        OutputError: it cannot be written.
    """
    raise NotImplementedError


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """Read ``run.json``; None if there is none.

    Raises:
        InputError: it is damaged, or of another format.
    """
    raise NotImplementedError


def write_manifest(folder: str | Path, manifest: pa.Table) -> Path:
    """Write ``manifest.parquet``."""
    raise NotImplementedError


def write_part(folder: str | Path, number: int, table: pa.Table) -> Path:
    """Write one part, to a temporary name first; it is on disk when this returns.

    Raises:
        OutputError: it cannot be written, as on a full disk; nothing of it is left.
    """
    raise NotImplementedError


def parts(folder: str | Path) -> dict[int, Path]:
    """List the parts that exist and are whole, by number, in order; one whose footer cannot be read counts as missing."""
    raise NotImplementedError


def clear_unfinished(folder: str | Path) -> None:
    """Remove the temporary files that killed processes left; those of living ones stay."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run on disk, finished or not.

    Attributes:
        folder: where it is.
        record: what ``run.json`` says.
    """

    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Load a run.

        Raises:
            InputError: there is none, or one of another version.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """Count the rows that are there."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row as plain values by column, part by part."""
        raise NotImplementedError

    @property
    def manifest(self) -> pa.Table:
        """All items of the run, explained or not yet."""
        raise NotImplementedError

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows in the manifest's order, with some columns or all."""
        raise NotImplementedError

    def explanation(self, id: str) -> Explanation:  # noqa: A002 - it is the column's name
        """Return the explanation of one item."""
        raise NotImplementedError
