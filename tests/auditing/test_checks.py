"""The formulas of the audit against their slow twins and against Quantus."""

import copy
import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import relume
from relume.auditing.checks import complexity, faithfulness, stability
from relume.auditing.checks import removal as imputation
from relume.auditing.checks.random_weights import randomise_layer
from relume.auditing.subject import Subject
from relume.errors import InputError
from relume.maps import upsample
from relume.measures import similarity
from relume.measures.similarity import Maps
from relume.models.libraries import import_torchvision
from tests.reference import audit as twin
from tests.reference import measures


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Similarity ----------------------------------------------------------------------------------------------------------


def test_similarities_are_their_twins(rng):
    for _ in range(3):
        a, b = rng.random((2, 26, 24))
        b += 0.7 * a
        raw_a, raw_b = rng.standard_normal((2, 3, 5, 6)).round(1)  # with ties
        assert similarity.ssim(a, b) == pytest.approx(twin.ssim(a, b), rel=1e-12)
        assert similarity.hog(a) == pytest.approx(twin.hog(a, 3), abs=1e-6)  # scikit-image sums in float32
        assert similarity.hog_correlation(a, b) == pytest.approx(twin.pearson(twin.hog(a, 3), twin.hog(b, 3)), abs=1e-6)
        assert similarity.spearman(raw_a, raw_b) == pytest.approx(measures.rank_correlation(raw_a, raw_b), rel=1e-12)


@pytest.mark.parametrize("size", [(30,), (12, 13, 11)])
def test_ssim_of_signals_and_volumes_is_its_twin(rng, size):
    a, b = rng.random((2, *size))
    b += 0.7 * a
    assert similarity.ssim(a, b) == pytest.approx(twin.ssim(a, b), rel=1e-12)
    maps = [Maps.of(torch.rand(2, 3, *size, generator=generator(seed)), size) for seed in (1, 2)]
    assert maps[0].compare(maps[1]).keys() == {"signed", "absolute", "ssim"}


def test_the_table_compares_raw_values_with_signs_and_saliency_without():
    a, b = torch.randn(2, 2, 3, 32, 32, generator=generator(), dtype=torch.float64)
    found = Maps.of(a, (32, 32)).compare(Maps.of(b, (32, 32)))
    for i in range(2):
        assert found["signed"][i] == pytest.approx(stats.spearmanr(a[i].flatten(), b[i].flatten())[0])
        sa, sb = (x[i].abs().amax(0).numpy() for x in (a, b))
        assert found["absolute"][i] == pytest.approx(stats.spearmanr(sa.ravel(), sb.ravel())[0])
        assert found["ssim"][i] == pytest.approx(similarity.ssim(sa, sb))
        assert found["hog"][i] == pytest.approx(similarity.hog_correlation(sa, sb))
    same = Maps.of(a, (32, 32)).compare(Maps.of(1000 * a, (32, 32)))
    for key, values in same.items():
        assert values == pytest.approx([1, 1]), key


def test_coarse_maps_are_enlarged_and_small_ones_have_no_structure():
    coarse = torch.rand(1, 4, 4, generator=generator())
    maps = Maps.of(coarse, (40, 40))
    np.testing.assert_allclose(maps.saliency, upsample(coarse, (40, 40)).double())
    small = Maps.of(torch.rand(1, 3, 12, 12), (12, 12))
    found = small.compare(Maps.of(torch.rand(1, 3, 12, 12), (12, 12)))
    assert [key for key, value in found.items() if np.isnan(value[0])] == ["ssim", "hog"]
    assert np.isnan(small.compare(Maps.of(coarse, (12, 12)))["signed"])


def test_a_constant_map_says_nothing_and_tells_nothing(rng):
    varied, flat = rng.random((30, 30)), np.full((30, 30), 0.5)
    for formula in (similarity.spearman, similarity.correlation, similarity.ssim, similarity.hog_correlation):
        assert formula(varied, flat) == 0
        assert np.isnan(formula(flat, varied))
        assert np.isnan(formula(varied, np.full_like(varied, np.nan)))
    assert list(Maps(np.stack([flat, varied]), np.stack([flat, varied])).empty) == [True, False]


def test_means_are_over_what_is_defined():
    values = np.array([[1.0, np.nan, 2.0], [np.nan, np.nan, 4.0]])
    np.testing.assert_array_equal(similarity.defined_mean(values), [1.0, np.nan, 3.0])


# --- Faithfulness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count"), [((7, 9), 1), ((7, 9), 7), ((7, 9), 40), ((7, 9), 62), ((12,), 7), ((3, 4, 3), 1), ((3, 4, 3), 24)]
)
def test_imputation_is_its_twin(rng, size, count):
    total = math.prod(size)
    image, removed = rng.standard_normal((3, *size)), rng.permutation(total)[:count]
    found = imputation.imputed(image, removed, generator(), noise=0)
    places = [tuple(map(int, np.unravel_index(p, size))) for p in removed]
    for ours, channel in zip(found, image, strict=True):
        np.testing.assert_allclose(ours, twin.imputed(channel, places), atol=1e-5 if len(size) == 3 else 1e-10)
    noisy = imputation.imputed(image, removed, generator(), noise=0.5)
    assert np.array_equal(noisy != image, np.isin(np.arange(total), removed).reshape(size)[None].repeat(3, 0))
    assert np.array_equal(noisy, imputation.imputed(image, removed, generator(), noise=0.5))
    spread = np.std([imputation.imputed(image, removed, generator(s), 0.5)[0] - found[0] for s in range(200)], axis=0)
    assert spread.ravel()[removed].mean() == pytest.approx(0.5, rel=0.1)


def test_nothing_removed_is_the_picture(rng):
    image = rng.standard_normal((3, 5, 5))
    assert np.array_equal(imputation.imputed(image, np.array([], dtype=int), generator()), image)


def test_the_order_is_from_the_highest_down_and_ties_fall_by_chance():
    heat = np.array([[3.0, 1.0], [2.0, 5.0]])
    assert list(imputation.order(heat, generator())) == [3, 0, 2, 1]
    flat = [tuple(imputation.order(np.ones((2, 2)), generator(s))) for s in range(60)]
    assert len(set(flat)) > 12


def test_areas_are_their_twins(rng):
    shares, curve = np.sort(rng.random(6)), rng.random(6)
    assert faithfulness.area(shares, curve) == pytest.approx(twin.area(list(shares), list(curve)))


# --- Stability -----------------------------------------------------------------------------------------------------------


def test_sensitivity_and_shifts_are_their_twins(rng):
    a, b = rng.standard_normal((2, 20))
    assert stability.sensitivity(a, b) == pytest.approx(twin.sensitivity(a, b))
    assert np.isnan(stability.sensitivity(np.zeros(3), b))
    assert stability.shifts((3, 4)) == [(1, 0), (-1, 0), (0, 1), (0, -1)]
    assert stability.shifts((2, 9)) == [(0, 1), (0, -1)]
    for size in ((5,), (3, 4), (3, 2, 4)):
        image = torch.rand(1, 1, *size)
        for by in (*stability.shifts(size), (0,) * len(size)):
            moved = stability.shifted(image, by)[0, 0]
            for place in np.ndindex(size):
                source = [min(max(i - n, 0), side - 1) for i, n, side in zip(place, by, size, strict=True)]
                assert moved[place] == image[0, 0][tuple(source)]
    with pytest.raises(InputError, match="images of 2×1 pixels are too small to be moved by one"):
        stability.shifts((2, 1))


# --- Complexity ----------------------------------------------------------------------------------------------------------


def test_entropy_is_its_twin_and_rises_as_order_goes(rng):
    for heat in (rng.random((20, 30)), rng.random((20, 30)) ** 4, np.arange(600.0).reshape(20, 30) // 40):
        assert complexity.discrete_entropy(heat) == pytest.approx(twin.discrete_entropy(heat.ravel()), rel=1e-12)
    assert np.isnan(complexity.discrete_entropy(np.full((4, 4), 0.3)))
    assert np.isnan(complexity.discrete_entropy(np.array([[0.1, np.nan]])))
    assert complexity.Complexity(np.array([2.0]), np.array([3.0])).rise == [0.5]


def test_complexity_is_of_the_network_with_every_layer_random(network):
    images = torch.randn(2, 3, 16, 16, generator=generator())
    subject = Subject.of(network, images, 1, "gradient", seed=7)
    other, drawn = copy.deepcopy(network), generator(7)
    for name in ("4", "0"):
        randomise_layer(other, name, drawn)
    found = complexity.measure_complexity(subject)
    maps = [relume.Gradient(model).attribute(images, 1).abs().amax(1) for model in (network, other)]
    for ours, heats in zip((found.trained, found.untrained), maps, strict=True):
        assert ours == pytest.approx([twin.discrete_entropy(heat.flatten().double()) for heat in heats], abs=0.02)


# --- Quantus -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantus():
    import_torchvision()  # which Quantus imports, and which needs help beside a CPU-only torch
    return pytest.importorskip("quantus")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5)
    ).eval()


def test_quantus_agrees_on_similarities(quantus, rng):
    a, b = rng.random((2, 32, 32))
    functions = quantus.functions.similarity_func
    assert similarity.spearman(a, b) == pytest.approx(functions.correlation_spearman(a.ravel(), b.ravel()))
    assert similarity.correlation(a, b) == pytest.approx(functions.correlation_pearson(a.ravel(), b.ravel()))
    theirs = quantus.functions.complexity_func.discrete_entropy(a, a)
    assert complexity.discrete_entropy(a) == pytest.approx(theirs)


def test_quantus_agrees_on_imputation(quantus, rng):
    image, removed = rng.standard_normal((3, 8, 8)), rng.permutation(64)[:30]
    theirs = quantus.functions.perturb_func.noisy_linear_imputation(image, removed, noise=0.0)
    np.testing.assert_allclose(imputation.imputed(image, removed, generator(), noise=0), theirs, atol=1e-10)


def test_quantus_agrees_on_deletion(quantus, network, rng):
    """Its pixel flipping to black, ours of a picture whose mean colour is black, over the same map without ties."""
    image = torch.randn(1, 3, 16, 16, generator=generator())
    image -= image.mean((2, 3), keepdim=True)
    heat = rng.permutation(256).reshape(1, 16, 16).astype(float)
    subject = Subject.of(network, image, method="gradient", activation="softmax")
    ours = faithfulness.measure_faithfulness(dataclasses.replace(subject, maps=Maps(heat, heat)))
    ours = ours.curves["deletion"]["method"][0]
    metric = quantus.PixelFlipping(
        features_in_step=8, perturb_baseline=0.0, disable_warnings=True, normalise=False, abs=False, display_progressbar=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metric(
            model=network,
            x_batch=image.numpy(),
            y_batch=subject.classes.numpy(),
            a_batch=heat[:, None],
            softmax=True,
            device="cpu",
        )
    np.testing.assert_allclose(ours[1:], np.ravel(theirs)[2::3], rtol=1e-4)  # it takes out one channel after the other


def test_quantus_agrees_on_randomisation_and_other_classes(quantus, network):
    """On networks and classes that it made: it draws them by global seeds of its own."""
    image = torch.randn(2, 3, 16, 16, generator=generator())
    subject = Subject.of(network, image, method="gradient")
    original, options = subject.maps, {"disable_warnings": True, "normalise": False, "abs": False}

    def explain(model, inputs, targets, **_):
        return relume.Gradient(model).attribute(torch.as_tensor(inputs), torch.as_tensor(targets)).numpy()

    given = {"x_batch": image.numpy(), "y_batch": subject.classes.numpy(), "a_batch": original.raw, "explain_func": explain}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = quantus.MPRT(similarity_func=quantus.functions.similarity_func.correlation_spearman, seed=3, **options)
        theirs = metric(model=network, device="cpu", **given)
        wrapped = quantus.helpers.utils.get_wrapped_model(network, channel_first=True, softmax=False, device="cpu")
        for name, random in wrapped.get_random_layer_generator(order="top_down", seed=3):
            np.testing.assert_allclose(original.compare(subject.maps_of(random))["signed"], theirs[name], atol=1e-9)
        logit = quantus.RandomLogit(
            similarity_func=quantus.functions.similarity_func.correlation_spearman, num_classes=5, seed=3, **options
        )
        found = logit(model=network, device="cpu", **given)
    others = [original.compare(maps)["signed"] for maps in subject.maps_for([torch.full((2,), c) for c in range(5)])]
    for i in range(2):
        assert min(abs(found[i] - other[i]) for c, other in enumerate(others) if c != int(subject.classes[i])) < 1e-9
