"""Smoothing and whatever else repeats a method: against slow twins, and with what is explained decided on the clean images."""

import json
import re
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import relume
from relume import Augmented, Smooth
from relume.errors import InputError, NonFiniteError
from relume.methods import Copy, Wrapper
from relume.models.sources import open_model
from relume.pictures.photo import load_picture
from relume.targets import Channel, Contrast, Detection, Neuron, Segmentation
from tests.helpers.assertions import assert_near
from tests.helpers.commands import relume_command
from tests.helpers.networks import Small, TwoInputs, assert_unchanged, snapshot
from tests.reference import repeated, twin
from tests.reference.twin import by_twin

ALL = list(relume.METHODS)
PAGE = Path(__file__).parents[2] / "docs" / "smoothing.md"


@pytest.fixture
def net():
    return Small().double().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- SmoothGrad and VarGrad ----------------------------------------------------------------------------------------------


def test_every_method_smoothed_equals_the_twin(net, x):
    """In one call, beside the plain ones, whose maps stay what they were."""
    x[1] *= 3  # the noise follows each image's own range
    e = relume.explain(net, x, [1, 4], [*ALL, *(Smooth(key, 5, 0.3, batch_size=4) for key in ALL)], "body")
    plain = relume.explain(net, x, [1, 4], ALL, "body")
    assert list(e.maps) == [*ALL, *(f"{name}_{key}" for key in ALL for name in ("smooth", "vargrad"))]
    for key in ALL:
        mean, variance = repeated.smoothgrad(by_twin(net, key, [1, 4]), x, 5, 0.3, seeded())
        assert_near(e[f"smooth_{key}"], mean)
        torch.testing.assert_close(e[f"vargrad_{key}"], variance, rtol=1e-9, atol=1e-13 * float(mean.abs().max()) ** 2)
        assert e[f"vargrad_{key}"].any() or key == "deconvnet"  # which here depends on no value of the image
        assert torch.equal(e[key], plain[key])
    assert e.saliency("smooth_gradcam").shape == e.saliency("vargrad_gradcam").shape == (2, 8, 8)
    for fact in ("target", "score", "scores", "images"):
        assert torch.equal(getattr(e, fact), getattr(plain, fact))
    assert (e.coverage, e.layer) == (plain.coverage, plain.layer)


def test_a_method_of_ones_own_is_smoothed(net, x):
    own = relume.Method("total", relume.METHODS["gradcam"].needs, lambda found: found.activations[0].sum(1))
    e = relume.explain(net, x, 1, [Smooth(own, 3)], "body")
    mean, variance = repeated.smoothgrad(lambda y: net.body(features(net, y)).sum(1).detach(), x, 3, 0.15, seeded())
    assert_near(e["smooth_total"], mean)
    assert_near(e["vargrad_total"], variance)


def features(net, x):
    x = net.bn1(net.conv1(x)).relu()
    return (net.bn2(net.conv2(x)) + x).relu()


@settings(deadline=None, max_examples=15)
@given(samples=st.integers(1, 7), batch=st.integers(1, 20), images=st.integers(1, 3), noise=st.floats(0.01, 1))
def test_maps_depend_neither_on_the_batch_of_copies_nor_on_that_of_images(samples, batch, images, noise):
    torch.manual_seed(3)
    net, x = Small().double().eval(), torch.randn(3, 3, 6, 6, dtype=torch.float64)[:images]
    whole = relume.explain(
        net, x, 2, [Smooth(key, samples, noise, batch_size=batch) for key in ("gradcam", "guided_backprop")], "body"
    )
    for i in range(images):
        wrappers = [Smooth(key, samples, noise, batch_size=1) for key in ("gradcam", "guided_backprop")]
        alone = relume.explain(net, x[i : i + 1], 2, wrappers, "body")
        for key in whole.maps:
            torch.testing.assert_close(whole[key][i], alone[key][0], rtol=1e-9, atol=1e-13)
            if key.startswith("vargrad"):
                assert (whole[key] >= 0).all()
                assert bool(whole[key].any()) is (samples > 1)


def test_noise_is_seeded_and_never_the_global_one(net, x):
    def smooth(generator=None):
        return relume.explain(net, x, 1, [Smooth("gradient", 3, generator=generator)])["smooth_gradient"]

    before = torch.get_rng_state()
    first = smooth()
    torch.manual_seed(9)
    assert torch.equal(smooth(), first)
    torch.set_rng_state(before)
    assert torch.equal(smooth(seeded()), first)
    assert torch.equal(smooth(seeded(5)), smooth(seeded(5)))
    assert not torch.equal(smooth(seeded(5)), first)
    assert torch.equal(torch.get_rng_state(), before)
    generator = seeded()
    assert torch.equal(smooth(generator), first)
    assert not torch.equal(smooth(generator), first)  # the caller's generator goes on


def test_several_targets_share_the_copies(net, x):
    targets = [None, 2, Neuron("body", 2)]
    for e, target in zip(relume.compare(net, x, targets, [Smooth("gradient", 3)]), targets, strict=True):
        alone = relume.explain(net, x, target, [Smooth("gradient", 3)])
        for key in alone.maps:
            assert_near(e[key], alone[key])


@pytest.mark.parametrize(("batch", "passes"), [(8, 1 + 3), (1, 1 + 10), (100, 1 + 1)])
def test_equal_settings_share_their_forward_passes(net, x, batch, passes):
    ran = []
    net.register_forward_hook(lambda _m, args, _out: ran.append(len(args[0])))
    relume.compare(net, x, [1, 2], ["gradient", *(Smooth(key, 10, batch_size=batch) for key in ALL)], "body")
    assert len(ran) == passes
    assert max(ran) <= max(batch, len(x))
    assert sum(ran) == 11 * len(x)
    generator, ran[:] = seeded(), []
    relume.explain(net, x, 1, [Smooth("gradient", 2, generator=generator), Smooth("deconvnet", 2, generator=generator)])
    assert len(ran) == 2
    relume.explain(net, x, 1, [Smooth("gradient", 2), Smooth("deconvnet", 3)])
    assert len(ran) == 2 + 3


def test_the_graph_of_one_pass_is_gone_before_the_next():
    graphs = []

    class Marker:
        pass

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            assert not [graph for graph in graphs if graph()]
            ctx.marker = Marker()
            graphs.append(weakref.ref(ctx.marker))
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    relume.explain(lambda x: Marked.apply(net(x)), torch.randn(2, 3, 6, 6), 1, [Smooth("gradient", 4, batch_size=2)])
    assert len(graphs) == 5


# --- What is explained is decided once -----------------------------------------------------------------------------------


class Undecided(nn.Module):
    """Two classes that are all but equal on the clean image, so that noise decides between them."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2, 2)
        nn.init.zeros_(self.conv.bias)
        self.head.weight.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def test_a_prediction_that_noise_would_flip_is_explained_all_the_same():
    net, x = Undecided().double(), torch.randn(1, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        clean = net(x)[0]
        net.head.bias -= torch.stack([clean[0] - 1e-6, clean[1]])  # the first class, by a hair
    predicted = [int(net(copy).argmax()) for copy in repeated.noisy_copies(x, 10, 0.15, seeded())]
    assert int(net(x).argmax()) == 0
    assert 2 < sum(predicted) < 10
    e = relume.explain(net, x, None, [Smooth("guided_backprop", 10)])
    mean, variance = repeated.smoothgrad(lambda y: twin.attribution(net, y, [0], twin.guided)[0], x, 10, 0.15, seeded())
    assert_near(e["smooth_guided_backprop"], mean)
    assert_near(e["vargrad_guided_backprop"], variance)
    assert e.target.tolist() == [0]


def bound_to_rows(outputs):
    return outputs[torch.arange(2), torch.tensor([3, 0])]


def decided(net, x):
    """Targets that would be decided anew on each copy, and the same with everything said."""
    first = net(x).argmax(1)
    values = net.body(features(net, x))[:, 3]
    places = [divmod(int(plane.argmax()), values.shape[2]) for plane in values]
    assert places[0] != places[1]
    return {
        "none": (None, [int(c) for c in first]),
        "contrast": (Contrast(None, torch.tensor([(int(c) + 1) % 5 for c in first])), Contrast(first, (first + 1) % 5)),
        "neuron": (Neuron("body", 3), [Neuron("body", 3, place) for place in places]),
        "place": (Neuron("body", 3, (3, 1)), Neuron("body", 3, (3, 1))),
        "channel": (Channel(net.body, 2), Channel("body", 2)),
        "callable": (bound_to_rows, [3, 0]),
        "contrast of callables": (Contrast(bound_to_rows, 1), Contrast([3, 0], 1)),
    }


@pytest.mark.parametrize("kind", ["none", "contrast", "neuron", "place", "channel", "callable", "contrast of callables"])
def test_every_kind_of_target_is_frozen(net, x, kind):
    """Said in full, and asked about one copy after the other."""
    target, said = decided(net, x)[kind]
    method = "guided_backprop"
    e = relume.explain(net, x, target, [Smooth(method, 4, 0.5, batch_size=6)])

    def attribute(images):
        if kind != "neuron":
            return relume.explain(net, images, said, [method])[method]
        return torch.cat([relume.explain(net, images[i : i + 1], said[i], [method])[method] for i in range(2)])

    mean, variance = repeated.smoothgrad(attribute, x, 4, 0.5, seeded())
    assert_near(e[f"smooth_{method}"], mean)
    assert_near(e[f"vargrad_{method}"], variance)


def test_the_pixels_of_a_segmentation_are_frozen():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    mask = net(x).argmax(1) == 1
    assert any(not torch.equal(net(copy).argmax(1) == 1, mask) for copy in repeated.noisy_copies(x, 4, 0.15, seeded()))
    e = relume.explain(net, x, Segmentation(1), [Smooth("guided_backprop", 4)])
    said = Segmentation(1, mask)
    mean, _ = repeated.smoothgrad(lambda y: relume.GuidedBackpropagation(net).attribute(y, said), x, 4, 0.15, seeded())
    assert_near(e["smooth_guided_backprop"], mean)


class Detector(nn.Module):
    """Finds a thing in each half, the brighter one more surely."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        boxes, labels = torch.tensor([[0.0, 0, 4, 8], [4, 0, 8, 8]]), torch.tensor([1, 2])
        halves = [torch.stack([h[..., :4].mean(), h[..., 4:].mean()]) for h in self.conv(x).relu()]
        return [{"boxes": boxes, "labels": labels, "scores": scores} for scores in halves]


def test_the_detection_is_frozen(x):
    net = Detector().double()
    best = [int(found["scores"].argmax()) for found in net(x)]
    e = relume.explain(net, x, Detection(), [Smooth("gradient", 6, 0.5)])
    copies = list(repeated.noisy_copies(x, 6, 0.5, seeded()))
    assert any([int(found["scores"].argmax()) for found in net(copy)] != best for copy in copies)

    def attribute(images):
        return relume.Gradient(net).attribute(
            images, lambda found: torch.stack([f["scores"][i] for f, i in zip(found, best, strict=True)])
        )

    assert_near(e["smooth_gradient"], repeated.smoothgrad(attribute, x, 6, 0.5, seeded())[0])


def test_the_layer_is_chosen_on_the_clean_image():
    class Longer(nn.Module):
        """Runs one more layer on whatever is not the image that it knows."""

        def __init__(self, known):
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
            self.known = known
            self.double()

        def forward(self, x):
            y = self.first(x).relu()
            y = y if torch.equal(x, self.known) else self.second(y).relu()
            return self.head(y.mean((2, 3)))

    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    net = Longer(x)
    e = relume.explain(net, x, 1, [Smooth("gradcam", 3)])
    assert e.layer == "first"
    assert_near(e["smooth_gradcam"], repeated.smoothgrad(by_twin(net, "gradcam", [1], "first"), x, 3, 0.15, seeded())[0])
    assert relume.explain(net, x + 1, 1, ["gradcam"]).layer == "second"


# --- Networks and inputs of every form -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.export:UserWarning")
def test_a_program_of_one_batch_gets_its_copies_one_by_one(net, x):
    program = torch.export.export(net, (x,)).module()
    e = relume.explain(program, x, [1, 4], [Smooth("guided_backprop", 3), Augmented("guided_backprop")])
    expected = relume.explain(net, x, [1, 4], [Smooth("guided_backprop", 3), Augmented("guided_backprop")])
    for key in e.maps:
        assert_near(e[key], expected[key])


def test_errors_of_the_network_stay_what_they_are(x):
    class Fails(nn.Module):
        def forward(self, x):
            if not torch.equal(x, clean):
                raise ValueError("only this one")
            return x.relu().mean((2, 3))

    clean = x
    with pytest.raises(ValueError, match="only this one") as caught:
        relume.explain(Fails(), x, 1, [Smooth("gradient", 3)])
    assert not isinstance(caught.value, InputError)


def test_of_several_inputs_one_has_noise():
    net, ran = TwoInputs().double().eval(), []
    net.register_forward_pre_hook(lambda *_: ran.append(1))
    image, other = torch.randn(2, 2, 3, 6, 6, dtype=torch.float64)
    kind = torch.tensor([1, 4])
    for inputs, wrt, call in (
        ((image, kind), None, lambda y: net(y, kind)),
        ({"image": image, "kind": kind, "other": other, "scale": 2.0}, "other", lambda y: net(image, kind, other=y, scale=2.0)),
    ):
        explained = image if wrt is None else other
        ran.clear()
        e = relume.explain(net, inputs, [0, 2], [Smooth("gradient", 3)], wrt=wrt)
        assert len(ran) == 1 + 3  # no copies together: nothing tells how the other inputs would follow
        mean, variance = repeated.smoothgrad(
            lambda y, call=call: twin.attribution(call, y, [0, 2], twin.gradient)[0], explained, 3, 0.15, seeded()
        )
        assert_near(e["smooth_gradient"], mean)
        assert_near(e["vargrad_gradient"], variance)


@pytest.mark.parametrize(("conv", "shape"), [(nn.Conv1d, (2, 3, 20)), (nn.Conv3d, (2, 3, 5, 6, 8))], ids=["signal", "volume"])
def test_signals_and_volumes(conv, shape):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(conv(3, 4, 3), nn.ReLU()), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.body(x).flatten(2).mean(2))

    net, x = Net().double(), torch.randn(shape, dtype=torch.float64)
    wrappers = [w for key in ALL for w in (Smooth(key, 3), Augmented(key, scales=(2,)), Augmented(key))[:2]]
    e = relume.explain(net, x, [2, 0], [*ALL, *wrappers])
    mean, _ = repeated.smoothgrad(lambda y: twin.attribution(net, y, [2, 0], twin.guided)[0], x, 3, 0.15, seeded())
    assert_near(e["smooth_guided_backprop"], mean)
    for key in ALL:
        assert e[f"smooth_{key}"].shape == e[f"vargrad_{key}"].shape == e[f"augmented_{key}"].shape == e[key].shape
    mirrored = relume.explain(net, x.flip(-1), [2, 0], ["gradcam"])["gradcam"].flip(-1)
    flipped = relume.explain(net, x, [2, 0], [Augmented("gradcam")])
    assert_near(flipped["augmented_gradcam"], (e["gradcam"] + mirrored) / 2)


def test_inputs_without_spatial_axes_have_noise_and_no_mirror():
    net, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double(), torch.randn(2, 6, dtype=torch.float64)
    e = relume.explain(net, x, 1, [Smooth("guided_backprop", 3)])
    mean, _ = repeated.smoothgrad(lambda y: twin.attribution(net, y, [1, 1], twin.guided)[0], x, 3, 0.15, seeded())
    assert_near(e["smooth_guided_backprop"], mean)
    with pytest.raises(InputError, match=r"only images with spatial axes are mirrored or resized; these have shape \(2, 6\)"):
        relume.explain(net, x, 1, [Augmented("gradient")])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_single(x, dtype):
    net = Small().eval()
    wrappers = [w for key in ("gradient", "gradcam") for w in (Smooth(key, 4), Augmented(key, scales=(1.5,)))]
    wide = relume.explain(net, x.float(), 1, wrappers, "body")
    narrow = relume.explain(net.to(dtype), x.to(dtype), 1, wrappers, "body")
    for key in wide.maps:
        assert narrow[key].dtype == torch.float32
        assert (narrow[key] - wide[key]).norm() < (0.4 if key.startswith("vargrad") else 0.1) * wide[key].norm(), key


def test_a_network_in_training_mode_is_left_as_it_was(x):
    net = Small()
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    net.bn1.eval()
    before, images = snapshot(net), x.float()
    wrappers = [w for key in ALL for w in (Smooth(key, 3), Augmented(key))]
    training = relume.explain(net, images, None, wrappers, net.body)
    assert_unchanged(before, snapshot(net))
    evaluated = relume.explain(net.eval(), images, None, wrappers, net.body)
    for key in training.maps:
        assert torch.equal(training[key], evaluated[key])


def test_what_is_not_finite_is_said():
    clean = torch.zeros(1, 3, 4, 4)
    clean[0, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="the input holds 1 NaN"):
        relume.explain(Small(), clean, 1, [Smooth("gradient")])

    def steep(x):
        return (x.relu() * 1e19).mean((2, 3))

    with pytest.raises(NonFiniteError, match="the vargrad_gradient map holds NaN or infinity"):
        relume.explain(lambda x: steep(x) * 1e4, torch.randn(1, 3, 4, 4), 1, [Smooth("gradient", 4)])
    assert relume.explain(steep, torch.randn(1, 3, 4, 4), 1, ["gradient"])["gradient"].any()


# --- What cannot be meant ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Smooth("guided_cam"), "there is no method 'guided_cam'; did you mean 'guided_gradcam'"),
        (lambda: Smooth(3), "a method is a key of relume.METHODS or a relume.Method; got 3"),
        (lambda: Smooth(Smooth("gradient")), "a method is a key of relume.METHODS or a relume.Method; got Smooth"),
        (lambda: Smooth("gradient", 1.5), "smoothing takes one sample at least; got samples=1.5"),
        (lambda: Smooth("gradient", 0), "smoothing takes one sample at least; got samples=0"),
        (lambda: Smooth("gradient", noise=0), "noise is a share of the image's range above zero, such as 0.15; got noise=0"),
        (lambda: Smooth("gradient", noise=float("nan")), "got noise=nan"),
        (lambda: Smooth("gradient", batch_size=0), "one image runs at once at least; got batch_size=0"),
        (lambda: Augmented("gradient", scales=(0.5, -1)), r"scales are multiples of the images' size.*got \(0.5, -1\)"),
        (lambda: Augmented("gradient", flip=False), "without flip and without another scale, augmentation is the plain method"),
        (lambda: Augmented("gradient", flip=False, scales=[1]), "without flip and without another scale"),
    ],
)
def test_wrappers_that_mean_nothing(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_methods_of_one_key(net, x):
    with pytest.raises(InputError, match="two different methods are called 'smooth_gradient'.*ask in two calls"):
        relume.explain(net, x, 1, [Smooth("gradient", 2), Smooth("gradient", 3)])
    e = relume.explain(net, x, 1, [Smooth("gradient", 2), "gradient", Smooth("gradient", 2)])
    assert list(e.maps) == ["smooth_gradient", "vargrad_gradient", "gradient"]


def test_a_third_wrapper_is_a_small_class(net, x):
    @dataclass(frozen=True)
    class Dimmed(Wrapper):
        @property
        def maps(self):
            return self.derived("dimmed", "dimmed {}"), self.derived("spread", "spread of dimmed {}", signed=False)

        def copies(self, images):
            yield Copy(images)
            yield Copy(images / 2, lambda values, _shape: values * 4)

        def reduce(self, moments):
            return moments[0].mean, moments[0].variance.sqrt()

    e = relume.explain(net, x, 1, [Dimmed("gradcam"), Dimmed("gradient"), "gradcam"], "body")
    bright, dim = (relume.explain(net, y, 1, ["gradcam"], "body")["gradcam"] for y in (x, x / 2))
    assert_near(e["dimmed_gradcam"], (bright + 4 * dim) / 2)
    assert_near(e["spread_gradcam"], (bright - 4 * dim).abs() / 2)
    assert list(e.maps) == ["dimmed_gradcam", "spread_gradcam", "dimmed_gradient", "spread_gradient", "gradcam"]


# --- The page and the command --------------------------------------------------------------------------------------------


def from_the_page(name):
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), namespace)
        if name in namespace:
            return namespace[name]
    raise AssertionError(name)


def test_integrated_gradients_of_the_page_are_integrated_gradients(net, x):
    """Sundararajan et al. 2017, section 3: they add up to the difference between the score and that of the baseline."""
    e = relume.explain(net, x, 1, [from_the_page("AlongPath")("gradient", steps=500, batch_size=100)])
    total = (e["path_gradient"] * e.images).flatten(1).sum(1)
    difference = net(x)[:, 1] - net(torch.zeros_like(x))[:, 1]
    torch.testing.assert_close(total, difference, rtol=2e-3, atol=1e-5)


@pytest.fixture(scope="module")
def photograph(realdata):
    """SqueezeNet, its input for the dog and the cat, and the cat's box in it."""
    opened = open_model("torchvision:squeezenet1_0", weights=realdata / "weights" / "squeezenet1_0.safetensors")
    view = opened.preprocessing.view(load_picture(realdata / "images" / "cat_dog.png"))
    things = json.loads((realdata / "boxes.json").read_text())["cat_dog.png"]["objects"]
    (box,) = [thing["xyxy"] for thing in things if thing["name"] == "tabby"]
    return opened.model, opened.preprocessing.tensor(view)[None], [max(round(c * 256 / 224 - 16), 0) for c in box]


def rows(*cells):
    """The rows of the page's table whose cells have these forms."""
    return re.findall(r"^\| " + r" \| ".join(cells) + r" \|$", PAGE.read_text(), flags=re.MULTILINE)


def test_what_smoothing_buys_is_what_the_page_says(photograph):
    model, image, _ = photograph
    methods = ["gradient", "guided_backprop", "guided_gradcam"]
    found = from_the_page("moved")(model, image, 243, methods, "features.12")
    written = rows(r"`(\w+)`", *[r"([\d.]+)"] * 3)
    assert [row[0] for row in written] == methods
    for method, plain, smooth, seeds in written:
        assert found[method] == pytest.approx([float(plain), 0], abs=0.02)
        assert found[f"smooth_{method}"] == pytest.approx([float(smooth), float(seeds)], abs=0.02)
        assert found[f"smooth_{method}"][0] < 0.6 * found[method][0]


def test_what_noise_takes_away_is_what_the_page_says(photograph):
    model, image, (x0, y0, x1, y1) = photograph
    recognised = from_the_page("recognised")
    written = rows(r"(none|[\d.]+)", r"(\d)", r"([\d.]+)")
    assert [row[0] for row in written] == ["none", "0.02", "0.05", "0.15"]
    for noise, copies, share in written:
        method = "guided_gradcam" if noise == "none" else Smooth("guided_gradcam", 5, float(noise))
        e = relume.explain(model, image, 282, [method], "features.12")
        heat = e.saliency(next(iter(e.maps)))[0]
        assert float(heat[y0:y1, x0:x1].sum() / heat.sum()) == pytest.approx(float(share), abs=0.02)
        assert noise == "none" or recognised(model, image, float(noise)) == int(copies)


def test_the_command_smooths_what_is_asked_for(tmp_path):
    Image.effect_noise((140, 130), 60).convert("RGB").save(tmp_path / "photo.png")
    out = tmp_path / "out"
    args = ["explain", tmp_path / "photo.png", "--target", "cat", "--output", out]
    result = relume_command(*args, "--method", "guided_backprop,gradcam", "--smooth", 3, "--noise", 0.2)
    assert result.exit_code == 0, result.output
    (folder,) = [path for path in (out / "photo").iterdir() if path.is_dir()]
    keys = ["smooth_gradcam", "smooth_guided_backprop", "vargrad_gradcam", "vargrad_guided_backprop"]
    assert sorted(path.name for path in folder.glob("*_*.png")) == [f"{key}.png" for key in keys]
    maps, facts = load_file(folder / "maps.safetensors"), json.loads((folder / "explanation.json").read_text())
    assert sorted(maps) == sorted(facts["methods"]) == keys
    assert facts["provenance"]["smooth"] == {"samples": 3, "noise": 0.2, "seed": 0}
    demo = open_model("demo")
    image = demo.preprocessing.tensor(demo.preprocessing.view(load_picture(tmp_path / "photo.png")))[None]
    e = relume.explain(
        demo.model, image, facts["samples"][0]["target"], [Smooth("guided_backprop", 3, 0.2), Smooth("gradcam", 3, 0.2)]
    )
    for key in keys:
        assert torch.equal(maps[key], e[key])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--noise", 0.2], "--noise is the noise of --smooth; give that too, such as --smooth 25"),
        (["--smooth", 0], "--smooth takes the number of noisy copies, from 1 on; got 0"),
        (["--smooth", 3, "--noise", -1], "--noise is a share of the input's range above zero, such as 0.15; got -1"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, options, says):
    result = relume_command("explain", tmp_path / "photo.png", "--output", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert says in result.stderr
