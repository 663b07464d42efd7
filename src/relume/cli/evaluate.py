"""``relume evaluate``: which method's maps show what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from relume.cli import common
from relume.cli.common import complain, out, running
from relume.cli.failures import uninterrupted
from relume.cli.network import Network
from relume.cli.photos import Failures
from relume.errors import InputError

if TYPE_CHECKING:
    from relume.evaluation import Evaluation, Sample

__all__ = ["EXAMPLES", "evaluate"]

#: The width of a measure with its interval, such as ``−0.20 ±0.07``.
CELL = 11

T = TypeVar("T")

EXAMPLES = """Examples:

  relume evaluate --scenes 100

  relume evaluate --output evaluation

  relume evaluate --model torchvision:resnet50 --data pictures --output evaluation
"""


@common.expanded
def evaluate(
    scenes: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, help="How many drawn scenes of two classes or more. [default: 500]"),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Draw other scenes, and other random baselines.")] = 0,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Your photos instead, with masks listed in masks.csv there; or mosaics:FOLDER, photos without masks.",
        ),
    ] = None,
    *,
    network: Network,
    method: Annotated[list[str] | None, common.method_option("all")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write evaluation.json, .md and .png. [default: not written]")
    ] = None,
) -> None:
    """Measure each method's maps against the truth.

    The truth is that of drawn scenes, or the masks of photos of yours. It measures class discrimination, resolution and noise.
    """
    import relume
    from relume.evaluation import open_samples
    from relume.pages.folder import check_writable

    if output is not None:
        check_writable(output)
    keys = common.method_keys(method, "all")
    if data is not None and scenes is not None:
        raise InputError("--scenes are drawn and --data are photos of yours; give one of the two")
    opened = network.open(photos=data is not None)
    if network.labels is not None:
        opened.check_labels()
    spec = f"scenes:{scenes or 500}" if data is None else data
    samples = open_samples(spec, opened, seed)
    failures = Failures(lambda photo: opened.explain(photo, None, keys, network.layer, evidence=None))

    def skip(sample: Sample | None, error: Exception) -> str:
        return failures.add(error, None if sample is None else Path(sample.name))

    try:
        with common.tracked("evaluating", samples, len(samples)) as steps:
            counted, about = _counted(steps, failures), {"data": spec}
            evaluation = relume.evaluate(opened, counted, keys, network.layer, seed=seed, skip=skip, provenance=about)
    except InputError:
        if failures.failed < len(samples):
            raise
        complain(f"none of {len(samples)} photos could be used")
        raise typer.Exit(1) from None
    _show(evaluation)
    if output is not None:
        with uninterrupted():
            evaluation.save(output)
            running.stopped = f"stopped; the results are in {str(output)!r}"
        out.print(Text.assemble(("\n→ ", "green"), (str(output), "green")))
    raise typer.Exit(failures.end(len(samples), "photos could not be used"))


def _counted(items: Iterable[T], failures: Failures) -> Iterator[T]:
    """Yield the items, and count as done those during which nothing failed."""
    for item in items:
        failed = failures.failed
        yield item
        failures.done += failures.failed == failed


def _show(evaluation: Evaluation) -> None:
    """Print the tables: a row for each map, a column for each measure."""
    for group, columns in evaluation.groups.items():
        table = Table(title=group, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("", no_wrap=True)
        for column in columns.values():
            table.add_column(str(column), justify="right", min_width=CELL)
        for key, estimates in evaluation.rows.items():
            cells = (estimates[column].brief() for column in columns)
            table.add_row(evaluation.titles[key], *cells, style="" if key in evaluation.methods else "dim")
        out.print(table, "")
    for note in evaluation.notes:
        out.print(Text(note, style="dim"))
