"""``relume calibrate``: which methods point at the right thing on this network, measured in mosaics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from relume.cli import common
from relume.cli.calibrations import remember
from relume.cli.common import err, out, running
from relume.cli.failures import uninterrupted
from relume.cli.network import Network
from relume.cli.options import METHODS
from relume.text import printable

if TYPE_CHECKING:
    from relume.explanation import Calibration

__all__ = ["EXAMPLES", "calibrate"]

#: The measures and the heads of their columns; all but two are there only where they could be made.
MEASURES = {"mass": "right cell", "heaviest": "heaviest", "focus": "Focus", "dipart": "DiPart", "difull": "DiFull"}

#: The least width of a cell, so that an interval stays whole where the terminal is narrow.
CELL = 10

EXAMPLES = """Examples:

  relume calibrate photos --model torchvision:resnet50 --activation softmax --output CALIBRATION

  relume calibrate scenes:100 --output CALIBRATION
"""


@common.expanded
def calibrate(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTOS", help="Folders of photographs, or files; or scenes:NUMBER, drawn scenes for the demo network."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where calibration.json and index.html go.")],
    network: Network,
    method: Annotated[list[str] | None, common.method_option(METHODS)] = None,
    mosaics: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="How many mosaics, at most.")] = 25,
    grid: Annotated[int, typer.Option(metavar="NUMBER", min=2, help="How many cells a side of a mosaic has.")] = 2,
    confidence: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help="The least probability of a photograph's predicted class.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Seed of which photographs stand together.")] = 0,
) -> None:
    """Measure which methods point at the right thing on your network.

    It builds mosaics of your photographs, where the right cell is known; it needs no masks and no labels. If it was stopped,
    the same command goes on with it.
    """
    import relume

    keys = common.method_keys(method, METHODS)
    scenes = all(photo.startswith("scenes:") for photo in photos)
    opened = network.open(photos=not scenes)
    running.stopped = "stopped; the same command goes on from there"
    with _shown() as progress:
        calibration = relume.calibrate(
            opened,
            photos[0] if len(photos) == 1 else photos,
            methods=keys,
            layer=network.layer,
            mosaics=mosaics,
            grid=grid,
            confidence=confidence,
            seed=seed,
            output=output,
            progress=progress,
        )
    with uninterrupted():
        running.stopped = f"stopped; the results are in {str(output)!r}"
        copy = remember(calibration)
    _show(calibration)
    out.print(Text.assemble(("→ ", "green"), (str(output / "index.html"), "bold green"), "  open it in a browser"))
    if copy is not None:
        out.print(Text(f"explain, compare, audit and run find a copy in {printable(copy)}", style="dim"))


def _show(calibration: Calibration) -> None:
    """Print a row for each map, the sentence of each method, and what a reader must know."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    measures = {key: title for key, title in MEASURES.items() if any(getattr(s, key) for s in calibration.methods.values())}
    rows = {**calibration.methods, **calibration.baselines}
    table.add_column("", no_wrap=True, min_width=max(len(scores.title) for scores in rows.values()))
    for title in measures.values():
        table.add_column(title, justify="right", no_wrap=True, min_width=CELL)
    for key, scores in rows.items():
        cells = [estimate.brief() if (estimate := getattr(scores, measure)) else "–" for measure in measures]
        table.add_row(scores.title, *cells, style="" if key in calibration.methods else "dim")
    c = calibration
    layer, few = f", layer {c.layer}" if c.layer else "", " (few)" if c.few else ""
    facts = f"{c.mosaics} mosaics{few} of {c.size[1]}×{c.size[0]} pixels{layer}; {c.usable} of {c.given} pictures"
    facts += f" were predicted with a probability of {c.confidence:g} or more"
    out.print(table, "", Text(facts, style="dim"), "", sep="\n")
    for key in calibration.methods:
        out.print(Text(calibration.sentence(key)))
    for note in calibration.notes:
        out.print(Text(note, style="dim"))


@contextmanager
def _shown() -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress as a bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
