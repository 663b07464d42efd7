"""What a call costs beside the network's own passes: `python -m benchmarks.overhead [NETWORK...]`.

Networks of torchvision with random weights on one image of 32 × 32, on one thread, so that what is fixed shows: a call less
the forward and backward pass of the same network by plain autograd, run in the same round, and the parts it is made of.
Medians over rounds, in milliseconds.

`python -m benchmarks.overhead --evidence [NETWORK...]` compares a call that compares maps with one that does not, on images of
224 × 224 and all threads: the ratio of the times of two calls in the same round, the median over rounds, and its quartiles.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

import relume
from relume import rules
from relume.engine.graph import between, hooked, survey
from relume.engine.reading import Reading
from relume.engine.replica import replicate
from relume.engine.trace import Trace
from relume.models.libraries import import_torchvision

ROUNDS = 40

#: A layer of each whose map has spatial axes on so small an image.
NETWORKS = {"resnet50": "layer3", "densenet121": "features.denseblock3", "mobilenet_v2": "features.13"}


def runs_of(model: nn.Module, layer: str) -> dict[str, Callable[[], object]]:
    """Return the calls to time, by name."""
    images = torch.randn(1, 3, 32, 32)

    def bare() -> Tensor:
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]

    trace = Trace.run(model, images, Reading())
    score = trace.score(1)
    root, ends = score.value.grad_fn, [get_gradient_edge(trace.images).node]
    assert root is not None, "the score has a graph"
    nodes = between(root, ends)
    found = survey(nodes).rectifiers

    def hooking() -> None:
        for node, _ in found:
            node.register_hook(lambda *_: None).remove()

    def backward(*, guided: bool) -> None:
        with hooked(found if guided else (), rules.guided):
            torch.autograd.grad(score.value.sum(), trace.images, retain_graph=True)

    return {
        "forward and backward": bare,
        "guided backpropagation": lambda: relume.explain(model, images, 1, ["guided_backprop"], evidence=None),
        "with Guided Grad-CAM": lambda: relume.explain(model, images, 1, layer=layer, evidence=None),
        "replica": lambda: replicate(model),
        "walk": lambda: between(root, ends),
        "survey": lambda: survey(nodes),
        "hooks set and removed": hooking,
        "backward": lambda: backward(guided=False),
        "backward, guided": lambda: backward(guided=True),
        "trace": lambda: Trace.run(model, images, Reading()),
        "trace, layer watched": lambda: Trace.run(model, images, Reading(layers=[layer])),
    }


#: What is printed: the name of a column, what is timed for it, and what is taken off in the same round.
COLUMNS = (
    ("forward and backward", "forward and backward", None),
    ("+ guided backpropagation", "guided backpropagation", "forward and backward"),
    ("+ with Guided Grad-CAM", "with Guided Grad-CAM", "forward and backward"),
    ("replica", "replica", None),
    ("walk", "walk", None),
    ("survey", "survey", None),
    ("hooks set and removed", "hooks set and removed", None),
    ("hooks running", "backward, guided", "backward"),
    ("layers watched", "trace, layer watched", "trace"),
)


def network(name: str) -> nn.Module:
    """Return a network of torchvision with random weights."""
    torch.manual_seed(0)
    model: nn.Module = import_torchvision().models.get_model(name, weights=None)
    return model.eval().requires_grad_(False)


def timed(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each run in every round; the order turns round by round."""
    times: dict[str, list[float]] = {key: [] for key in runs}
    for turn in range(rounds + 2):
        for key in sorted(runs, reverse=turn % 2 == 1):
            start = perf_counter()
            runs[key]()
            if turn > 1:  # the first warm up
                times[key].append(1000 * (perf_counter() - start))
    return times


def row(name: str, rounds: int) -> str:
    """Return the line of the table for one network."""
    times = timed(runs_of(network(name), NETWORKS[name]), rounds)
    cells = []
    for _, key, base in COLUMNS:
        less = times[base] if base else [0.0] * rounds
        cells.append(f"{statistics.median(a - b for a, b in zip(times[key], less, strict=True)):.2f}")
    return f"| {name} | {' | '.join(cells)} |"


# --- What evidence costs -------------------------------------------------------------------------------------------------

COMPARED, BATCHES = ("resnet18", "resnet50", "vgg16"), (1, 8)


def evidence_row(model: nn.Module, name: str, batch: int, size: int, rounds: int) -> str:
    """Return the line of the table for one network and number of images."""
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    runs: dict[str, Callable[[], object]] = {
        "none": lambda: relume.explain(model, images, evidence=None),
        "default": lambda: relume.explain(model, images),
        "full": lambda: relume.explain(model, images, evidence="full"),
    }
    times = timed(runs, rounds)
    cells = [name, str(batch), f"{statistics.median(times['none']):.0f} ms"]
    for key in ("default", "full"):
        ratios = [a / b for a, b in zip(times[key], times["none"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        cells.append(f"{median:.2f} ({low:.2f} to {high:.2f})")
    return f"| {' | '.join(cells)} |"


def table(columns: Sequence[str]) -> str:
    """Return the head of a table."""
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description="What a call costs beside the network's own passes.")
    parser.add_argument("networks", nargs="*", help="names of torchvision")
    parser.add_argument("--evidence", action="store_true", help="compare calls with and without evidence")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="numbers of images, with --evidence")
    parser.add_argument("--size", type=int, default=224, help="side of the images, with --evidence")
    options = parser.parse_args()
    if options.evidence:
        print(table(("network", "images", "evidence=None", "default / None", "full / None")))
        for name in options.networks or COMPARED:
            model = network(name)
            for batch in options.batches:
                print(evidence_row(model, name, batch, options.size, options.rounds), flush=True)
        return
    torch.set_num_threads(1)
    print(table(("network", *(title for title, _, _ in COLUMNS))))
    for name in options.networks or NETWORKS:
        print(row(name, options.rounds), flush=True)


if __name__ == "__main__":
    main()
