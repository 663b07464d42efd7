"""The engine of one machine: it explains the items of a source part by part, and goes on where an earlier run stopped."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from relume.datasets.engines import Engine, Progress, Report
from relume.datasets.loading import ahead
from relume.datasets.manifest import items
from relume.datasets.rows import Batch, Loaded, Results, at_once, explained, rows_of
from relume.datasets.source import Item
from relume.datasets.store import ids_of, parts, write_part

__all__ = ["Local"]


@dataclass
class Local(Engine):
    """The parts that this process is to make."""

    @property
    def numbers(self) -> range:
        """The parts of the shard."""
        return range(self.shard[0] - 1, math.ceil(len(self.manifest) / self.part_size), self.shard[1])

    @functools.cached_property
    def pending(self) -> list[int]:
        """Those of them that are not there, or not whole."""
        there = parts(self.folder)
        return [number for number in self.numbers if number not in there or not self._is_whole(number, there[number])]

    def _is_whole(self, number: int, part: str) -> bool:
        """Tell whether a part can be read and has the rows of its items."""
        same: bool = ids_of(self.folder, part) == self._rows(number)["id"].to_pylist()
        return same

    def _rows(self, number: int) -> pa.Table:
        return self.manifest.slice(number * self.part_size, self.part_size)

    def waiting(self) -> pa.Table:
        """Return the items of the first part that is to be made."""
        return self._rows(self.pending[0]) if self.pending else self.manifest.slice(0, 0)

    def carry_out(self, report: Report) -> None:
        """Make the parts that are missing, and report after each batch."""
        pending = {*self.pending}
        total = sum(len(self._rows(number)) for number in self.numbers)
        done, errors = total - sum(len(self._rows(number)) for number in pending), 0
        report(Progress(done, total, errors, written=True))
        remaining = (item for number in self.pending for item in items(self._rows(number)))
        with ahead(self.load, remaining, self.loaders, 2 * max(self.batch_size, self.loaders)) as loaded:
            for number in self.pending:
                part, batches = list[pa.Table](), self._explained(loaded, len(self._rows(number)))
                # a thread makes the rows of a batch while the network runs the next
                with ahead(lambda work: rows_of(*work, self.request), batches, min(1, self.loaders), 1) as tables:
                    for table in tables:
                        part.append(table)
                        done += len(table)
                        errors += len(table) - table["error"].null_count
                        report(Progress(done, total, errors, written=False))
                write_part(self.folder, number, pa.concat_tables(part))
                report(Progress(done, total, errors, written=True))

    def _explained(self, loaded: Iterator[tuple[Item, Loaded]], left: int) -> Iterator[tuple[Batch, Results]]:
        """Explain the items of a part in batches, and give all that their rows are made of."""
        while left:
            batch = [*islice(loaded, min(self.batch_size, left))]
            results = explained(self.opened, batch, self.request)
            self.batch_size = at_once(results, self.batch_size)
            left -= len(batch)
            yield batch, results
