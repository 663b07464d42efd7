"""The command: measure or read a record, and write it as JSON, Markdown and figure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, cast

import matplotlib as mpl
import torch
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

from benchmarks.performance.figure import draw
from benchmarks.performance.plan import FULL, QUICK, carry_out
from benchmarks.performance.record import Record
from benchmarks.performance.report import insert, markdown


def write(record: Record, output: Path) -> list[Path]:
    """Write the record, and the tables and the figure of it, into the folder ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    stored, page = output / "performance.json", output / "performance.md"
    stored.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(markdown(record), encoding="utf-8")
    figure, png, svg = draw(record), output / "performance.png", output / "performance.svg"
    figure.savefig(png, dpi=150)
    with mpl.rc_context({"svg.hashsalt": "relume"}):  # the same record makes the same file
        figure.savefig(svg, metadata={"Date": None})
    return [stored, page, png, svg]


def main(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two networks and few rounds: the whole pipeline in two minutes.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; CUDA where there is one.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that compute; one for each core.")] = None,
    output: Annotated[Path, typer.Option(help="The folder for JSON, Markdown and figure.")] = Path("out/bench"),
    stored: Annotated[Path | None, typer.Option("--from", help="Draw this JSON again, and measure nothing.")] = None,
    docs: Annotated[Path | None, typer.Option(help="Put the tables between the marks of this page too.")] = None,
) -> None:
    """Relume against Captum, pytorch-grad-cam and zennit."""
    if stored is not None:
        record = cast("Record", json.loads(stored.read_text(encoding="utf-8")))
    else:
        torch.set_num_threads(threads or os.cpu_count() or 1)
        plan = QUICK if quick else FULL
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        columns = (SpinnerColumn(), *Progress.get_default_columns()[:3], TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            whole = progress.add_task("", total=1 + len(plan.memory) + len(plan.cases))

            def tell(what: str) -> None:
                progress.update(whole, description=what)
                progress.console.print(what)
                progress.advance(whole)

            record = carry_out(plan, chosen, tell)
    written = write(record, output)
    if docs is not None:
        docs.write_text(insert(docs.read_text(encoding="utf-8"), markdown(record)), encoding="utf-8")
        written.append(docs)
    for path in written:
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
