"""The report of a run: its measures, and its files."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relume.datasets.report.changes import Changes
from relume.datasets.report.classes import ClassSums, Totals
from relume.datasets.report.facts import CHECKS, Rows
from relume.datasets.report.page import report_page
from relume.datasets.report.pictures import Chosen
from relume.datasets.shortcuts import Suspects, find_suspects, write_suspects
from relume.datasets.storage import is_url, joined, storage_of
from relume.pages.folder import write_folder
from relume.text import encoded

if TYPE_CHECKING:
    from relume.auditing.fail_if import Condition
    from relume.datasets.source import Source
    from relume.datasets.store import Run
    from relume.models.opened import Opened

__all__ = ["PAGE", "RunReport"]

#: The file of the page.
PAGE = "index.html"


@dataclass(frozen=True, slots=True, eq=False)
class RunReport:
    """What a report says.

    Attributes:
        figures: the measures of :data:`relume.datasets.report.figures.FIGURES` that the run has.
        files: ``index.html``, ``summary.csv`` and ``suspects.parquet``.
        notes: what is left out of it, and why.
    """

    figures: Mapping[str, float]
    files: Mapping[str, bytes]
    notes: Sequence[str]

    @classmethod
    def of(
        cls,
        run: Run,
        against: Run | None = None,
        *,
        opened: Opened | None = None,
        source: Source | None = None,
        shortcuts: bool = True,
    ) -> RunReport:
        """Make the report of a run, as :meth:`relume.Run.report` does, without writing it.

        Raises:
            InputError: there is no row yet, a part is damaged, or the runs cannot be compared.
        """
        rows = Rows(run)
        totals = Totals(rows)
        changes = None if against is None else Changes(rows, Rows(against, like=rows))
        chosen = Chosen(rows, totals, changes)
        nothing = Suspects(left_out=("the search was left out on request",))
        suspects = find_suspects(run, opened, source) if shortcuts else nothing
        figures = {"suspects": float(sum(s.flagged for s in suspects.same_place))} if suspects.pictures else {}
        figures |= _figures(totals, rows, changes)
        notes = _notes(rows, totals, changes)
        page = report_page(rows, totals, changes, chosen, suspects, figures, notes)
        files = {"summary.csv": _summary(rows, totals, changes), "suspects.parquet": _parquet(suspects)}
        if shortcuts and not suspects.pictures:  # the page has a section for this
            notes = [*notes, f"repeated patches were not searched for: {'; '.join(suspects.left_out)}"]
        return cls(figures, files | {PAGE: encoded(page)}, notes)

    def broken(self, conditions: Sequence[Condition]) -> list[str]:
        """Say which conditions are met; one on a measure that the run lacks is met too, since it could not be judged."""
        met = [condition.broken(self.figures) for condition in conditions]
        return [words for words in met if words is not None]

    def save(self, place: str | Path) -> str | Path:
        """Write the files into a folder, all or none, or one by one to a URL, and return the page.

        Raises:
            OutputError: they cannot be written.
        """
        if not is_url(str(place)):
            return write_folder(Path(place), self.files) / PAGE
        for name, content in self.files.items():
            storage_of(place).put(name, content)
        return joined(str(place), PAGE)


def _figures(totals: Totals, rows: Rows, changes: Changes | None) -> dict[str, float]:
    """Return the measures that can be known."""
    empty = [share for key in rows.maps if (share := totals.share_empty(key)) is not None]
    figures = {
        "errors": totals.failed / totals.count,
        "empty": max(empty, default=None),
        "accuracy": totals.right / totals.judged if totals.judged else None,
        "inside": totals.mean_inside(rows.main) if rows.main else None,
        **({} if changes is None else changes.figures()),
    }
    return {name: value for name, value in figures.items() if value is not None}


def _notes(rows: Rows, totals: Totals, changes: Changes | None) -> list[str]:
    """Say what the report leaves out, and why."""
    notes, run = list[str](), rows.run
    total = len(run.manifest)
    if totals.count < total:
        notes.append(f"the run is not finished: this is about the {totals.count:,} of {total:,} pictures that have a row")
    if without := [m.title for m in rows.maps.values() if m.column is None]:
        notes.append(
            f"maps of {' and '.join(without)} are not kept (store='facts'), so that nothing is said of where they point; "
            "run it with store='saliency' for that"
        )
    if rows.main is None:
        notes.append("no map is kept at all, so that there is no usual map of a class and no unusual picture")
    if not totals.labelled:
        notes.append("the pictures have no labels, so that nothing is said of right and wrong predictions")
    elif not totals.judged and totals.count > totals.failed:
        notes.append("no label is a class of the network, so that nothing is said of right and wrong predictions")
    if totals.count > totals.failed and not any(any(totals.spread((key, check))) for key in rows.maps for check in CHECKS):
        notes.append("no quick checks were made, so that their spread is left out")
    if changes is not None and changes.only_here:
        notes.append(f"{changes.only_here:,} explained pictures are not in the other run, and are left out of the comparison")
    return notes


# --- Files ---------------------------------------------------------------------------------------------------------------


def _summary(rows: Rows, totals: Totals, changes: Changes | None) -> bytes:
    """Write a line for each class, as CSV; a cell is empty where the run does not know."""
    lines = [_line(rows, totals.classes[name], changes) for name in sorted(totals.classes)]
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, [*lines[0]] if lines else ["class"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return encoded(sheet.getvalue())


def _line(rows: Rows, sums: ClassSums, changes: Changes | None) -> dict[str, object]:
    line: dict[str, object] = {"class": sums.name, "pictures": sums.count, "labelled": sums.labelled, "accuracy": sums.accuracy}
    for key in rows.maps:
        line[f"{key}_empty"] = sums.empty[key] / sums.count if sums.count else None
        for check in CHECKS:
            line[f"{key}_{check}"] = sums.checks[key, check].values
        line[f"{key}_inside"] = sums.inside[key].values
    if changes is not None:
        change = changes.classes.get(sums.name)
        line |= {"compared": 0, "changed": None, "moved": None}
        if change is not None:
            moved = None if math.isnan(change.moved) else change.moved
            line |= {"compared": change.count, "changed": change.changed, "moved": moved}
    return line


def _parquet(suspects: Suspects) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_suspects(suspects, Path(folder, "suspects.parquet")).read_bytes()
