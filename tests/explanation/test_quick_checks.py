"""The cheap checks beside every result, by value: is a map about its class, is it more than edges?"""

import copy
import html
import json
import math
import re

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

import relume
from relume.explanation.quick_checks import quick_checks
from tests.helpers.networks import Small, small_of

METHODS = list(relume.METHODS)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(5)
    return Small().eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_map_is_compared_with_the_runner_ups_and_with_edges(net, x, dtype):
    """Against SciPy, on the maps of a second call that explains the runner-up; many of their values are zero."""
    net, x = copy.deepcopy(net).to(dtype), x.to(dtype)
    e = relume.explain(net, x, [0, 1, 2], METHODS, "body", evidence="full")
    ranked = net(x).argsort(1, descending=True).tolist()
    runner_up = [next(c for c in order if c != own) for order, own in zip(ranked, [0, 1, 2], strict=True)]
    assert e.evidence.runner_up == tuple(runner_up)
    other = relume.explain(net, x, runner_up, METHODS, "body", evidence=None)
    for method in METHODS:
        for i in range(3):
            a, b = (np.asarray(one.saliency(method)[i], dtype=np.float64).ravel() for one in (e, other))
            grey = x[i].double().mean(0).numpy()
            edges = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)).ravel()
            for got, one, two in ((e.evidence.classes, a, b), (e.evidence.edges, edges, a)):
                expected = stats.spearmanr(one, two).statistic if np.ptp(one) and np.ptp(two) else math.nan
                assert got[method][i] == pytest.approx(expected, abs=1e-9, nan_ok=True), (method, i)
    assert np.ptp(e["guided_gradcam"].numpy()) > 0
    assert e.evidence.coarse == {}


@pytest.mark.parametrize("layer", ["body", ["conv1", "body"]])
def test_by_default_gradcam_alone_is_compared_with_the_runner_ups_as_coarse_as_the_layer(net, x, layer):
    """Against SciPy; with edges, all of them are compared as ever."""
    e, full = (relume.explain(net, x, [0, 1, 2], METHODS, layer, evidence=evidence) for evidence in ("quick", "full"))
    other = relume.explain(net, x, e.evidence.runner_up, ["gradcam"], layer, evidence=None)
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(e["gradcam"], other["gradcam"], strict=True)]
    assert len({round(value, 6) for value in expected}) == 3
    assert e.evidence.coarse == {"gradcam": pytest.approx(expected, abs=1e-9)}
    assert (e.evidence.runner_up, e.evidence.edges) == (full.evidence.runner_up, full.evidence.edges)
    assert e.evidence.classes == full.evidence.coarse == {}
    assert relume.explain(net, x, [0, 1, 2], ["guided_gradcam"], layer).evidence.runner_up is None


def test_the_maps_are_the_same_with_and_without_it(net, x):
    full, quick, without = (relume.explain(net, x, None, METHODS, "body", evidence=kind) for kind in ("full", "quick", None))
    assert without.evidence is None
    assert all(torch.equal(one[m], without[m]) for m in METHODS for one in (full, quick))
    assert without.doubt("gradient") == ""
    assert "similarity" not in str(without[0])


@pytest.mark.parametrize(("evidence", "name"), [("quick", "coarse map"), ("full", "map")])
def test_it_is_beside_the_map_wherever_that_goes(net, x, tmp_path, evidence, name):
    e = relume.explain(net, x, 1, ["gradient", "gradcam"], "body", evidence=evidence, labels=["a", "b", "c", "d", "e"])
    words = e.doubt("gradcam", 2)
    similar = (e.evidence.coarse or e.evidence.classes)["gradcam"][2]
    assert f" the {name} for {e.name(e.evidence.runner_up[2])} (similarity {similar:.2f}), " in words.replace("−", "-")
    assert (" map for " in e.doubt("gradient")) is (evidence == "full")
    assert e[2].doubt("gradcam") == words
    assert words in str(e[2])
    assert words in " ".join(text.get_text() for text in e.figure().texts)
    assert words in html.unescape(e._repr_html_())
    back = relume.Explanation.load(e.save(tmp_path))
    assert back.evidence == e.evidence
    assert json.loads((tmp_path / "explanation.json").read_text())["evidence"]["runner_up"] == list(e.evidence.runner_up)


def test_what_has_no_other_class_is_compared_with_edges_alone(net, x):
    for target in (lambda y: y[:, 0], relume.targets.Contrast(0, 1), relume.targets.Channel("body", 2)):
        e = relume.explain(net, x, target, ["gradient"], evidence="full")
        assert (e.evidence.runner_up, e.evidence.classes) == (None, {})
        assert "the map for" not in e.doubt("gradient")
        assert re.search(r"(almost the same as|similar to|different from) edges \(similarity −?0\.\d\d\)$", e.doubt("gradient"))


@pytest.mark.parametrize("size", [(16,), (5, 6, 7)])
def test_signals_and_volumes_have_edges_too(size):
    """Against SciPy: the length of the gradient over all axes."""
    x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(2))
    e = relume.explain(small_of(len(size)), x, None, ["gradient", "gradcam"], "2", evidence="full")
    grey = x.double().mean(1).numpy()
    for method in ("gradient", "gradcam"):
        for i in range(2):
            slopes = [ndimage.sobel(grey[i], axis) for axis in range(len(size))]
            edges = np.sqrt(np.square(slopes).sum(0))
            expected = stats.spearmanr(edges.ravel(), e.saliency(method)[i].ravel()).statistic
            assert e.evidence.edges[method][i] == pytest.approx(expected, abs=1e-9)


def test_what_has_no_places_has_no_edges():
    net = torch.nn.Sequential(torch.nn.Linear(16, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    e = relume.explain(net, torch.randn(2, 16), None, ["gradient"], evidence="full")
    assert e.evidence.edges == {}
    assert len(e.evidence.classes["gradient"]) == 2


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_large_maps_are_ranked_almost_as_by_sorting(spread):
    """Against SciPy: values over two percent and over a hundred orders of magnitude, a quarter of them zero."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 1, 120, 120, generator=generator).sub(0.5).mul(2 * spread).exp()
    maps[..., :30] = 0
    other = maps * torch.rand(maps.shape, generator=generator).mul(spread).exp()
    infos = {"gradient": relume.METHODS["gradient"].maps[0]}
    found = quick_checks(maps, {"gradient": maps}, infos, {"gradient": other}, torch.tensor([0, 1]))
    for i in range(2):
        exact = stats.spearmanr(maps[i].ravel(), other[i].ravel()).statistic
        assert found.classes["gradient"][i] == pytest.approx(exact, abs=1e-3)


def test_a_map_of_zeros_says_nothing(tmp_path):
    images, zeros = torch.zeros(1, 3, 30, 30), torch.zeros(1, 3, 30, 30)
    found = quick_checks(
        images,
        {"gradient": zeros},
        {"gradient": relume.METHODS["gradient"].maps[0]},
        {"gradient": torch.rand(1, 3, 30, 30)},
        torch.tensor([3]),
    )
    assert math.isnan(found.classes["gradient"][0])
    assert math.isnan(found.edges["gradient"][0])
    e = relume.explain(Small().eval(), torch.zeros(1, 3, 24, 24), 1, ["gradient"])
    assert math.isnan(e.evidence.edges["gradient"][0])
    assert "edges" not in e.doubt("gradient")
    assert math.isnan(relume.Explanation.load(e.save(tmp_path)).evidence.edges["gradient"][0])


def test_a_runner_up_whose_gradient_overflows_does_not_cost_the_answer(x):
    class Overflowing(torch.nn.Module):
        def forward(self, x):
            y = x.relu().flatten(1).mean(1)
            steep = (y - y.detach()) * 1e25 * 1e25  # zero, with a gradient beyond float32
            return torch.stack([y + 5, steep, y - 9], 1)

    e = relume.explain(Overflowing(), x, 0, ["gradient"], evidence="full")
    assert torch.isfinite(e["gradient"]).all()
    assert e.evidence.classes == {}
    assert len(e.evidence.edges["gradient"]) == 3


def test_a_wrapper_is_told_nothing_and_says_nothing(net, x):
    e = relume.explain(net, x, 1, ["gradient", relume.Smooth("gradient", 2)])
    assert set(e.evidence.edges) == {"gradient"}
    assert e.doubt("smooth_gradient") == ""
    assert relume.explain(net, x, 1, [relume.Smooth("gradcam", 2)], "body").evidence is None
