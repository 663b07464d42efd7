"""The engine of one machine: it explains the items of a source part by part, and goes on where an earlier run stopped."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from relume.datasets.engines import Engine, Progress, Report
from relume.datasets.loading import ahead
from relume.datasets.manifest import items
from relume.datasets.store import ids_of, others, parts, tidied, write_part
from relume.errors import InputError

__all__ = ["Local", "local"]


@contextmanager
def local(
    _model: object, _source: object, *, address: str | None, actors: int | None, **_options: Any
) -> Iterator[type[Local]]:
    """Give the engine of this process, which needs nothing.

    Raises:
        InputError: it is asked for what a cluster has.
    """
    if address is not None or actors is not None:
        raise InputError("an address and actors are those of a cluster; leave them out, or run it on ray")
    yield Local


@dataclass
class Local(Engine):
    """The parts that this process is to make."""

    @property
    def numbers(self) -> range:
        """The parts of the shard."""
        return range(self.shard[0] - 1, math.ceil(len(self.manifest) / self.part_size), self.shard[1])

    @functools.cached_property
    def pending(self) -> list[int]:
        """The parts of the shard that are missing, or not whole."""
        there = [part for part in parts(self.folder).items() if part[0] in self.numbers]
        with ahead(self._is_whole, there, self.folder.at_once, self.folder.at_once) as whole:
            done = {number for (number, _), is_whole in zip(there, whole, strict=True) if is_whole}
        return [number for number in self.numbers if number not in done and len(self._rows(number))]

    def _is_whole(self, part: tuple[int, str]) -> bool:
        """Tell whether a part can be read and has the rows of its items."""
        number, name = part
        same: bool = ids_of(self.folder, name) == self._rows(number)["id"].to_pylist()
        return same

    @functools.cached_property
    def own(self) -> pa.ChunkedArray | None:
        """For each item, True unless another engine has written its row; None if there is no such row."""
        names = others(self.folder)
        elsewhere = pa.array(tidied(self.folder, names) if names else [], pa.string())
        return pc.invert(pc.is_in(self.manifest["id"], elsewhere)) if len(elsewhere) else None

    def _rows(self, number: int) -> pa.Table:
        """Return the items whose rows the part holds."""
        items = self._range(self.manifest, number)
        return items if self.own is None else items.filter(self._range(self.own, number))

    def _range(self, of_items: Any, number: int) -> Any:
        """Cut the range of a part out of the items, or out of a value for each item."""
        return of_items.slice(number * self.part_size, self.part_size)

    def waiting(self) -> pa.Table:
        """Return the items of the first part that is to be made."""
        return self._rows(self.pending[0]) if self.pending else self.manifest.slice(0, 0)

    def carry_out(self, report: Report) -> None:
        """Make the parts that are missing, and report after each batch."""
        pending = {*self.pending}
        total = sum(len(self._range(self.manifest, number)) for number in self.numbers)
        done, errors = total - sum(len(self._rows(number)) for number in pending), 0
        report(Progress(done, total, errors, written=True))
        remaining = (item for number in self.pending for item in items(self._rows(number)))
        with ahead(self.load, remaining, self.loaders, 2 * max(self.batch_size, self.loaders)) as loaded:
            for number in self.pending:
                part = list[pa.Table]()
                for table in self.rows(loaded, len(self._rows(number))):
                    part.append(table)
                    done += len(table)
                    errors += len(table) - table["error"].null_count
                    report(Progress(done, total, errors, written=False))
                write_part(self.folder, number, pa.concat_tables(part))
                report(Progress(done, total, errors, written=True))
