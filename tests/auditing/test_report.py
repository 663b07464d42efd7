"""The audit: its checks on networks small enough to know the answer, its verdicts, and that nothing is touched."""

import copy
import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import relume
from relume import rules
from relume.auditing import CHECKS, Subject, between_networks, judge, measures_of, randomise
from relume.auditing.checks import stability
from relume.auditing.checks.classes import other_classes
from relume.auditing.checks.random_weights import own_copy, randomise_layer, restore, weight_layers
from relume.auditing.drawing import heat as heat_of
from relume.auditing.drawing import plane
from relume.demo import CLASSES, PREPROCESSING, draw_scene, load_network
from relume.errors import InputError, ModelError, TargetError
from relume.explanation import Verdict
from relume.measures import SIMILARITIES, similarity
from relume.methods.base import Method
from relume.methods.wrapper import Wrapper
from tests.helpers.networks import Small, assert_unchanged, small_of, snapshot

NOISE = Method("noise", frozenset({("input", rules.gradient)}), lambda found: torch.randn_like(found.inputs[rules.gradient]))
FLAT = Method("flat", frozenset({("input", rules.gradient)}), lambda found: torch.ones_like(found.inputs[rules.gradient]))


@pytest.fixture
def small():
    return Small().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Weights -------------------------------------------------------------------------------------------------------------


def test_layers_come_in_the_order_of_execution_from_the_output_down(small, images):
    assert weight_layers(small, images) == ["head.3", "head.0", "body.0", "bn2", "conv2", "bn1", "conv1"]

    class Backwards(nn.Module):
        """Defined in the opposite of the order of execution, one layer twice, a weight of its own, one layer never."""

        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(3, 3)
            self.last = nn.Linear(4, 2)
            self.twice = nn.Conv2d(4, 4, 1)
            self.first = nn.Conv2d(3, 4, 1)
            self.offset = nn.Parameter(torch.randn(3, 1, 1))

        def forward(self, x):
            assert self.unused.weight.dtype == self.first.weight.dtype  # asking is no use
            x = self.twice(self.first(x + self.offset).relu()).relu()
            return self.last(self.twice(x).mean((2, 3)))

    assert weight_layers(Backwards(), images) == ["last", "twice", "first", ""]


def test_transformers_have_layers_too():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="relu")
    model = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2), Transposed(), layer, Mean(), nn.Linear(8, 3)).eval()
    found = weight_layers(model, torch.randn(1, 3, 32, 32))
    assert found == ["5", "3.norm2", "3.linear2", "3.linear1", "3.norm1", "3.self_attn", "3.self_attn.out_proj", "0"]
    r = relume.audit(model, torch.randn(1, 3, 32, 32), method="gradient", checks=["randomisation"])
    assert r.checks["randomisation"].cascade["absolute"].shape == (8, 1)
    assert r.checks["randomisation"].cascade["absolute"][-1] < 0.9


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_torchscript_is_taken_in_the_order_of_its_definition_and_shuffled(small, images):
    scripted = torch.jit.trace(small, images)
    assert weight_layers(scripted, images) == ["head.3", "head.0", "body.0", "bn2", "conv2", "bn1", "conv1"]
    before = {k: v.clone() for k, v in scripted.state_dict().items()}
    r = relume.audit(scripted, images, method="gradient", checks=["randomisation"])
    assert r.measures["cascade"].max() < 0.9
    for name, value in scripted.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("how", ["reset", "shuffle"])
def test_one_layer_is_made_random_and_restored(small, how):
    network, other = own_copy(small), own_copy(small)
    for name in ("conv1", "head.3"):
        randomise_layer(network, name, generator(3), how)
        randomise_layer(other, name, generator(3), how)
    for name, value in network.state_dict().items():
        changed = name.rpartition(".")[0] in ("conv1", "head.3")
        assert torch.equal(value, small.state_dict()[name]) != changed, name
        assert torch.equal(value, other.state_dict()[name])
        if how == "shuffle":
            assert torch.equal(value.flatten().sort().values, small.state_dict()[name].flatten().sort().values)
    restore(network, small)
    for name, value in network.state_dict().items():
        assert torch.equal(value, small.state_dict()[name])


def test_a_scheme_that_reaches_into_parts_leaves_them():
    """Attention sets the bias of its output, which is a layer of its own."""
    attention = nn.MultiheadAttention(8, 2)
    with torch.no_grad():
        attention.out_proj.bias.fill_(3)
    before = {name: value.clone() for name, value in attention.state_dict().items()}
    randomise_layer(attention, "", generator())
    changed = {name for name, value in attention.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"in_proj_weight"}


def test_randomness_is_the_generators_alone(small):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    randomise_layer(own_copy(small), "conv1", generator())
    assert torch.equal(torch.rand(3), expected)


# --- Randomisation -------------------------------------------------------------------------------------------------------


def test_randomisation_is_its_twin(small, images):
    """A copy made anew for each stage, with the layers random that were drawn by the same generator."""
    subject = Subject.of(small, images, 1, "gradient", seed=7)
    found = randomise(subject)
    names, drawn = list(found.layers), generator(7)

    def spearman_of(model):
        raw = relume.Gradient(model).attribute(images, 1)
        return [similarity.spearman(a, b) for a, b in zip(subject.maps.raw, raw.numpy(), strict=True)]

    for stage, name in enumerate(names):
        model = copy.deepcopy(small)
        randomise_layer(model, name, drawn)
        assert found.alone["signed"][stage] == pytest.approx(spearman_of(model), abs=1e-6)
    model = copy.deepcopy(small)
    for stage, name in enumerate(names):
        randomise_layer(model, name, drawn)
        assert found.cascade["signed"][stage] == pytest.approx(spearman_of(model), abs=1e-6)
    first = subject.maps_of(copy.deepcopy(model))
    for name in names:
        randomise_layer(model, name, drawn)
    assert found.random_pair["signed"] == pytest.approx(first.compare(subject.maps_of(model))["signed"], abs=1e-6)
    assert found.untrained["hog"] == pytest.approx(found.cascade["hog"][-1], abs=1e-9)
    assert found.late["absolute"] == pytest.approx(found.cascade["absolute"][5])
    assert found.mean["absolute"] == pytest.approx(found.cascade["absolute"].mean(0))
    assert found.lost == ()


def test_a_score_that_does_not_respond_is_drawn_again_and_else_is_no_map(images):
    """A ReLU over the scores: half of all random last layers have none above zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.ReLU()
    ).eval()
    with torch.no_grad():
        model[4].weight.abs_()
        model[4].bias.fill_(0.1)
        model[4].weight[2], model[4].bias[2] = -1, -1
    subject = Subject.of(model, images, 0, "gradient")
    found = randomise(subject)
    assert found.lost == ()
    assert np.isfinite(found.cascade["absolute"]).all()
    (dead,) = subject.maps_for([torch.tensor([2, 2])])
    assert np.isnan(dead.raw).all()
    assert dead.empty.all()
    for values in subject.maps.compare(dead).values():
        assert np.isnan(values).all()


def test_maps_of_two_networks_are_compared(small, images):
    subject = Subject.of(small, images, method="gradient")
    assert between_networks(subject, copy.deepcopy(small))["signed"] == pytest.approx([1, 1])
    assert between_networks(subject, Small().eval())["signed"].max() < 0.9


# --- Wrappers ------------------------------------------------------------------------------------------------------------


def smoothed(model, images, classes, samples, noise):
    """SmoothGrad of the plain gradient as a loop: the noise of seed 0 at each call, scaled to each image's range."""
    drawn, total = generator(0), torch.zeros_like(images)
    reach = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    for _ in range(samples):
        noisy = images + noise * reach * torch.randn(images.shape[1:], generator=drawn)
        total += relume.Gradient(model).attribute(noisy, classes)
    return total / samples


def test_a_smoothed_audit_is_its_twin(small, images):
    subject = Subject.of(small, images, 1, relume.Smooth("gradient", samples=3, noise=0.1), seed=7)
    assert (subject.info.key, subject.info.title) == ("smooth_gradient", "SmoothGrad, gradient")
    original = smoothed(small, images, 1, 3, 0.1)
    np.testing.assert_allclose(subject.maps.raw, original, rtol=1e-5, atol=1e-7)
    found, model, drawn = randomise(subject, alone=False), copy.deepcopy(small), generator(7)
    for stage, name in enumerate(found.layers):
        randomise_layer(model, name, drawn)
        raw = smoothed(model, images, 1, 3, 0.1).numpy()
        expected = [similarity.spearman(a, b) for a, b in zip(original.numpy(), raw, strict=True)]
        assert found.cascade["signed"][stage] == pytest.approx(expected, abs=1e-5)
    others = [torch.tensor([2, 3]), torch.tensor([4, 0])]
    for classes, maps in zip(others, subject.maps_for(others), strict=True):
        np.testing.assert_allclose(maps.raw, smoothed(small, images, classes, 3, 0.1), rtol=1e-5, atol=1e-7)


@dataclasses.dataclass(frozen=True)
class Doubled(Wrapper):
    """A wrapper of a user's."""

    @property
    def maps(self):
        return (self.derived("doubled", "twice {}"),)

    def reduce(self, moments):
        return (2 * moments[0].mean,)


@pytest.mark.parametrize("wrapper", [relume.Smooth("gradcam", 2), relume.Augmented("guided_backprop"), Doubled("gradient")])
def test_any_wrapper_is_audited_as_a_method_is(small, images, wrapper):
    report = relume.audit(small, images, method=wrapper)
    assert (report.method, report.title) == (wrapper.maps[0].key, wrapper.maps[0].title)
    assert str(report).startswith(report.title)
    assert report.skipped == {}
    assert all(np.isfinite(values).all() for values in report.measures.values())
    if isinstance(wrapper, Doubled):
        plain = relume.audit(small, images, method="gradient")
        for key, values in report.measures.items():
            np.testing.assert_allclose(values, plain.measures[key], atol=1e-6)


# --- Other classes -------------------------------------------------------------------------------------------------------


def test_other_classes_are_other_classes():
    scores = torch.tensor([[3.0, 5.0, 1.0, 4.0], [9.0, 2.0, 8.0, 7.0]]).repeat(50, 1)
    classes = torch.tensor([1, 1]).repeat(50)
    found = other_classes(scores, classes, generator())
    assert found["runner_up"].tolist() == [3, 0] * 50
    assert found["least_likely"].tolist() == [2, 3] * 50
    assert set(found["random_other"].tolist()) == {0, 2, 3}
    two = other_classes(scores[:, :2], classes, generator())
    assert {tuple(v.unique().tolist()) for v in two.values()} == {(0,)}


# --- The report ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_an_audit_touches_nothing_repeats_itself_and_says_all(small, images, training):
    small.train(training)
    before, random_state = snapshot(small), torch.get_rng_state()
    seen = []
    report = relume.audit(
        small, images, method="guided_gradcam", layer="body.0", labels=list("abcde"), progress=lambda n, i: seen.append(n) or i
    )
    assert_unchanged(before, snapshot(small))
    assert torch.equal(random_state, torch.get_rng_state())
    assert seen == ["randomisation", "randomisation", "faithfulness"]
    assert report.measures.keys() == measures_of().keys()
    assert (len(report), report.layers, report.method) == (2, ("body.0",), "guided_gradcam")
    again = relume.audit(small, images, method="guided_gradcam", layer=small.body[0], labels=list("abcde"))
    data = report.as_dict()
    assert json.dumps(data, allow_nan=False) == json.dumps(again.as_dict(), allow_nan=False)
    assert data["checks"].keys() == set(CHECKS)
    assert data["checks"]["randomisation"]["layers"][0] == "head.3"
    assert np.shape(data["checks"]["randomisation"]["cascade"]["ssim"]) == (7, 2)
    assert data["checks"]["coverage"]["coverage"]["guided"] == 4
    assert data["pictures"][1]["class_name"] == "abcde"[data["pictures"][1]["class"]]
    assert report.checks["randomisation"].stages.shape == (7, 2, 32, 32)
    text = str(report)
    for measure in measures_of().values():
        assert measure.title in text
    assert report.verdict.text in text
    assert "Guided Grad-CAM, Small, layer body.0" in text


def test_leaving_a_check_out_changes_no_other(small, images):
    whole, part = (relume.audit(small, images, checks=c) for c in (CHECKS, ["stability", "classes"]))
    for key, values in part.measures.items():
        np.testing.assert_array_equal(values, whole.measures[key])
    assert part.measures.keys() == {"classes", "stability", "shift"}
    with pytest.raises(InputError, match="checks are some of coverage, .*; got nonsense"):
        relume.audit(small, images, checks=["nonsense"])
    with pytest.raises(InputError, match="got none"):
        relume.audit(small, images, checks=[])
    with pytest.raises(InputError, match="by 'reset' or 'shuffle'; got 'zero'"):
        relume.audit(small, images, checks=["randomisation"], how="zero")


def test_batches_do_not_change_the_answer(small, images):
    one, two = (relume.audit(small, images, batch_size=b, checks=["classes", "randomisation", "edges"]) for b in (1, 16))
    for key, values in one.measures.items():
        np.testing.assert_allclose(values, two.measures[key], atol=1e-3)


def test_what_is_no_question_is_refused(small, images):
    with pytest.raises(ModelError, match="an audit looks into the network, a torch.nn.Module; got function"):
        relume.audit(lambda x: x.mean((2, 3)), images)
    with pytest.raises(InputError, match=r"of volumes \(N, C, D, H, W\); got shape \(3, 32\)"):
        relume.audit(small, images[0, 0, :3])
    with pytest.raises(InputError, match=r"without a batch axis; write images\[None\]"):
        relume.audit(small, images[0])
    with pytest.raises(TargetError, match="an audit asks about outputs of the network"):
        relume.audit(small, images, lambda outputs: outputs.sum(1))


@pytest.mark.parametrize("size", [(40,), (5, 6, 7)])
def test_signals_and_volumes_are_audited_as_images_are(size):
    """Every check, and against formulas over all axes written out; what is of two axes is left out, and said once."""
    axes = len(size)
    model, images = small_of(axes), torch.randn(2, 2, *size, generator=generator())
    report = relume.audit(model, images, 1, "gradient", activation="softmax")
    assert report.skipped == {}
    assert report.measures.keys() == measures_of().keys()
    assert all(np.isfinite(values).all() for values in report.measures.values())
    found, raw = report.checks, relume.Gradient(model).attribute(images, 1)
    heat, x = raw.abs().amax(1).double().numpy(), images.double().numpy()
    centred = np.abs(x - x.mean(tuple(range(2, x.ndim)), keepdims=True)).max(1)
    edges = [np.sqrt(sum(ndimage.sobel(one.mean(0), axis) ** 2 for axis in range(axes))) for one in x]
    moved = {by: relume.Gradient(model).attribute(stability.shifted(images, by), 1) for by in stability.shifts(size)}
    back = [other.roll([-n for n in by], [*range(2, x.ndim)]).abs().amax(1).numpy() for by, other in moved.items()]
    inner = (slice(1, -1),) * axes
    for i in range(2):
        assert report.measures["input"][i] == pytest.approx(similarity.spearman(centred[i], heat[i]), abs=1e-6)
        assert report.measures["edges"][i] == pytest.approx(similarity.spearman(edges[i], heat[i]), abs=1e-6)
        shift = np.mean([similarity.spearman(heat[i][inner], each[i][inner]) for each in back])
        assert report.measures["shift"][i] == pytest.approx(shift, abs=1e-6)
    silent = [model[:end](images) <= 0 for end in (3, 5)]
    assert found["coverage"].dead == np.mean([*np.concatenate([v.flatten(2).all(2).all(0) for v in silent])])
    assert found["randomisation"].cascade.keys() == {"signed", "absolute", "ssim"}
    for note in ("Canny's edges are", "HOG correlation compares", "the limits of stability were found on pictures"):
        assert str(report).count(note) == 1
    tiles = report.view().sections["edges"].strips[0].tiles
    assert [tile.name for tile in tiles] == ["the map", "Sobel's edges", "the image itself"]
    assert tiles[0].picture.tobytes() == heat_of(plane(report.maps.saliency[0])).tobytes()
    assert report.view().picture.size == tiles[0].picture.size == {1: (40, 10), 3: (7, 6)}[axes]
    assert relume.audit(model, images, method="gradcam", layer="2", checks=["edges"]).maps.saliency.shape == (2, *size)


def test_a_long_signal_is_drawn_with_all_its_peaks():
    values = torch.rand(2000, generator=generator()).numpy()
    band = plane(values)
    assert band.shape == (128, 512)
    ends = [n * 2000 // 512 for n in range(513)]
    assert band[7].tolist() == [values[low:high].max() for low, high in itertools.pairwise(ends)]
    volume = torch.rand(3, 4, 5, generator=generator()).numpy()
    np.testing.assert_array_equal(plane(volume), volume.max(0))


def test_a_constant_map_and_a_random_one(small, images):
    flat = relume.audit(small, images, method=FLAT)
    assert [v.level for v in flat.verdicts] == ["nothing"] * 2
    assert flat.verdict.level == "nothing"
    assert np.isnan(flat.measures["cascade"]).all()
    assert all(np.isnan(values).all() for values in flat.measures.values())
    noise = relume.audit(small, images, method=NOISE)
    assert noise.verdict.level == "unstable"
    assert np.abs(noise.measures["stability"]).max() < 0.1
    assert np.abs(noise.measures["cascade"]).max() < 0.1


def test_a_network_of_one_layer_and_one_of_no_weights(images):
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    report = relume.audit(linear, images, method="gradient")
    assert report.checks["randomisation"].layers == ("1",)
    assert report.checks["stability"].noise["signed"] == pytest.approx([1, 1])
    assert report.checks["coverage"].trouble.startswith("no rectifier ran")
    report = relume.audit(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU()), images.abs(), method="gradient")
    assert "no operation of this Sequential uses a weight" in report.skipped["randomisation"]


def test_a_picture_of_one_colour(small):
    report = relume.audit(small, torch.full((1, 3, 32, 32), 0.3))
    assert np.isnan(report.measures["edges"]).all()
    assert np.isnan(report.measures["input"]).all()
    assert np.isfinite(report.measures["cascade"]).all()
    assert "similarity to edges (Sobel or Canny)          –" in str(report)


def test_a_network_of_one_class(images):
    torch.manual_seed(0)
    report = relume.audit(Small(classes=1).eval(), images)
    assert "there is no other class to compare with" in report.skipped["classes"]
    assert "classes was left out: the network has one score" in str(report)
    assert "leave" not in report.skipped["classes"]  # it was
    assert (report.probabilities, report.checks["faithfulness"].quantity) == (None, "score")


def test_gradient_health_counts():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0, 100.0]).view(3, 1, 1, 1))
        model[0].bias.zero_()
    report = relume.audit(model, torch.full((1, 1, 24, 24), 2.0), 0, "gradient", checks=["coverage"])
    health = report.checks["coverage"]
    assert (health.silent, health.saturated, health.dead) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (health.coverage.guided, list(health.blank)) == (1, [0])


# --- The verdict ---------------------------------------------------------------------------------------------------------


STEADY = {"stability": 0.9, "shift": 0.9}
POINTS = Verdict("points", "It points.")


@pytest.mark.parametrize(
    ("measures", "level", "says"),
    [
        ({**STEADY, "classes": 0.9, "cascade": 0.9, "edges": 0.9, "road": -0.5}, "points", "It points."),
        ({**STEADY, "stability": 0.1}, "unstable", "noise that nobody sees (similarity 0.10, limit 0.48): take it for noise"),
        ({**STEADY, "shift": 0.2}, "unstable", "by one pixel (similarity 0.20, limit 0.44)"),
        ({"stability": np.nan}, "points", "It points."),
    ],
)
def test_descriptions_decide_nothing_and_an_unstable_map_is_vetoed(measures, level, says):
    verdict = judge(measures, POINTS)
    assert verdict.level == level
    assert says in str(verdict)
    assert judge(measures).level == ("unstable" if level == "unstable" else "uncalibrated")


def test_on_a_scene_the_published_order_comes_out(monkeypatch):
    """Guided backpropagation changes last as weights become random, Grad-CAM first; without a calibration nothing is judged."""
    cascade = dataclasses.replace(CHECKS["randomisation"], make=functools.partial(randomise, alone=False))
    monkeypatch.setitem(CHECKS, "randomisation", cascade)
    network = load_network()
    images = torch.stack([PREPROCESSING.tensor(draw_scene(s, ["cat", "dog"]).picture) for s in (3_000_000,)])
    found = {
        method: relume.audit(network, images, CLASSES.index("cat"), method, checks=["edges", "classes", "randomisation"])
        for method in ("gradient", "guided_backprop", "guided_gradcam", "gradcam")
    }
    assert {report.verdict.level for report in found.values()} == {"uncalibrated"}
    measures = {method: {k: v.mean() for k, v in report.measures.items()} for method, report in found.items()}
    for key in ("cascade", "classes", "edges"):
        assert measures["guided_backprop"][key] > measures["gradient"][key] > measures["gradcam"][key], key
    assert abs(measures["guided_gradcam"]["classes"] - measures["gradcam"]["classes"]) < 0.1
    assert found["gradcam"].checks["randomisation"].cascade.keys() == SIMILARITIES.keys()
