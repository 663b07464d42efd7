"""The tape of a forward pass disturbs no network, whatever that does besides, and holds nothing afterwards."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from tests.helpers.by_hand import RULES, TARGETS, Convolutional, Expected, Once, build, distance, images, outcome
from tests.reference import twin
from tests.reference.spellings import silu


def written(x):
    return x * torch.sigmoid(x)


def with_out(x):
    y = written(x)
    torch.arange(0, 5, out=torch.empty(0, dtype=torch.long))
    torch.stack([torch.ones(2)], out=torch.empty(0))
    torch._foreach_mul_([torch.ones(2)], 2.0)
    torch.eye(3).to_sparse().mul_(2)
    return y


def with_a_leaf_of_its_own(x):
    leaf = x.detach().requires_grad_()
    torch.autograd.grad((leaf * leaf).sum(), leaf)
    with torch.no_grad():
        leaf * 2
    return written(x)


def overwritten(x):
    y = written(x)
    y += 1
    return y - 1


@pytest.mark.parametrize("activation", [with_out, with_a_leaf_of_its_own, overwritten])
def test_what_else_a_network_does(activation):
    network = build(Convolutional, activation)
    e = relume.explain(network, images(), TARGETS, ["guided_backprop"])
    assert outcome(e, Expected(network, activation, silu, images())) == "guided"


def test_weights_that_are_trained_have_no_part_in_the_formula():
    """A function is run as it is, with weights that take a gradient."""
    slope = nn.Parameter(torch.tensor(1.7, dtype=torch.float64))
    network = build(Convolutional, lambda x: x * torch.sigmoid(slope * x))
    e = relume.explain(network.forward, images(), TARGETS, ["guided_backprop"])
    assert outcome(e, Expected(network, network.activation, lambda x: x * torch.sigmoid(1.7 * x), images())) == "guided"


def test_a_rectifier_behind_a_formula_keeps_its_own():
    network = build(Once, lambda x: F.relu(x + torch.tanh(x)))
    e = relume.explain(network, images(), TARGETS, ["deconvnet"])
    expected = twin.attribution(network, images(), TARGETS, RULES["deconvnet"])[0]
    assert distance(e["deconvnet"], expected) <= 1e-12
    assert [row.kind for row in e.coverage.rows] == ["relu"]


class Odd(nn.Module):
    """A network that compares itself in its own way."""

    def __init__(self):
        super().__init__()
        self.inner = build(Once, written)

    def forward(self, x):
        return self.inner(x)

    def __hash__(self):
        return 3

    def __eq__(self, other):
        return torch.ones(2) > 0


def test_a_network_is_known_by_what_it_is():
    for _ in range(2):
        assert relume.coverage(Odd(), images()).complete


def test_the_first_explanation_is_as_the_next():
    """A network that draws numbers draws the same in the second forward pass that the first explanation takes."""
    network = build(Once, lambda x: written(x) + 0.1 * torch.rand_like(x))
    maps = []
    for _ in range(2):
        torch.manual_seed(0)
        maps.append(relume.explain(network, images(), TARGETS, ["guided_backprop"])["guided_backprop"])
    assert torch.equal(*maps)


def test_nothing_is_held_that_only_the_garbage_collector_finds():
    made = []

    def noted(x):
        y = written(x)
        made.append(weakref.ref(y))
        return y

    gc.collect()
    gc.disable()
    try:
        relume.explain(build(Once, noted), images(), TARGETS, ["guided_backprop"])
        assert not any(reference() is not None for reference in made)
    finally:
        gc.enable()
