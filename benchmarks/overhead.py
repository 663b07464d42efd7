"""What a call costs beside the network's own passes: `python -m benchmarks.overhead [NETWORK...]`.

Networks of torchvision with random weights on one image of 32 × 32, on one thread, so that what is fixed shows: a call less
the forward and backward pass of the same network by plain autograd, run in the same round, and the parts it is made of.
Medians over rounds, in milliseconds.
"""

import statistics
import sys
from collections.abc import Callable
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


def row(name: str) -> str:
    """Return the line of the table for one network."""
    torch.manual_seed(0)
    model = import_torchvision().models.get_model(name, weights=None).eval().requires_grad_(False)
    runs = runs_of(model, NETWORKS[name])
    times: dict[str, list[float]] = {key: [] for key in runs}
    for turn in range(ROUNDS + 2):
        for key, run in runs.items():
            start = perf_counter()
            run()
            if turn > 1:  # the first warm up
                times[key].append(1000 * (perf_counter() - start))
    cells = []
    for _, key, base in COLUMNS:
        less = times[base] if base else [0.0] * ROUNDS
        cells.append(f"{statistics.median(a - b for a, b in zip(times[key], less, strict=True)):.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"| network | {' | '.join(title for title, _, _ in COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for name in sys.argv[1:] or NETWORKS:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
