"""``relume evaluate``: which method's maps show what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from relume.models.opened import Opened

__all__ = ["EXAMPLES", "evaluate"]

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
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Which scenes, and of what is random.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", readable=False, help="Pictures of yours instead, with masks listed in masks.csv there."),
    ] = None,
    *,
    network: Network,
    method: Annotated[list[str] | None, common.method_option("all")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write evaluation.json, .md and .png. [default: not written]")
    ] = None,
) -> None:
    """Measure each method's maps against ground truth: class discrimination, resolution, noise.

    On drawn scenes whose truth is known, or on pictures of yours with masks.
    """
    from relume.evaluation import evaluate as compare
    from relume.pages.folder import check_writable

    if output is not None:
        check_writable(output)
    keys = common.method_keys(method, "all")
    opened = network.open(photos=data is not None)
    if network.labels is not None:
        opened.check_labels()
    loaders, total = _loaders(data, scenes, seed, opened)
    failures = Failures(lambda photo: opened.explain(photo, None, keys, network.layer, evidence=None))

    def skip(sample: Sample, error: Exception) -> str:
        return failures.add(error, Path(sample.name))

    facts = {**opened.provenance, "data": "drawn scenes" if data is None else str(data)}
    try:
        with common.tracked("evaluating", loaders, total) as steps:
            samples, part = _loaded(steps, failures), opened.output
            evaluation = compare(opened.model, samples, keys, network.layer, output=part, seed=seed, facts=facts, skip=skip)
    except InputError:
        if failures.failed < total:
            raise
        complain(f"none of {total} pictures could be used")
        raise typer.Exit(1) from None
    _show(evaluation)
    if output is not None:
        with uninterrupted():
            evaluation.save(output)
            running.stopped = f"stopped; the results are in {str(output)!r}"
        out.print(Text.assemble(("\n→ ", "green"), (str(output), "green")))
    raise typer.Exit(failures.end(total, "pictures could not be used"))


def _loaders(data: Path | None, scenes: int | None, seed: int, opened: Opened) -> tuple[Iterator[Callable[[], Sample]], int]:
    """What to measure on, and how many of them: pictures of the user's, or drawn scenes."""
    from relume.evaluation import folder_samples, scene_samples

    if data is None:
        total = scenes or 500
        return scene_samples(total, seed, opened), total
    if scenes is not None:
        raise InputError("--scenes are drawn and --data are pictures of yours; give one of the two")
    listed = folder_samples(data, opened)
    return iter(listed), len(listed)


def _loaded(loaders: Iterator[Callable[[], Sample]], failures: Failures) -> Iterator[Sample]:
    """The samples that can be had."""
    for load in loaders:
        try:
            sample = load()
        except Exception as error:  # noqa: BLE001 - each is said
            failures.add(error)
            continue
        failed = failures.failed
        yield sample
        failures.done += failures.failed == failed


def _show(evaluation: Evaluation) -> None:
    """The tables: a row for each map, a column for each measure."""
    for group, columns in evaluation.groups.items():
        table = Table(title=group, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("", no_wrap=True)
        for column in columns.values():
            table.add_column(str(column), justify="right")
        for key, figures in evaluation.rows.items():
            cells = (figures[column].brief() for column in columns)
            table.add_row(evaluation.title(key), *cells, style="" if key in evaluation.methods else "dim")
        out.print(table, "")
    for note in evaluation.notes:
        out.print(Text(note, style="dim"))
