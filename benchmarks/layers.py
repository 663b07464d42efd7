"""The layer that is chosen in every classification network of torchvision: `python -m benchmarks.layers [NAME...]`.

Random weights, one picture of the smallest size that the network takes. Without names, all of them, as the table of
docs/layers.md; the largest need some 10 GB of memory.
"""

import sys

import torch
from torch import nn

import relume
from relume.models.vision import import_torchvision

SIDES = {"alexnet": 64, "inception_v3": 299, "maxvit_t": 224, "vgg": 64, "vit_h_14": 224, "vit_": 224}


def build(name: str) -> tuple[nn.Module, int]:
    """A network with random weights, none of them all zero, and the side of a picture for it."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = import_torchvision().models.get_model(name, weights=None, **options)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, 0, 0.02)
    return model.eval(), next((side for prefix, side in SIDES.items() if name.startswith(prefix)), 64)


def row(name: str) -> str:
    """The line of the table for one network."""
    model, side = build(name)
    e = relume.explain(model, torch.randn(1, 3, side, side), 0, ["guided_backprop", "gradcam"])
    kinds = ", ".join(f"{r.count} {r.kind}" for r in e.coverage.rows if r.guided)
    assert e.coverage.complete, e.coverage
    return f"| {name} | `{e.layer}` | {kinds} |"


def main() -> None:
    """Print the table."""
    models = import_torchvision().models
    print("| network | layer | rectifiers guided |\n|---|---|---|")
    for name in sys.argv[1:] or models.list_models(module=models):
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
