"""``relume report``: what a run says as a whole, and what changed from another."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from relume.cli import common
from relume.cli.common import complain, err, out, running
from relume.cli.failures import uninterrupted
from relume.errors import InputError
from relume.text import decimal

if TYPE_CHECKING:
    from relume.datasets.report.report import RunReport

__all__ = ["EXAMPLES", "report"]

EXAMPLES = """Examples:

  relume report RUN

  relume report RUN --against BEFORE --fail-if "moved>0.2" --fail-if "accuracy_drop>0.01"
"""


@common.expanded
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of the run, finished or not, or its URL.")],
    *,
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where index.html, summary.csv and suspects.parquet go. [default: RUN/report]"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="An earlier run of the same pictures: show what changed since."),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help='Exit with code 3 if the run meets it, such as "errors>0.01". May be repeated.'),
    ] = None,
    no_shortcuts: Annotated[
        bool, typer.Option("--no-shortcuts", help="Leave out the search for repeated patches, which runs the network.")
    ] = False,
) -> None:
    """Show what a run says as a whole, on a page.

    The page, index.html, shows classes, unusual and wrong pictures, repeated patches, and what changed from another run. It is
    one file and needs no internet.
    """
    try:
        from relume.datasets.report.figures import conditions_of
        from relume.datasets.report.report import PAGE, RunReport
        from relume.datasets.storage import joined, storage_of
        from relume.datasets.store import Run
    except ImportError as error:  # pyarrow is an extra
        raise InputError(str(error)) from error
    conditions = conditions_of(fail_if or [], compared=against is not None, shortcuts=not no_shortcuts)
    opened, other = Run.load(run), None if against is None else Run.load(against)
    place = joined(run, "report") if output is None else output
    storage_of(place).check()
    with err.status("reading the rows") if err.is_terminal else nullcontext():
        made = RunReport.of(opened, other, shortcuts=not no_shortcuts)
    with uninterrupted():
        page = made.save(place)
        running.stopped = f"stopped; the report is in {place!r}"
    _show(made)
    size = len(made.files[PAGE]) / 1e6
    out.print(Text.assemble(("→ ", "green"), (str(page), "bold green"), f"  open it in a browser ({size:.1f} MB)"))
    broken = made.broken(conditions)
    for line in broken:
        complain(line)
    raise typer.Exit(3 if broken else 0)


def _show(made: RunReport) -> None:
    """Print the figures, each with its meaning, and what is left out."""
    from relume.datasets.report.figures import FIGURES

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for name, value in made.figures.items():
        table.add_row(name, f"{value:.0f}" if name == "suspects" else decimal(value), FIGURES[name].meaning)
    out.print(table, "", sep="\n")
    for note in made.notes:
        err.print(Text(f"relume: {note}", style="dim"))
