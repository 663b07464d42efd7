"""How a prepared network does on another batch than its example: `python -m benchmarks.packing [--docs docs/performance.md]`.

Guided backpropagation by a network prepared with an example of another size, over the same by one prepared with that very size.
All run in each round, in an order drawn anew, after a round that is not timed, in which each size is packed; so a ratio is of
two runs side by side, and the quartiles are those of the rounds' ratios. ResNet-50 at 224 with random weights takes two minutes
on two cores; `--network resnet18` or fewer `--rounds` take less.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import relume
from benchmarks.performance.report import insert
from benchmarks.performance.timing import Pace, interleave
from relume.models.libraries import import_torchvision

MARKS = "<!-- measured: python -m benchmarks.packing writes what follows -->\n", "<!-- end of what it measured -->"

#: Each ratio: how it is said, the run, and what it is held against.
RATIOS = {
    "prepared with 1 image, 8 at once": ("1 for 8", "8 for 8"),
    "prepared with 8 images, 1 alone": ("8 for 1", "1 for 1"),
    "prepared with 8 images, 8 in chunks of 3 (3 + 3 + 2)": ("8 for 3 + 3 + 2", "3 and 2 for 3 + 3 + 2"),
}


def runs_of(model: nn.Module, images: Tensor) -> dict[str, Callable[[], object]]:
    """Return the calls to time, by name: `a for b` is prepared with `a` images and explains `b` of the eight."""
    prepared = {count: relume.prepare(model, images[:count]) for count in (1, 2, 3, 8)}
    # not those that other sizes are asked of: what these have packed must be of their one size
    foreign = {count: relume.prepare(model, images[:count]) for count in (1, 8)}
    chunked = relume.prepare(model, images)

    def guided(network: nn.Module, *parts: Tensor, batch_size: int | None = None) -> object:
        return [relume.explain(network, part, 0, ["guided_backprop"], evidence=None, batch_size=batch_size) for part in parts]

    return {
        "8 for 8": lambda: guided(prepared[8], images),
        "1 for 8": lambda: guided(foreign[1], images),
        "1 for 1": lambda: guided(prepared[1], images[:1]),
        "8 for 1": lambda: guided(foreign[8], images[:1]),
        "3 and 2 for 3 + 3 + 2": lambda: (guided(prepared[3], images[:3], images[3:6]), guided(prepared[2], images[6:])),
        "8 for 3 + 3 + 2": lambda: guided(chunked, images, batch_size=3),
    }


def table(samples: Mapping[str, Sequence[float]]) -> str:
    """Return the ratios of each round's runs: medians, with quartiles."""
    rows = ["| | ms | over a network prepared for it (quartiles) |", "|---|---|---|"]
    for name, (run, against) in RATIOS.items():
        low, middle, high = statistics.quantiles(
            [one / other for one, other in zip(samples[run], samples[against], strict=True)], n=4, method="inclusive"
        )
        rows.append(f"| {name} | {1000 * statistics.median(samples[run]):.0f} | {middle:.2f} ({low:.2f}–{high:.2f}) |")
    return "\n".join(rows)


def main(
    network: Annotated[str, typer.Option(help="A network of torchvision.")] = "resnet50",
    rounds: Annotated[int, typer.Option(help="How often each runs.", min=2)] = 15,
    side: Annotated[int, typer.Option(help="How many pixels an image is wide and high.")] = 224,
    docs: Annotated[Path | None, typer.Option(help="Put the table between the marks of this page too.")] = None,
) -> None:
    """Measure, print a table, and put it into a page."""
    torch.manual_seed(0)
    model = import_torchvision().models.get_model(network, weights=None).eval().requires_grad_(requires_grad=False)
    runs = runs_of(model, torch.randn(8, 3, side, side))
    for run in runs.values():
        run()
    samples = interleave(runs, Pace(rounds, rounds, 0), torch.device("cpu"))
    said = (
        f"{network} at {side}, guided backpropagation, {rounds} rounds, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}\n\n{table(samples)}"
    )
    print(said)
    if docs is not None:
        docs.write_text(insert(docs.read_text(encoding="utf-8"), said, MARKS), encoding="utf-8")
        print(f"written to {docs}", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
