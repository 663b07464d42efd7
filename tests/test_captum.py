"""``relume.captum`` beside Captum itself: equal where Captum is right, and right where Captum is wrong."""

import copy
import inspect
import warnings

import captum.attr as theirs
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume import captum as ours
from relume.errors import InputError, LayerError, RelumeError, TargetError
from tests.helpers.assertions import assert_near
from tests.helpers.networks import assert_unchanged, snapshot
from tests.reference import twin

INPUTS = ["GuidedBackprop", "Deconvolution", "Saliency", "InputXGradient"]
LAYERS = ["LayerGradCam", "GuidedGradCam"]
NEURONS = ["NeuronGradient", "NeuronGuidedBackprop", "NeuronDeconvolution"]


class Plain(nn.Module):
    """Two images and a number go in, and scores of any shape come out; every rectifier is an ``nn.ReLU`` used once."""

    def __init__(self, shape=(5,)):
        super().__init__()
        self.shape = shape
        self.conv, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(2, 6, 3, padding=1)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(inplace=True), nn.ReLU(), nn.ReLU(inplace=True)
        self.body, self.fc = nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, stride=2)), nn.Linear(8 * 9, 12)
        self.head = nn.Linear(12, torch.Size(shape).numel())

    def forward(self, x, y=None, scale=1.0):
        z = self.conv(x) if y is None else self.conv(x) + scale * self.other(y)
        z = self.relu2(self.body(self.relu1(z)))
        return self.head(self.relu3(self.fc(z.flatten(1)))).view(-1, *self.shape)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():  # Captum announces hooks, gradients and empty maps
        warnings.filterwarnings("ignore", module="captum")
        warnings.filterwarnings("ignore", message=".*(backward hooks|did not already require|interpolate GradCAM).*")
        yield


def network(shape=(5,)):
    torch.manual_seed(0)
    return Plain(shape).double().eval()


def images(channels=3):
    torch.manual_seed(channels)
    return torch.randn(3, channels, 8, 8, dtype=torch.float64)


def both(name, model, layer, *args, **options):
    """Attribute by Captum's class and by ours, which must give the same kind of thing in the same shape."""
    results = []
    for library in (theirs, ours):
        own = copy.deepcopy(model)
        places = () if layer is None else (own.get_submodule(layer),)
        results.append(getattr(library, name)(own, *places).attribute(*args, **options))
    expected, got = ([r] if isinstance(r, torch.Tensor) else list(r) for r in results)
    assert type(results[0]) is type(results[1])
    assert [g.shape for g in got] == [e.shape for e in expected]
    assert not any(g.requires_grad for g in got)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e.detach(), rtol=1e-6, atol=1e-12)
    assert any(g.any() for g in got) == any(e.any() for e in expected)
    return got


@pytest.mark.parametrize("name", [*INPUTS, *LAYERS])
@pytest.mark.parametrize("options", [{}, {"additional_forward_args": (images(2), 0.5)}], ids=["one", "further"])
def test_one_tensor(name, options):
    both(name, network(), "body.1" if name in LAYERS else None, images(), [1, 4, 0], **options)


@pytest.mark.parametrize("shared", [None, 0, 1], ids=["none is shared", "the first is shared", "the second is shared"])
@pytest.mark.parametrize("name", [*INPUTS, *LAYERS])
def test_a_tuple_gives_a_tuple(name, shared):
    given = tuple(x[:1] if i == shared else x for i, x in enumerate((images(), images(2))))
    both(name, network(), "relu2" if name in LAYERS else None, given, target=[2, 0, 4], additional_forward_args=0.5)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((5,), 3),
        ((5,), torch.tensor(3)),
        ((5,), torch.tensor([3])),
        ((5,), [3, 0, 4]),
        ((5,), torch.tensor([3, 0, 4])),
        ((5,), (3,)),
        ((5,), [(3,), (0,), (4,)]),
        ((5,), -1),
        ((2, 3, 2), (1, 2, 0)),
        ((2, 3, 2), [(1, 2, 0), (0, 0, 1), (1, 1, 1)]),
        ((1, 3), (0, 2)),
        ((1,), None),
        ((), None),
    ],
    ids=str,
)
def test_targets_mean_what_they_mean_in_captum(shape, target):
    both("GuidedBackprop", network(shape), None, images(), target)
    both("LayerGradCam", network(shape), "body", images(), target)


def test_saliency_keeps_the_sign_if_asked():
    both("Saliency", network(), None, images(), 1, False)
    assert both("Saliency", network(), None, images(), 1)[0].min() >= 0


@pytest.mark.parametrize("layer", ["conv", "relu1", "body", "relu2", "fc", "relu3"])
@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("summed", [False, True])
def test_layer_gradcam(layer, at_input, summed):
    (signed,) = both("LayerGradCam", network(), layer, images(), 1, None, at_input, False, summed)
    (positive,) = both("LayerGradCam", network(), layer, images(), 1, None, at_input, True, summed)
    torch.testing.assert_close(positive, signed.clamp(min=0), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("at_input", [False, True])
def test_guided_gradcam(mode, at_input):
    both("GuidedGradCam", network(), "relu2", images(), 1, interpolate_mode=mode, attribute_to_layer_input=at_input)


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize(
    ("layer", "selector"),
    [
        ("relu2", (4, 1, 2)),
        ("relu2", [4, 1, 2]),
        ("relu2", (slice(2, 5), 1, slice(None))),
        ("relu2", lambda values: values[:, 3].amax((1, 2))),
        ("body.1", lambda values: values.square().sum()),
        ("fc", 7),
        ("fc", (-2,)),
        ("head", (slice(0, 3),)),
    ],
    ids=lambda value: value if isinstance(value, str) else "selector",
)
def test_neurons(name, layer, selector):
    both(name, network(), layer, images(), selector)
    if layer != "body.1":
        both(name, network(), layer, (images(), images(2)[:1]), selector, 0.5, attribute_to_neuron_input=layer == "relu2")


class Several(nn.Module):
    """A layer that is given two tensors and returns two, the first of which is written to in place after it."""

    class Pair(nn.Module):
        def forward(self, a, b):
            return a + b, a * b

    def __init__(self):
        super().__init__()
        self.conv, self.other, self.pair = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), self.Pair()

    def forward(self, x):
        total, product = self.pair(self.conv(x), self.other(x))
        return (total.relu_() + product * 2).mean((2, 3))


@pytest.mark.parametrize("at_input", [False, True])
def test_a_layer_of_several_tensors(at_input):
    torch.manual_seed(0)
    model = Several().double()
    assert len(both("LayerGradCam", model, "pair", images(), 1, attribute_to_layer_input=at_input)) == 2
    both("NeuronGradient", model, "pair", images(), lambda pair: pair[1][:, 0, 0, 0], attribute_to_neuron_input=at_input)
    with pytest.raises(LayerError, match="2 tensors"):
        ours.GuidedGradCam(model, model.pair).attribute(images(), 1, attribute_to_layer_input=at_input)
    with pytest.raises(TargetError, match="2 tensors"):
        ours.NeuronGradient(model, model.pair).attribute(images(), (0, 0, 0), attribute_to_neuron_input=at_input)


def test_a_second_tensor_that_was_overwritten_is_refused():
    class Overwritten(Several):
        def forward(self, x):
            total, product = self.pair(self.conv(x), self.other(x))
            return (total + product.mul_(2)).mean((2, 3))

    model = Overwritten().double()
    with pytest.raises(LayerError, match="overwritten in place"):
        ours.LayerGradCam(model, model.pair).attribute(images(), 1)


def test_inputs_that_gradcam_cannot_be_resized_to_get_an_empty_map():
    class Biased(Plain):
        def forward(self, x, bias):
            return super().forward(x + 0) + self.head(self.relu1(self.fc.weight.mean(1) + bias[:, None]))

    torch.manual_seed(0)
    model = Biased().double().eval()
    inputs = (images(), torch.ones(3, dtype=torch.float64))
    with pytest.warns(UserWarning, match="empty tensor"):
        product, empty = both("GuidedGradCam", model, "relu2", inputs, 1)
    assert product.any()
    assert empty.shape == (0,)
    for layer, mode in (("relu2", "made up"), ("relu2", "trilinear"), ("fc", "nearest")):
        with pytest.warns(UserWarning, match="empty tensor"):
            (empty,) = both("GuidedGradCam", network(), layer, images(), 1, interpolate_mode=mode)
        assert empty.shape == (0,)


class Unused(Several):
    """A layer of two tensors, the second of which goes nowhere."""

    def forward(self, x):
        return self.pair(self.conv(x), self.other(x))[0].mean((2, 3))


def test_a_layer_that_the_score_does_not_depend_on():
    torch.manual_seed(0)
    model = Unused().double()
    used, unused = both("LayerGradCam", model, "pair", images(), 1, grad_kwargs={"materialize_grads": True})
    assert used.any()
    assert not unused.any()
    with pytest.raises(LayerError, match="does not depend on layer 'pair'"):
        ours.LayerGradCam(model, model.pair).attribute(images(), 1)
    with pytest.raises(InputError, match="grad_kwargs has create_graph"):
        ours.LayerGradCam(model, model.pair).attribute(images(), 1, grad_kwargs={"create_graph": True})


def test_interpolate():
    heat = torch.rand(2, 1, 3, 4)
    for mode in ("nearest", "bilinear"):
        got = ours.LayerGradCam.interpolate(heat, (9, 8), mode)
        assert torch.equal(got, theirs.LayerAttribution.interpolate(heat, (9, 8), mode))
    assert ours.LayerAttribution.interpolate(heat, 5).shape == (2, 1, 5, 5)


def test_signatures_and_names_are_captums():
    for name in ours.__all__:
        if name == "LayerAttribution":
            continue
        assert getattr(ours, name).get_name() == getattr(theirs, name).get_name()
        for method in ("__init__", "attribute"):
            signatures = [inspect.signature(getattr(getattr(library, name), method)) for library in (theirs, ours)]
            expected, got = ([(p.name, p.default) for p in s.parameters.values()] for s in signatures)
            assert got == expected, (name, method)
        with pytest.raises(NotImplementedError, match=name):
            getattr(ours, name)(*[network()] * (1 + (name not in INPUTS))).attribute_future()


@pytest.mark.parametrize("name", INPUTS)
def test_captums_noise_tunnel_takes_them(name):
    maps = []
    for library in (theirs, ours):
        torch.manual_seed(1)
        tunnel = theirs.NoiseTunnel(getattr(library, name)(network()))
        maps.append(tunnel.attribute(images(), nt_samples=2, stdevs=0.1, target=1).detach())
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-6, atol=1e-12)


# --- Right where Captum is wrong -------------------------------------------------------------------------------------------


class Functional(nn.Module):
    """A rectifier that two paths read, written as a function, and one module used twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 5)
        self.act = nn.GELU()

    def forward(self, x):
        y = F.relu(self.conv(x))
        return self.head((y + self.act(self.mix(y)) - self.act(-y)).mean((2, 3)))


@pytest.mark.parametrize(("name", "rule"), [("GuidedBackprop", twin.guided), ("Deconvolution", twin.deconvnet)])
def test_every_rectifier_is_guided(name, rule):
    torch.manual_seed(0)
    model = Functional().double()
    expected, _, _ = twin.attribution(model, images(), [1, 1, 1], rule)
    assert_near(getattr(ours, name)(model).attribute(images(), 1), expected)
    off = getattr(theirs, name)(model).attribute(images(), 1) - expected
    assert off.norm() > 0.05 * expected.norm()


class ReadTwice(nn.Module):
    """A tensor is read by a layer, an identity, and by another path; an in-place rectifier's result is read at its input."""

    def __init__(self):
        super().__init__()
        self.conv, self.same, self.act = nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.conv(x)
        self.act(y)
        return (self.same(y) * 2 + y).mean((2, 3))


@pytest.mark.parametrize("at_input", [False, True])
def test_a_layer_is_told_from_other_readers_of_its_tensor(at_input):
    torch.manual_seed(0)
    model, x = ReadTwice().double(), images()
    y = model.conv(x).clamp(min=0).detach()
    got = ours.LayerGradCam(model, model.same).attribute(x, 1, attribute_to_layer_input=at_input)
    torch.testing.assert_close(got, y[:, 1:2] * 2 / 36)
    # what an in-place rectifier is given goes through it alone, and everything after it reads what it wrote
    at_rectifier = ours.LayerGradCam(model, model.act).attribute(x, 1, attribute_to_layer_input=True)
    values = model.conv(x)[:, 1:2].detach()
    torch.testing.assert_close(at_rectifier, values * ((values > 0) * 3.0 / 36).mean((2, 3), keepdim=True))


# --- The network, and what cannot be had -----------------------------------------------------------------------------------


def test_the_network_and_the_inputs_stay_as_they_are():
    model, given = network().train(), images()
    before = snapshot(model)
    for name in INPUTS:
        getattr(ours, name)(model).attribute(given, 1)
    for name in LAYERS:
        getattr(ours, name)(model, model.relu2).attribute(given, 1, attribute_to_layer_input=True)
    for name in NEURONS:
        getattr(ours, name)(model, "relu2").attribute(given, (0, 0, 0), attribute_to_neuron_input=True)
    assert_unchanged(before, snapshot(model))
    assert not given.requires_grad
    assert torch.equal(given, images())


def test_a_function_or_a_wrapped_network_will_do():
    model = network()
    expected = ours.Saliency(model).attribute(images(), 1)
    assert_near(ours.Saliency(model.forward).attribute(images(), 1), expected)
    parallel = nn.DataParallel(model)
    cam = ours.LayerGradCam(model, model.relu2).attribute(images(), 1, attribute_to_layer_input=True)
    for given in (parallel, parallel.forward, model.forward):
        assert_near(ours.LayerGradCam(given, model.relu2).attribute(images(), 1, attribute_to_layer_input=True), cam)
    prepared = relume.prepare(model, images())
    assert_near(
        ours.LayerGradCam(prepared, model.relu2).attribute(images(), 1),
        ours.LayerGradCam(model, "relu2").attribute(images(), 1),
    )
    with pytest.raises(LayerError, match="prepared"):
        ours.LayerGradCam(prepared, model.relu2).attribute(images(), 1, attribute_to_layer_input=True)


@pytest.mark.parametrize("name", [*INPUTS, *LAYERS, *NEURONS])
def test_the_callers_no_grad_does_not_matter(name):
    model = network()
    attribution = getattr(ours, name)(model, *[model.relu2] * (name not in INPUTS))
    asked = (1, 1, 1) if name in NEURONS else 1
    with torch.no_grad():
        got = attribution.attribute(images(), asked)
    assert_near(got, attribution.attribute(images(), asked))


@pytest.mark.parametrize("name", ["NeuronGuidedBackprop", "NeuronDeconvolution"])
def test_without_a_rectifier_on_the_way_the_plain_gradient_is_announced(name):
    with pytest.warns(UserWarning, match="plain gradient") as caught:
        both(name, network(), "conv", images(), (4, 1, 2))
    assert {warning.filename for warning in caught if "plain gradient" in str(warning.message)} == {__file__}


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (lambda m: ours.Saliency(m).attribute(images()), r"target=None selects shape \(3, 5\)"),
        (lambda m: ours.Saliency(m).attribute(images(), 5), r"no index 5 in shape \(3, 5\)"),
        (lambda m: ours.Saliency(m).attribute(images(), (1, 2)), r"no index \(1, 2\) in shape \(3, 5\)"),
        (lambda m: ours.Saliency(m).attribute(images(), [1, 2]), r"2 indices do not fit outputs of shape \(3, 5\)"),
        (lambda m: ours.Saliency(m).attribute(images(), 1.5), "an index is an integer"),
        (lambda m: ours.Saliency(m).attribute(images(), "cat"), "an index is an integer"),
        (lambda m: ours.Saliency(lambda x: {"out": m(x)}).attribute(images(), 1), "returned a dict"),
        (lambda m: ours.Saliency(m).attribute([images()], 1), "got list"),
        (
            lambda m: ours.Saliency(lambda x, n: n * m(x)).attribute((images(), torch.ones(1).int()), 1),
            "no floating-point tensor to explain at 1",
        ),
        (lambda m: ours.NeuronGradient(m, m.relu2).attribute(images(), 4), "neuron_selector=4 selects shape"),
        (lambda m: ours.NeuronGradient(m, m.relu2).attribute(images(), (8, 0, 0)), r"no index \(8, 0, 0\)"),
        (lambda m: ours.NeuronGradient(m, m.relu2).attribute(images(), (slice(None, None, -1), 0, 0)), "no index"),
        (lambda m: ours.NeuronGradient(m, m.relu2).attribute(images(), lambda _: 1.0), "selects a float"),
        (lambda m: ours.LayerGradCam(m, m.other).attribute(images(), 1), "did not run"),
        (lambda m: ours.LayerGradCam(m, m.other).attribute(images(), 1, None, True), "'input of other' did not run"),
        (lambda m: ours.LayerGradCam(torch.fx.symbolic_trace(m), "flatten").attribute(images(), 1, None, True), "no module of"),
        (lambda m: ours.LayerGradCam(m, nn.ReLU()).attribute(images(), 1), "not a module inside this model"),
        (lambda m: ours.LayerGradCam(lambda x: m(x) * 2, m.relu2).attribute(images(), 1), "pass the torch.nn.Module itself"),
    ],
)
def test_errors_say_what_to_do(attribute, message):
    with pytest.raises(RelumeError, match=message) as caught:
        attribute(network())
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("target", [5, (0, 0), [0, 1], None, "cat"])
def test_errors_of_targets_can_be_caught_as_captums(target):
    caught = []
    for library in (theirs, ours):
        with pytest.raises((AssertionError, IndexError)) as error:
            library.Saliency(network()).attribute(images(), target)
        caught.append(error.type)
    assert issubclass(caught[1], caught[0])
    assert issubclass(caught[1], TargetError)


def test_a_layer_that_is_given_no_tensor_has_no_input():
    class Keyword(Plain):
        def forward(self, x):
            return self.head(self.fc(input=x.flatten(1)[:, :72]))

    model = Keyword().double().eval()
    with pytest.raises(LayerError, match="nothing by position"):
        ours.LayerGradCam(model, model.fc).attribute(images(), 1, attribute_to_layer_input=True)
