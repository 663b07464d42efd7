"""Kinds of targets: one of a user's own works wherever a target does, and each answers for itself."""

import pytest
import torch
from torch import nn

import relume
from relume.engine import RECTIFIERS, Rectifier
from relume.errors import TargetError
from relume.targets import Channel, Class, Contrast, Detection, Neuron, Segmentation, Target, as_target
from tests.helpers.networks import Small


class Margin(Target):
    """How far each image's class is above the best other; a target from outside the package, in ten lines."""

    def __init__(self, classes=None):
        self._classes = classes

    def frozen(self, outputs, count):
        return self if self._classes is not None else Margin(outputs.argmax(1))

    def scores(self, outputs):
        own = outputs.gather(1, self._classes[:, None])
        return (own - outputs.scatter(1, self._classes[:, None], -torch.inf).amax(1, keepdim=True))[:, 0]

    def rows(self, some):
        return self if self._classes is None else Margin(self._classes[some])

    def repeated(self, times):
        return self if self._classes is None else Margin(self._classes.repeat(times))


@pytest.fixture
def net():
    return Small(classes=6).double().eval()


@pytest.fixture
def x():
    return torch.randn(5, 3, 8, 8, dtype=torch.float64)


def test_a_target_of_ones_own_works_in_chunks_and_wrappers(net, x):
    runner_up = net(x).topk(2).indices
    methods = ["guided_backprop", "gradcam", relume.Smooth("gradient", 3)]
    e = relume.explain(net, x, Margin(), methods, "body")
    expected = relume.explain(net, x, Contrast(runner_up[:, 0], runner_up[:, 1]), methods[:2], "body")
    for method, values in expected.maps.items():
        torch.testing.assert_close(e[method], values)
    parts = relume.explain(net, x, Margin(), methods, "body", batch_size=2)
    for method, values in parts.maps.items():
        torch.testing.assert_close(e[method], values, rtol=1e-9, atol=1e-12)


def test_rows_and_repeats_are_those_of_the_batch(net, x):
    outputs = net(x)
    for target in (None, [0, 1, 2, 3, 4], 3, Contrast([1, 2, 3, 4, 5], 0), Margin()):
        frozen = as_target(target).frozen(outputs, 5)
        torch.testing.assert_close(frozen.rows(slice(1, 3)).scores(outputs[1:3]), frozen.scores(outputs)[1:3])
        torch.testing.assert_close(frozen.repeated(2).scores(outputs.repeat(2, 1)), frozen.scores(outputs).repeat(2))
        unfrozen = as_target(target).rows(slice(1, 3)).frozen(outputs[1:3], 2)
        torch.testing.assert_close(unfrozen.scores(outputs[1:3]), frozen.scores(outputs)[1:3])


def test_what_holds_something_for_each_image_refuses_another_number_of_them():
    for target in ([1, 2], torch.tensor([1, 2]), Contrast([1, 2], 0), Segmentation(1, torch.ones(2, 4, 4))):
        as_target(target).check(2)
        with pytest.raises(TargetError, match="were given for 3 samples"):
            as_target(target).check(3)
    for target in (None, 3, len, Channel("body", 1), Segmentation(1, torch.ones(4, 4)), Detection(1)):
        as_target(target).check(3)


def test_targets_say_what_they_are():
    values = torch.rand(2, 3, 4, 4)
    assert str(as_target(None)) == "the predicted class"
    assert str(Contrast(1, 2)) == "class 1 and not class 2"
    assert str(Neuron("body", 1).placed("layer").frozen(values, 2)) == "layer, channel 1 where it is highest"
    assert [t.is_local for t in (Class(1), Channel("a", 1), Neuron("a", 1), Contrast(1, Segmentation(2)))] == [
        False,
        False,
        True,
        True,
    ]
    assert Contrast(1, 2).frozen(torch.rand(1, 3), 1).versus.tolist() == [2]
    assert Contrast(Contrast(1, 2), 0).frozen(torch.rand(1, 3), 1).classes is None


def test_a_unit_is_contrasted_with_nothing(net, x):
    with pytest.raises(TargetError, match="body, channel 1 is inside it; explain it by itself"):
        relume.explain(net, x, Contrast(1, Channel("body", 1)), ["gradient"])


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0) ** 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2 * ctx.saved_tensors[0].clamp(min=0)


def test_a_rectifier_from_outside_is_guided(x, monkeypatch):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Apply(Squared), nn.Conv2d(4, 2, 3), nn.Flatten()).double()
    assert relume.coverage(net, x, 1).guided == 0
    monkeypatch.setitem(
        RECTIFIERS,
        "SquaredBackward",
        Rectifier("squared", lambda n: n.saved_tensors[0].clamp(min=0) ** 2, lambda n: n.saved_tensors[0] > 0),
    )
    assert relume.coverage(net, x, 1).complete
    guided = relume.explain(net, x, 1, ["guided_backprop"])["guided_backprop"]
    inner = net[0](x)
    weight = torch.autograd.functional.jacobian(lambda y: net[3](net[2](y))[:, 1].sum(), Squared.apply(inner))
    arriving = weight.clamp(min=0) * 2 * inner.clamp(min=0)
    expected = torch.nn.grad.conv2d_input(x.shape, net[0].weight, arriving)
    torch.testing.assert_close(guided, expected)


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)
