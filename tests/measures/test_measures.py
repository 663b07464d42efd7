"""Each measure against its slow twin, against values worked out by hand, and against Quantus where it has the measure."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relume.measures import MEASURES, Estimate, Maps, Truth, estimate, measure, spearman
from relume.measures.baselines import BASELINES, centred, sobel
from relume.measures.localisation import correlation_length, pointing, rank_accuracy, rank_correlation, share
from relume.models.libraries import import_torchvision
from tests.reference import measures as twin

SHAPES = ((7, 9), (31,), (3, 4, 5))


def heats(shape):
    """Few values, so that ties and zeros are common; and any."""
    few, any_values = st.sampled_from([0.0, 0.25, 1.0]), st.floats(0, 1, width=16)
    return st.one_of(hnp.arrays(np.float64, shape, elements=elements) for elements in (few, any_values))


def masks(shape):
    return hnp.arrays(np.bool_, shape)


def together(*kinds):
    """Arrays of several kinds, all of one shape of one, two or three axes."""
    return st.sampled_from(SHAPES).flatmap(lambda shape: st.tuples(*(kind(shape) for kind in kinds)))


def same(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@settings(max_examples=150, deadline=None)
@given(together(heats, masks, masks))
def test_every_measure_is_its_twin(arrays):
    heat, target, others = arrays
    things = target | others
    truth = Truth(target, things)
    got = measure(heat, truth)
    reach = max(target.shape) / 16
    near, band = twin.within_distance(target, reach), twin.band(target)
    off = ~things
    tolerated = twin.within_distance(target, round(0.03 * max(target.shape)))
    alone = not (things & ~target).any()
    expected = {
        "mass_accuracy": twin.share(heat, target),
        "rank_accuracy": twin.rank_accuracy(heat, target),
        "pixel_auc": twin.pixel_auc(heat, target),
        "gini": twin.gini(heat),
        "entropy": twin.entropy(heat),
        "right_thing": np.nan if alone else twin.share(heat, target, things),
        "boundary": twin.share(heat, band),
        "within": twin.share(heat, band | target),
        "noise": twin.share(heat, off),
        "local_noise": twin.share(heat, near & off, near),
        "pointing": twin.pointing(heat, target),
        "pointing_tolerant": twin.pointing(heat, tolerated),
    }
    assert expected.keys() == MEASURES.keys() - {"correlation_length"}
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-9, atol=1e-9, equal_nan=True, err_msg=key)


@settings(max_examples=40, deadline=None)
@given(together(heats))
def test_the_correlation_length_is_its_twin(arrays):
    (heat,) = arrays
    if np.ptp(heat) == 0:
        assert np.isnan(correlation_length(heat))
    elif np.ptp(heat) > 1e-3:  # less contrast is rounding in the one or the other
        same(correlation_length(heat), twin.correlation_length(heat))


@settings(max_examples=60, deadline=None)
@given(together(heats, heats))
def test_the_rank_correlation_is_its_twin(arrays):
    a, b = arrays
    assert rank_correlation(a, b) == pytest.approx(twin.rank_correlation(a, b), rel=1e-9, abs=1e-9, nan_ok=True)


cells_of_a_picture = st.lists(st.booleans(), min_size=16, max_size=16)


@given(cells_of_a_picture)
@settings(max_examples=8, deadline=None)
def test_the_regions_of_a_larger_picture_are_their_twins(cells):
    regions_are_their_twins(cells)


@pytest.mark.slow
@given(cells_of_a_picture)
@settings(max_examples=200, deadline=None)
def test_the_regions_of_many_larger_pictures_are_their_twins(cells):
    regions_are_their_twins(cells)


def regions_are_their_twins(cells):
    """At 32 pixels, where neighbourhood and tolerance are more than a pixel."""
    target = np.kron(np.array(cells).reshape(4, 4), np.ones((5, 8))).astype(bool)
    truth = Truth(target, target)
    np.testing.assert_array_equal(truth.band, twin.band(target))
    np.testing.assert_array_equal(truth.near, twin.within_distance(target, 2))
    np.testing.assert_array_equal(truth.tolerated, twin.within_distance(target, 1))
    same(truth.blurred, twin.gaussian_blur(target, 2.0))


def test_distances_go_by_the_longer_side():
    target = np.zeros((40, 200), dtype=bool)
    target[20, 100] = True
    truth = Truth(target, target)
    assert truth.tolerated[20, 106]
    assert not truth.tolerated[20, 107]
    assert truth.near[20, 112]
    assert not truth.near[20, 113]


# --- By hand -------------------------------------------------------------------------------------------------------------


def test_values_worked_out_by_hand():
    target = np.zeros((4, 4), dtype=bool)
    target[1:3, 1:3] = True
    things = target.copy()
    things[0, 0] = True
    heat = np.zeros((4, 4))
    heat[1, 1], heat[2, 2], heat[0, 0], heat[3, 3] = 4, 2, 3, 1
    assert share(heat, target) == 0.6
    assert share(heat, target, things) == pytest.approx(6 / 9)
    assert share(heat, ~things) == 0.1
    assert rank_accuracy(heat, target) == 0.5  # of the four highest, two are on the target
    assert pointing(heat, target) == 1
    assert pointing(heat.T[::-1], target) == 1
    heat[0, 0] = 4  # now two pixels share the first place, and one of them is a hit
    assert pointing(heat, target) == 0.5


def test_a_constant_map_scores_by_chance_and_a_map_of_zeros_not_at_all():
    target = np.zeros((10, 10), dtype=bool)
    target[:2] = True
    truth = Truth(target, target)
    by_chance = measure(np.ones((10, 10)), truth)
    assert by_chance["mass_accuracy"] == by_chance["rank_accuracy"] == by_chance["pointing"] == pytest.approx(0.2)
    assert all(np.isnan(value) for value in measure(np.zeros((10, 10)), truth).values())


def test_the_perfect_map_is_perfect():
    target = np.zeros((32, 32), dtype=bool)
    target[8:20, 8:20] = True
    things = target.copy()
    things[24:, 24:] = True
    got = measure(target.astype(float), Truth(target, things))
    for key in ("mass_accuracy", "rank_accuracy", "right_thing", "within", "pointing", "pointing_tolerant"):
        assert got[key] == 1, key
    assert got["noise"] == got["local_noise"] == 0


@pytest.mark.parametrize("sigma", [1.5, 3.0, 5.0])
def test_the_correlation_length_of_smoothed_noise_is_known(sigma):
    """White noise blurred by a Gaussian of σ has the autocorrelation exp(-r² / 4σ²), which is 1/e at 2σ."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    lengths = [correlation_length(gaussian_filter(rng.standard_normal((256, 256)), sigma) + 10) for _ in range(8)]
    assert np.mean(lengths) == pytest.approx(2 * sigma, rel=0.05)


def test_the_correlation_length_of_white_noise_is_less_than_a_pixel_and_of_a_ramp_long():
    assert correlation_length(np.random.default_rng(0).random((64, 64))) < 1
    assert correlation_length(np.broadcast_to(np.linspace(0, 1, 64), (64, 64))) > 15


def test_a_picture_that_is_all_target_has_no_boundary():
    target = np.ones((8, 8), dtype=bool)
    truth = Truth(target, target)
    assert not truth.band.any()
    assert truth.near.all()


# --- Quantus -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantus():
    import_torchvision()  # which Quantus imports, and which needs help beside a CPU-only torch
    return pytest.importorskip("quantus")


def test_quantus_agrees(quantus):
    """On maps without ties: with them, Quantus takes the order in memory, or any of the highest pixels."""
    rng = np.random.default_rng(0)
    maps = rng.random((20, 16, 16))
    truths = np.zeros((20, 16, 16), dtype=bool)
    for mask in truths:
        top, left, height, width = (*rng.integers(0, 8, 2), *rng.integers(2, 8, 2))
        mask[top : top + height, left : left + width] = True
    options = {"disable_warnings": True, "normalise": False, "abs": False}
    for theirs, ours in (
        (quantus.RelevanceMassAccuracy, share),
        (quantus.RelevanceRankAccuracy, rank_accuracy),
        (quantus.PointingGame, pointing),
    ):
        expected = theirs(**options).evaluate_batch(a_batch=maps[:, None], s_batch=truths[:, None])
        np.testing.assert_allclose([ours(m, t) for m, t in zip(maps, truths, strict=True)], expected, rtol=1e-12)
    assert 0 < np.mean([pointing(m, t) for m, t in zip(maps, truths, strict=True)]) < 1


# --- Baselines and estimates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 8), (9,), (4, 3, 5)])
def test_sobel_is_its_twin(size):
    image = np.random.default_rng(0).standard_normal((3, *size))
    same(sobel(image), twin.sobel(image.mean(0)))


def test_what_is_of_one_colour_has_no_edges():
    assert not sobel(np.full((3, 5, 5), 0.3)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_baselines_are_maps_of_the_size_of_the_image(shape):
    image = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    target = np.zeros(shape, dtype=bool)
    target[1:3] = True
    for name, baseline in BASELINES.items():
        heat = baseline.draw(image, Truth(target, target), np.random.default_rng(1))
        assert heat.shape == shape, name
        assert heat.min() >= 0, name
        assert heat.max() > 0, name
    assert centred((9, 9)).argmax() == 40
    same(centred((9, 9))[4, 4] / centred((9, 9))[4, 4 + 2], np.exp(0.5 * (2 / 9 / 0.25) ** 2))
    same(centred((9, 9, 9))[4], centred((9, 9)))


def test_similarities_are_those_of_maps_of_any_axes():
    """A coarse map of a volume has as many axes as a fine one of a picture, and is upsampled all the same."""
    for size in ((30,), (24, 28), (24, 25, 26)):
        torch.manual_seed(0)
        fine, coarse = torch.rand(2, 3, *size), torch.rand(2, *(4 for _ in size))
        values = Maps.of(fine, size).compare(Maps.of(fine.flip(0), size))
        expected = [spearman(*(image.abs().amax(0).numpy() for image in pair)) for pair in zip(fine, fine.flip(0), strict=True)]
        same(values["absolute"], expected)
        assert np.isfinite(values["ssim"]).all()
        assert ("hog" in values) == (len(size) == 2)
        assert Maps.of(coarse, size).saliency.shape == (2, *size)
        blank = Maps.of(torch.stack([fine[0], torch.zeros_like(fine[0])]), size).defined()
        assert np.isnan(blank.saliency).reshape(2, -1).all(1).tolist() == [False, True]


def test_the_interval_of_a_mean_is_the_textbooks():
    """For many values the bootstrap's interval is mean ± 1.96 standard errors."""
    values = np.random.default_rng(0).standard_normal(2000) + 5
    e = estimate([*values, np.nan])
    error = values.std() / np.sqrt(len(values))
    assert e.mean == pytest.approx(values.mean())
    assert e.count == 2000
    assert (e.mean - e.low) / error == pytest.approx(1.96, rel=0.06)
    assert (e.high - e.mean) / error == pytest.approx(1.96, rel=0.06)
    assert estimate(values) == estimate(values)
    assert estimate(values, seed=1) != estimate(values)


def test_an_estimate_of_little_says_so():
    assert str(estimate([np.nan])) == "–"
    assert str(estimate([0.5])) == "0.50"
    one = functools.partial(estimate, [1.0, 1.0])
    assert str(one()) == "1.00 [1.00, 1.00]"
    e = Estimate(0.5, 0.4, 0.7, 9)
    assert (str(e), e.brief()) == ("0.50 [0.40, 0.70]", "0.50 ±0.15")
    assert Estimate(-0.001, -0.1, 0.1, 9).brief() == "0.00 ±0.10"
    assert str(Estimate(-0.17, -0.25, 0.1, 9)) == "−0.17 [−0.25, 0.10]"  # with minus signs that are some
    assert str(Estimate(30.24, 29, 31, 9)) == "30.2 [29.0, 31.0]"
