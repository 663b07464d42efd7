"""Kinds of targets: one of a user's own works wherever a target does, and each answers for itself."""

import numpy as np
import pytest
import torch
from torch import nn

import relume
from relume.engine import RECTIFIERS, Rectifier
from relume.errors import InputError, ModelError, TargetError
from relume.evaluation import Sample
from relume.targets import (
    Binary,
    Channel,
    Class,
    Contrast,
    Detection,
    Embedding,
    Nearest,
    Neuron,
    Probability,
    Regression,
    Segmentation,
    Target,
    as_target,
)
from tests.helpers.heads import headed, images
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
    for target in ([1, 2], torch.tensor([1, 2]), Contrast([1, 2], 0), Segmentation(1, torch.ones(2, 4, 4).tolist())):
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


@pytest.mark.parametrize(
    ("head", "target", "says"),
    [
        ("one", 3, r"one value is asked about by relume.targets.Binary\(True\)"),
        ("pixels", 1, r"returns \(N, 3, H, W\): relume.targets.Segmentation\(2\) \(--ask segmentation:2 in the command\)"),
        ("classes", Binary(), r"returns \(N, 4\): relume.targets.Class\(3\) \(--target 3 in the command\)"),
        ("pixels", Embedding([1.0]), "relume.targets.Segmentation"),
        ("one", Regression("sideways"), "'up', 'down' or towards a number; got 'sideways'"),
        ("one", Regression(float("nan")), "got nan"),
        ("one", Binary(1), "True for yes or False for no; got 1"),
        ("embedding", Embedding([1.0, 2.0]), r"the reference has shape \(2,\), and the network's embeddings 5 values"),
        ("embedding", Embedding([0.0] * 5), "the reference is zero"),
        ("embedding", Embedding([float("nan")] * 5), "the reference holds NaN or infinity"),
        ("embedding", Embedding("other.jpg"), "is a vector, .*; got 'other.jpg'"),
        ("embedding", Embedding([1.0] * 5, "angle"), "'cosine' or 'dot'; got 'angle'"),
        ("embedding", Embedding(torch.ones(2, 5)), "2 references were given for 3 samples"),
        (
            "classes",
            Probability(1),
            "a class is asked for, and the network returns scores, not probabilities",
        ),
        ("classes", Probability(torch.tensor([0, 1, 2]), activation="none"), "returns scores, not probabilities"),
        ("one", Contrast(None, Nearest(1)), "a contrast is against other classes, and this network has one"),
        ("classes", Contrast(1, Nearest(4)), "against 1 to 3 nearest classes of this network; got 4"),
        ("classes", Contrast(lambda y: y[:, 0], Nearest(1)), "the nearest are classes"),
        ("classes", Contrast(1, []), "the list of others is empty"),
        ("classes", Contrast(1, 2, gamma=0), "gamma is a number above 0, such as 0.6; got 0"),
        ("classes", Contrast(1, [0, 1]), "class 1 of image 0 is contrasted with itself"),
        ("pixels", Channel("body", slice(None, None, -1)), "none of which is in ::-1"),
        ("pixels", Neuron("body", 1, (slice(None, None, -1), 2)), "is no place in it"),
        ("pixels", Segmentation(1, "mask.png"), "a region is a tensor of booleans, .*; got a str"),
        (
            "pixels",
            Segmentation(1, torch.linspace(0, 1, 64).view(8, 8)),
            "a region is boolean, this one has 64 different values",
        ),
        ("pixels", Segmentation(1, torch.zeros(8, 8)), r"belongs to class 1 or its region; the network gives pixels to \d"),
    ],
)
def test_what_does_not_fit_is_said_with_what_does(head, target, says):
    with pytest.raises(TargetError, match=says):
        relume.explain(headed(head), images(), target, ["gradient"])


def test_two_places_of_one_class_are_contrasted():
    net, x, top = headed("pixels"), images(), torch.zeros(8, 8)
    top[:3] = 255
    e = relume.explain(net, x, Contrast(Segmentation(1, top), Segmentation(1, top == 0)), ["gradient"])
    pixels = net(x)[:, 1]
    torch.testing.assert_close(e.score, pixels[:, :3].sum((1, 2)) - pixels[:, 3:].sum((1, 2)))
    assert e.title().startswith("class 1 in 24 pixels rather than class 1 in 40 pixels, score ")


def test_lengths_of_embeddings_are_too_large_for_half_precision():
    outputs = torch.full((1, 512), 100.0, dtype=torch.half)
    for reference in (outputs[0], torch.full((512,), 1e30), torch.full((512,), 1e-30)):
        frozen = Embedding(reference).frozen(outputs.to(reference), 1)
        torch.testing.assert_close(frozen.scores(outputs.to(reference)), torch.ones(1).to(reference))


def test_the_graph_tells_what_a_probability_is():
    net, x = headed("classes"), images()
    for end in (nn.Softmax(1), nn.LogSoftmax(1)):
        e = relume.explain(nn.Sequential(net, end), x, Probability(2), ["gradient"])
        torch.testing.assert_close(e.score, net(x).softmax(1)[:, 2])
        assert e.target.tolist() == [2, 2, 2]


def test_one_class_of_pixels_is_where_its_score_is_positive():
    net, x = headed("pixels"), images()
    alone = nn.Sequential(net.stem, net.body, nn.ReLU(), nn.Conv2d(6, 1, 1, bias=False)).double()
    alone[3].weight.data.flatten()[:] = torch.tensor([1.0, -1.0] * 3)
    scores = alone(x)[:, 0]
    e = relume.explain(alone, x, Segmentation(0), ["gradient"])
    torch.testing.assert_close(e.score, (scores * (scores > 0)).sum((1, 2)))
    e = relume.explain(nn.Sequential(alone, nn.Sigmoid()), x, Segmentation(0), ["gradient"])
    torch.testing.assert_close(e.score, (scores.sigmoid() * (scores > 0)).sum((1, 2)))


def test_labels_name_classes_and_are_one_for_each(net, x):
    names = ["cat", "dog", "mouse", "owl", "bee", "fox"]
    e = relume.explain(net, x, Contrast(1, [0, 2], 0.5), ["gradient"], labels=names)
    assert e.title().startswith("dog (1) rather than 0.5 × cat (0) and mouse (2), score ")
    nested = relume.explain(net, x, Contrast(Contrast(1, 2), 0), ["gradient"], labels=names)
    assert nested.title().startswith("(dog (1) rather than mouse (2)) rather than cat (0), score ")
    probability = relume.explain(net, x, Probability(1), ["gradient"], labels=names, activation="softmax")
    assert probability.title().startswith("probability of dog (1), score ")
    assert relume.explain(net, x, 1, ["gradient"], labels=names).title().startswith("dog (1), score ")
    assert relume.explain(headed("one"), images(), Binary(False), ["gradient"], labels=["ill", "well"]).title()[:7] == "ill (0)"
    with pytest.raises(ModelError, match="2 labels were given for a network of 6 classes"):
        relume.explain(net, x, 1, ["gradient"], labels=names[:2])
    with pytest.raises(InputError, match="labels are a list of class names; got 'dog'"):
        relume.explain(net, x, 1, ["gradient"], labels="dog")


def test_an_evaluation_asks_what_its_masks_are_of():
    net, x, mask = headed("pixels").float(), images().float(), np.eye(8, dtype=bool)
    found = relume.evaluate(net, [Sample("one", x[0], {Segmentation(1): mask}, mask)], ["gradient"])
    assert found.rows["gradient"]["mass_accuracy"].count == 1


@pytest.mark.parametrize("target", [Embedding(torch.ones(5)), Embedding(torch.ones(3, 5), "dot")], ids=["cosine", "dot"])
def test_the_similarity_itself_is_no_rectifier_written_by_hand(target):
    """In a network that has one, the products of the target are not listed as another."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3), Quick(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    e = relume.explain(network, images(), target, ["guided_backprop"])
    assert [(row.kind, row.guided) for row in e.coverage.rows] == [("quick GELU written by hand", True)]


class Quick(nn.Module):
    """The rectifier of CLIP."""

    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)
