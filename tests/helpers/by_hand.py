"""Networks around an activation written by hand, and what became of it: guided, listed, untouched, or wrong without a word."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import relume
from tests.reference import twin
from tests.reference.spellings import rectifier

RULES = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}
TARGETS = [0, 2]


class Convolutional(nn.Module):
    """The activation behind a BatchNorm, and behind a residual sum; between them an ordinary ReLU."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.third = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)
        nn.init.uniform_(self.norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(self.norm.running_var, 0.1, 0.5)

    def forward(self, x):
        x = self.activation(self.norm(self.first(x)))
        y = self.third(F.relu(self.second(x))) + x
        return self.head(self.activation(y)).mean((2, 3))


class Linear(nn.Module):
    """The activation between linear layers, which keep nothing of what they were given."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList([nn.Linear(108, 12), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)])

    def forward(self, x):
        first, second, third, head = self.layers
        x = third(F.relu(second(self.activation(first(x.flatten(1))))))
        return head(self.activation(x))


class Once(nn.Module):
    """The activation alone, before an ordinary ReLU."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.head(F.relu(self.second(self.activation(self.first(x))))).mean((2, 3))


def images(dtype=torch.float64, scale=1.0):
    drawn = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (drawn * scale).to(dtype)


def build(kind, activation, dtype=torch.float64):
    torch.manual_seed(3)
    return kind(activation).to(dtype).eval()


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-300))


def by_hand(coverage: relume.Coverage, *, guided: bool) -> int:
    """Count the rows of activations written by hand that are guided, or listed as not guided."""
    return sum(row.count for row in coverage.rows if row.guided is guided and "by hand" in f"{row.kind} {row.why}")


class Expected:
    """Two maps by the twin, in float64: of the activation as it is written, and of it as one rectifier, ``function``."""

    def __init__(self, network, written, function, x, rule=twin.guided):
        def attribution(activation):
            network.activation = activation
            return twin.attribution(network, x, TARGETS, rule)[0]

        kept = network.activation
        self.untouched = attribution(written)
        self.guided = self.untouched if function is None else attribution(rectifier(function, rule))
        network.activation = kept


def outcome(explanation: Any, expected: Expected, tolerance=1e-12, method="guided_backprop") -> str:
    """Name what became of an activation written by hand. ``wrong`` and ``untouched`` say so of a rectifier: it was missed."""
    got, coverage = explanation[method], explanation.coverage
    untouched = distance(got, expected.untouched) <= tolerance
    if coverage.unguided:
        assert by_hand(coverage, guided=False) == coverage.unguided, str(coverage)
        return "listed" if untouched or by_hand(coverage, guided=True) else "wrong"
    if distance(got, expected.guided) <= tolerance and expected.guided is not expected.untouched:
        return "guided"
    return "untouched" if untouched else "wrong"
