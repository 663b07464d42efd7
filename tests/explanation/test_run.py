"""What else can be asked: why this and not that, what a unit looks for, segmentation, detection; and to the letter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume.engine.reading import Reading
from relume.errors import GraphError, InputError, LayerError, NoRectifierError, TargetError
from relume.models.libraries import import_torchvision
from relume.targets import Channel, Contrast, Detection, Neuron, Segmentation


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(5, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


@pytest.fixture
def net():
    return Net().double().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 12, 12, dtype=torch.float64)


METHODS = ["gradient", "guided_backprop", "gradcam", "guided_gradcam"]


def same_maps(e, other):
    for key in e.maps:
        torch.testing.assert_close(e[key], other[key], rtol=1e-12, atol=1e-15)


# --- Contrast ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(1, 2), ([1, 3], 0), (None, "others"), (torch.tensor([3, 0]), 1)])
def test_a_contrast_is_the_difference_of_two_scores(net, x, a, b):
    first = net(x).argmax(1) if a is None else torch.as_tensor(a).expand(2)
    b = (first + 1) % 4 if b == "others" else b
    second = torch.as_tensor(b).expand(2)
    e = relume.explain(net, x, Contrast(a, b), METHODS)
    rows = torch.arange(2)
    same_maps(e, relume.explain(net, x, lambda o: o[rows, first] - o[rows, second], METHODS))
    assert e.target.tolist() == first.tolist()
    assert e.versus.tolist() == second.tolist()
    assert e.title(1).startswith(f"{int(first[1])} rather than {int(second[1])}, score ")
    facts = e.as_dict()["samples"][0]
    assert (facts["target"], facts["versus"]) == (int(first[0]), int(second[0]))


def test_a_contrast_is_frozen_on_the_clean_image(net, x):
    trace = relume.engine.trace.Trace.run(net, x, Reading())
    frozen = trace.score(Contrast(None, 0)).target
    flipped = -net(x)  # another prediction
    rows = torch.arange(2)
    torch.testing.assert_close(frozen.scores(flipped), flipped[rows, net(x).argmax(1)] - flipped[:, 0])


def test_a_contrast_of_a_class_with_itself_is_refused(net, x):
    predicted = net(x).argmax(1)
    with pytest.raises(TargetError, match=f"class {int(predicted[1])} of image 1 is contrasted with itself"):
        relume.explain(net, x, Contrast(None, torch.stack([(predicted[0] + 1) % 4, predicted[1]])), ["gradient"])


def test_a_contrast_with_a_class_that_is_not_there(net, x):
    with pytest.raises(TargetError, match="class 9 is out of range"):
        relume.explain(net, x, Contrast(0, 9), ["gradient"])


# --- Units ---------------------------------------------------------------------------------------------------------------


def test_a_neuron_by_hand(net, x):
    expected = x.clone().requires_grad_()
    net.second[0](net.first(expected))[:, 2, 1, 2].sum().backward()
    e = relume.explain(net, x, Neuron("second.0", 2, (1, 2)), ["gradient"])
    torch.testing.assert_close(e["gradient"], expected.grad, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(e.score, net.second[0](net.first(x))[:, 2, 1, 2])
    assert e.target is None
    assert e.title().startswith("second.0, channel 2 at (1, 2), score ")


def test_a_neuron_without_a_place_is_where_its_channel_is_highest(net, x):
    values = net.first(x)[:, 3].flatten(1)
    e = relume.explain(net, x, Neuron(net.first, 3), ["guided_backprop"])
    torch.testing.assert_close(e.score, values.amax(1))
    for n in range(2):
        row, column = divmod(int(values[n].argmax()), 6)
        one = relume.explain(net, x[n : n + 1], Neuron("first", 3, (row, column)), ["guided_backprop"])
        torch.testing.assert_close(e["guided_backprop"][n], one["guided_backprop"][0])


def test_a_channel_is_the_mean_of_its_map(net, x):
    expected = x.clone().requires_grad_()
    net.first(expected)[:, 4].mean((1, 2)).sum().backward()
    e = relume.explain(net, x, Channel("first", 4), ["gradient"])
    torch.testing.assert_close(e["gradient"], expected.grad, rtol=1e-12, atol=1e-15)
    head = relume.explain(net, x, Channel("head", 1), ["gradient"])  # a layer without a map: the channel itself
    same_maps(head, relume.explain(net, x, 1, ["gradient"]))


def test_units_and_classes_share_a_forward_pass(net, x):
    e, unit, other = relume.compare(net, x, [1, Channel("first", 0), Neuron("second", 1)], ["guided_backprop"])
    same_maps(e, relume.explain(net, x, 1, ["guided_backprop"]))
    same_maps(unit, relume.explain(net, x, Channel("first", 0), ["guided_backprop"]))
    same_maps(other, relume.explain(net, x, Neuron("second", 1), ["guided_backprop"]))
    assert relume.coverage(net, x, Channel("first", 0)).guided == 1
    assert relume.coverage(net, x, 0).guided == 2


def test_a_neuron_of_tokens_is_named_by_its_patch():
    model = import_torchvision().models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4).eval()
    kept = []
    handle = model.encoder.layers[0].register_forward_hook(lambda _m, _a, out: kept.append(out))
    x = torch.randn(1, 3, 32, 32)
    model(x)
    handle.remove()
    e = relume.explain(model, x, Neuron("encoder.layers.encoder_layer_0", 5, (2, 1)), ["gradient"])
    torch.testing.assert_close(e.score, kept[0][:, 1 + 2 * 4 + 1, 5])


@pytest.mark.parametrize("unit", [Neuron("head", 1), Neuron("head", 1, ()), Channel("head", 1)])
def test_a_unit_of_a_layer_without_spatial_axes(net, x, unit):
    e = relume.explain(net, x, unit, ["gradient", "guided_backprop", "gradcam"], "second")
    same_maps(e, relume.explain(net, x, 1, list(e.maps), "second"))
    torch.testing.assert_close(e.score, net(x)[:, 1])
    assert e.title().startswith("head, channel 1, score ")
    same_maps(
        relume.explain(net, x, unit, ["guided_backprop"], batch_size=1), relume.explain(net, x, unit, ["guided_backprop"])
    )


def test_a_unit_of_a_pooled_map_of_one_cell(x):
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    for unit in (Neuron("2", 3), Neuron("2", 3, (0, 0)), Channel("2", 3)):
        e = relume.explain(net, x, unit, ["guided_backprop"])
        same_maps(e, relume.explain(net, x, 3, ["guided_backprop"]))
        assert torch.equal(e.score, net(x)[:, 3].detach())


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (Neuron("head", 1, (0,)), TargetError, "layer 'head' has no spatial axes; leave the position out"),
        (Neuron("first", 0, 3), TargetError, r"layer 'first' has a map of \(6, 6\), and 3 is no place in it"),
        (Neuron("first", 0, (1, 2.5)), TargetError, r"\(1, 2.5\) is no place in it"),
        (Neuron("first", "2"), TargetError, "a unit is a channel of its layer, a number from 0 on, or a slice; got '2'"),
        (Channel("head", None), TargetError, "a number from 0 on, or a slice; got None"),
        (Neuron("first", 9), TargetError, "layer 'first' has 5 channels, 0 to 4; there is no 9"),
        (Neuron("first", 0, (7, 0)), TargetError, r"layer 'first' has a map of \(6, 6\), and \(7, 0\) is no place in it"),
        (Neuron("first", 0, (1,)), TargetError, r"\(1,\) is no place in it"),
        (Channel("third", 0), LayerError, "no layer 'third'"),
    ],
)
def test_units_that_are_not_there(net, x, target, error, says):
    with pytest.raises(error, match=says):
        relume.explain(net, x, target, ["gradient"])


def test_a_layer_above_the_unit_cannot_be_read(net, x):
    with pytest.raises(LayerError, match="the score does not depend on layer 'second'"):
        relume.explain(net, x, Channel("first", 0), ["gradcam"], "second")


def test_a_callable_has_no_units(net, x):
    with pytest.raises(LayerError, match="units read a named layer"):
        relume.explain(net.forward, x, Channel("first", 0), ["gradient"])


# --- Segmentation and detection ------------------------------------------------------------------------------------------


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        scores = self.head(self.body(x))
        return {"aux": scores * 2, "out": scores}


def test_segmentation_sums_the_pixels_of_a_class():
    net, x = Dense().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scores = net(x)["out"]
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 3:7] = True
    e = relume.explain(net, x, Segmentation(1, mask), ["gradient", "guided_backprop", "gradcam"], "body")
    torch.testing.assert_close(e.score, (scores[:, 1] * mask).sum((1, 2)))
    same_maps(e, relume.explain(net, x, lambda o: (o["out"][:, 1] * mask).sum((1, 2)), list(e.maps), "body"))
    own = relume.explain(net, x, Segmentation(1), ["gradient"])
    torch.testing.assert_close(own.score, (scores[:, 1] * (scores.argmax(1) == 1)).sum((1, 2)))
    each = torch.stack([mask, ~mask])
    torch.testing.assert_close(
        relume.explain(net, x, Segmentation(0, each), ["gradient"]).score, (scores[:, 0] * each).sum((1, 2))
    )


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Segmentation(None), "about one class, an index such as Segmentation\\(3\\); got None"),
        (Segmentation(True), "an index such as .* got True"),
        (Segmentation(7), "class 7 is out of range: the network has 3 classes"),
        (Segmentation(0, torch.ones(4, 4)), r"the region has shape \(4, 4\), and the network's output \(8, 8\)"),
        (Segmentation(0, torch.zeros(8, 8)), "no pixel of image 0 belongs to class 0 or its region"),
    ],
)
def test_segmentations_that_do_not_fit(target, says):
    with pytest.raises(TargetError, match=says):
        relume.explain(Dense(), torch.randn(1, 3, 8, 8), target, ["gradient"])
    with pytest.raises(TargetError, match="needs scores of shape"):
        relume.explain(Net(), torch.randn(1, 3, 12, 12), Segmentation(0), ["gradient"])


def test_several_maps_of_scores_are_not_guessed_among():
    class Two(Dense):
        def forward(self, x):
            return super().forward(x)["out"], self.body(x)

    net, x, every = Two().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.ones(8, 8)
    with pytest.raises(TargetError, match=r"\[0\] \(2, 3, 8, 8\), \[1\] \(2, 8, 8, 8\), and .* output=0 or output=1"):
        relume.explain(net, x, Segmentation(1, every), ["gradient"])
    chosen = relume.explain(net, x, Segmentation(1, every), ["gradient"], output=0)
    same_maps(chosen, relume.explain(Dense().double(), x, Segmentation(1, every), ["gradient"]))


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large"])
def test_segmentation_networks_of_torchvision(name):
    options = {} if name.startswith("lraspp") else {"aux_loss": None}
    models = import_torchvision().models
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=4, **options).eval()
    x = torch.randn(1, 3, 64, 64)
    e = relume.explain(model, x, Segmentation(2, torch.ones(64, 64)), ["guided_backprop"])
    torch.testing.assert_close(e.score, model(x)["out"][:, 2].sum((1, 2)), rtol=1e-3, atol=1e-3)
    assert e.coverage.complete
    assert e["guided_backprop"].any()


class Detector(nn.Module):
    """Two boxes in each image, whose scores are the means of its halves."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        heat = self.conv(x).relu()
        half = x.shape[3] // 2
        boxes = torch.tensor([[0.0, 0, half, 8], [half, 0, 2 * half, 8]])
        labels = torch.tensor([1, 2])
        return [
            {"boxes": boxes, "labels": labels, "scores": torch.stack([h[..., :half].mean(), h[..., half:].mean()])}
            for h in heat
        ]


@pytest.mark.parametrize(
    ("target", "half"),
    [(Detection(1), 0), (Detection(2), 1), (Detection(box=(5, 1, 8, 8)), 1), (Detection(1, box=(3, 0, 8, 8)), 0)],
)
def test_a_detection_is_explained(target, half):
    torch.manual_seed(0)
    net, x = Detector(), torch.rand(2, 3, 8, 8)
    nn.init.constant_(net.conv.weight, 1.0)
    e = relume.explain(net, x, target, ["guided_backprop"])
    torch.testing.assert_close(e.score, net.conv(x).relu()[..., half * 4 : half * 4 + 4].mean((1, 2, 3)))
    found = e["guided_backprop"].abs().sum((0, 1, 2)) > 0
    assert found.tolist() == [half == 0] * 4 + [half == 1] * 4


def test_the_best_detection_is_the_default_and_is_frozen():
    net, x = Detector(), torch.zeros(1, 3, 8, 8)
    nn.init.constant_(net.conv.weight, 1.0)
    x[..., 4:] = 1
    frozen = Detection().frozen(net(x), 1)
    torch.testing.assert_close(frozen.scores(net(x)), net(x)[0]["scores"][1:])
    torch.testing.assert_close(frozen.scores(net(x.flip(3))), net(x.flip(3))[0]["scores"][1:])  # the same box
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}]
    assert frozen.scores(nothing).tolist() == [0.0]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Detection(7), "no box of class 7 is among the 2 of image 0; ask for one of 1, 2"),
        (Detection(box=(90, 90, 99, 99)), r"no box in image 0 overlaps with \(90, 90, 99, 99\); give"),
    ],
)
def test_detections_that_are_not_there(target, says):
    with pytest.raises(TargetError, match=says):
        relume.explain(Detector(), torch.rand(1, 3, 8, 8), target, ["gradient"])
    with pytest.raises(TargetError, match="needs boxes"):
        relume.explain(Net(), torch.rand(1, 3, 12, 12), target, ["gradient"])


# --- The ReLU family alone -----------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """A ReLU, a GELU, a ReLU6, a hardtanh and a SiLU one after the other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(6))

    def forward(self, x, rules=(F.relu, F.gelu, F.relu6, F.hardtanh, F.silu)):
        for layer, rectifier in zip(self.layers, rules, strict=False):
            x = rectifier(layer(x))
        return self.layers[5](x)


def guided_by_hand(net, x, chosen):
    """Backwards through the five rectifiers, clamping at those in ``chosen``."""
    outputs, grads, value = [], [], x
    for layer, f in zip(net.layers, (F.relu, F.gelu, F.relu6, F.hardtanh, F.silu), strict=False):
        pre = layer(value).detach().requires_grad_()
        value = f(pre)
        outputs.append((pre, value))
    grad = net.layers[5].weight[1].expand_as(value)
    for i in reversed(range(5)):
        pre, out = outputs[i]
        guided = i in chosen
        (grad,) = torch.autograd.grad(out, pre, grad.clamp(min=0) if guided else grad)
        if guided:
            grad = grad * (out > 0)
        grad = grad @ net.layers[i].weight
        grads.append(grad)
    return grads[-1]


def test_rectifiers_relu_guides_the_relu_family_alone():
    net, x = Mixed().double(), torch.randn(3, 6, dtype=torch.float64)
    everything = relume.explain(net, x, 1, ["guided_backprop"])
    letter = relume.explain(net, x, 1, ["guided_backprop"], rectifiers="relu")
    torch.testing.assert_close(everything["guided_backprop"], guided_by_hand(net, x, range(5)), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(letter["guided_backprop"], guided_by_hand(net, x, (0, 2)), rtol=1e-12, atol=1e-15)
    assert everything.coverage.guided == 5
    assert (letter.coverage.guided, letter.coverage.unguided) == (2, 3)
    assert {row.kind for row in letter.coverage.rows if not row.guided} == {"gelu", "hardtanh", "silu"}
    assert "not of the ReLU family" in str(letter.coverage)
    assert str(relume.coverage(net, x, 1, rectifiers="relu")) == str(letter.coverage)
    torch.testing.assert_close(relume.GuidedBackpropagation(net).attribute(x, 1, rectifiers="relu"), letter["guided_backprop"])


def test_a_network_without_relus_has_nothing_to_guide_to_the_letter():
    net = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
    with pytest.raises(NoRectifierError, match="gelu .not of the ReLU family, and rectifiers='relu' was asked for"):
        relume.explain(net, torch.randn(1, 4), 0, ["guided_backprop"], rectifiers="relu")
    assert issubclass(NoRectifierError, GraphError)
    with pytest.raises(InputError, match="rectifiers is 'all' or 'relu'; got 'ReLU'"):
        relume.explain(net, torch.randn(1, 4), 0, ["guided_backprop"], rectifiers="ReLU")
