"""``relume run``: explains a whole data set into a folder of Parquet files, and goes on after anything."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from relume.cli import common
from relume.cli.calibrations import Belief
from relume.cli.common import complain, err, out, running
from relume.cli.failures import uninterrupted
from relume.cli.network import Network
from relume.cli.options import METHODS, Asked
from relume.errors import InputError, TargetError

if TYPE_CHECKING:
    from relume.datasets.engines import Progress, RunOptions
    from relume.datasets.request import Store
    from relume.datasets.store import Run

__all__ = ["EXAMPLES", "run"]

EXAMPLES = """Examples:

  relume run photos --model torchvision:resnet50 --output RUN

  relume run photos --model torchvision:resnet50 --output RUN --shard 1/4

  relume run s3://bucket/photos --model torchvision:resnet50 --output s3://bucket/RUN --on ray --address auto

  relume run validation.csv --model timm:resnet18 --method gradcam --store maps --target-column label --output RUN
"""

#: Seconds between two lines about the progress where there is no terminal.
INTERVAL = 10


@common.expanded
def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Pictures: a folder, glob, tree:FOLDER, CSV or Parquet list, tars, or saved data set; or a URL of these.",
        ),
    ],
    *,
    output: Annotated[str, typer.Option(metavar="RUN", help="Folder or URL of the run; a run that was begun there goes on.")],
    network: Network,
    belief: Belief,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Class to explain, by index or name. [default: the predicted class]")
    ] = None,
    target_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of the source with the class to explain in each picture, such as label."),
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(metavar="KIND:ARGS", help="Something else than a class, as for relume explain: contrast:243:nearest3."),
    ] = None,
    asked: Asked,
    store: Annotated[
        str,
        typer.Option(
            metavar="WHICH", help="What is kept of maps as large as the input: facts, nothing; saliency; or maps, signed."
        ),
    ] = "saliency",
    exact: Annotated[bool, typer.Option("--exact", help="Keep maps in float32, and not in codes of 8 bits.")] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="Explain the first pictures only. [default: all]")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Do every N-th part from the I-th on; other processes do the rest, into the same folder."
        ),
    ] = None,
    on: Annotated[
        str, typer.Option(metavar="ENGINE", help="Who does the work: local, this process; or ray, a cluster of Ray.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the cluster's head node, or auto. [default: RAY_ADDRESS, or a cluster begun on this machine]",
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            help="Processes of the cluster that explain at once. [default: one for each GPU, or else each spare CPU]",
        ),
    ] = None,
    loaders: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=0, help="Threads that read and prepare pictures. [default: up to 4]")
    ] = None,
) -> None:
    """Explain every picture of a data set into Parquet files.

    A row has the scores, checks, maps and thumbnails of a picture. If a run was stopped, by anything, the same command goes on
    with it. The network is always prepared, if it can be. Needs pip install 'relume[run]'.
    """
    try:
        from relume.datasets.columns import maps_of
        from relume.datasets.engines import run
        from relume.datasets.loading import DEFAULT_LOADERS
        from relume.datasets.storage import storage_of
    except ImportError as error:  # pyarrow is an extra
        raise InputError(str(error)) from error
    storage_of(output).check()
    part = _shard(shard)
    methods, preparing = asked.methods(METHODS), network.preparing
    opened = belief.calibrated(network.open(prepared=False))
    wanted, *more = common.targets_of(target and [target], ask and [ask], opened)
    if more:
        raise TargetError(
            f"a run explains one thing of each picture, and {1 + len(more)} were given; give --target or --ask, once"
        )
    with ExitStack() as held, _shown() as show:

        def progress(state: Progress) -> None:
            show(state)
            if state.written:
                go_on = "; the same command goes on from there" if state.done < state.total else ""
                running.stopped = f"stopped after {state.done} of {state.total} rows, which are whole{go_on}"
                held.close()  # an interruption is heeded here
                if state.done < state.total and on == "local":
                    held.enter_context(uninterrupted("finishing the part that was begun; interrupt again to lose it"))

        finished = run(
            opened,
            source,
            output,
            methods=methods,
            target=wanted,
            target_column=target_column,
            layer=network.layer,
            store=cast("Store", store),
            exact=exact,
            limit=limit,
            shard=part,
            on=on,
            address=address,
            actors=actors,
            loaders=DEFAULT_LOADERS if loaders is None else loaders,
            preparing=preparing,
            progress=progress,
            **cast("RunOptions", asked.options),
        )
    table = finished.table(["id", "error"])
    _say_empty(finished, maps_of(table.schema))
    failed = table.filter(table["error"].is_valid())
    out.print(Text.assemble(f"{len(table)} of {len(finished.manifest)} rows  → ", (output, "green")))
    if failed:
        first = failed.slice(0, 1).to_pylist()[0]
        complain(f"{len(failed)} of {len(table)} rows have an error, such as {first['id']!r}: {first['error']}")
    raise typer.Exit(1 if failed else 0)


def _say_empty(run: Run, maps: Mapping[str, Any]) -> None:
    """Say which methods gave empty maps alone, and why."""
    rows = run.table(["error", *(f"{key}_empty" for key in maps)])
    rows = rows.filter(rows["error"].is_null())
    for key, of_map in maps.items():
        if len(rows) and all(rows[f"{key}_empty"].to_pylist()):
            remark = next(row[f"{key}_remark"] for row in run.rows(["id", "error", f"{key}_remark"]) if row["error"] is None)
            complain(f"every map of {of_map['title']} is empty: {remark}")


def _shard(text: str | None) -> tuple[int, int]:
    """Read ``--shard``."""
    if text is None:
        return 1, 1
    numbers = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if numbers is None:
        raise InputError(f"--shard is I/N, such as 1/4 to 4/4; got {text!r}")
    return int(numbers[1]), int(numbers[2])


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Show the progress: as a bar on a terminal, else in a line every ten seconds."""
    first: tuple[float, int] | None = None  # when it began, and with how many rows
    last = time.monotonic()
    columns = BarColumn(), TextColumn("{task.description}")
    with Bar(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(state: Progress) -> None:
            nonlocal first, last
            now = time.monotonic()
            first = first or (now, state.done)
            words = _words(state, state.done - first[1], now - first[0])
            bar.update(task, completed=state.done, total=state.total, description=words)
            if not err.is_terminal and now - last >= INTERVAL:
                last = now
                err.print(Text(words, style="dim"))

        yield show


def _words(state: Progress, done: int, seconds: float) -> str:
    """Say how far a run is, of which ``done`` rows took so many seconds."""
    words = f"{state.done} of {state.total} rows"
    if done and seconds:
        left = (state.total - state.done) * seconds / done
        words += f", {done / seconds:.1f} a second, {_time(left)} left"
    return words + (f", {state.errors} with an error" if state.errors else "")


def _time(seconds: float) -> str:
    """Return a time to two parts, such as ``2 h 05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
