"""How far other tools' guided backpropagation is from the definition: `python -m benchmarks.correctness`.

On torchvision's networks with random weights, in float64: the relative error ``|map - twin| / |twin|`` of relume and of
Captum, where the twin is the network with every rectifier exchanged for an explicit Function that applies the rule. Needs the
repository (the twin is in `tests/`), not only the package.
"""

from __future__ import annotations

import warnings

import torch
from captum.attr import GuidedBackprop
from tests.reference import twin
from torch import Tensor, nn

import relume
from relume.models.vision import import_torchvision

NETWORKS = (
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "resnet50",
    "squeezenet1_1",
    "densenet121",
    "googlenet",
    "inception_v3",
    "shufflenet_v2_x0_5",
    "mobilenet_v2",
    "mnasnet0_5",
    "efficientnet_b0",
    "convnext_tiny",
)


def build(name: str) -> nn.Module:
    """The network with random weights, and random statistics and shifts in place of the tidy initial ones."""
    torch.manual_seed(0)
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = import_torchvision().models.get_model(name, weights=None, **quick).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def off(got: Tensor, expected: Tensor) -> float:
    """The relative error."""
    return float((got - expected).detach().norm() / expected.norm())


def main() -> None:
    """Print the table."""
    print("| network | rectifiers | relume | Captum |\n|---|---|---|---|")
    for name in NETWORKS:
        model = build(name)
        x = torch.randn(1, 3, 128, 128, dtype=torch.float64)
        expected, _, calls = twin.attribution(model, x, [7], twin.guided)
        ours = relume.GuidedBackpropagation(model).attribute(x, 7)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = GuidedBackprop(model).attribute(x.clone().requires_grad_(), target=7)
        print(f"| {name} | {calls.total()} | {off(ours, expected):.1g} | {off(theirs, expected):.2g} |", flush=True)


if __name__ == "__main__":
    main()
