"""How far other tools' guided backpropagation is from the definition: `python -m benchmarks.correctness`.

On torchvision's networks with random weights, in float64: the relative error ``|map - twin| / |twin|`` of relume and of
Captum, where the twin is the network with every rectifier exchanged for an explicit Function that applies the rule. Needs the
repository (the twin is in `tests/`), not only the package.
"""

from __future__ import annotations

import warnings

import torch
from captum.attr import GuidedBackprop
from tests.helpers.networks import torchvision_network
from tests.reference import twin
from torch import Tensor

import relume

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


def off(got: Tensor, expected: Tensor) -> float:
    """Return the relative error."""
    return float((got - expected).detach().norm() / expected.norm())


def main() -> None:
    """Print the table."""
    print("| network | rectifiers | relume | Captum |\n|---|---|---|---|")
    for name in NETWORKS:
        model = torchvision_network(name).double()
        x = torch.randn(1, 3, 128, 128, dtype=torch.float64)
        expected, _, calls = twin.attribution(model, x, [7], twin.guided)
        ours = relume.GuidedBackpropagation(model).attribute(x, 7)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = GuidedBackprop(model).attribute(x.clone().requires_grad_(), target=7)
        print(f"| {name} | {calls.total()} | {off(ours, expected):.1g} | {off(theirs, expected):.2g} |", flush=True)


if __name__ == "__main__":
    main()
