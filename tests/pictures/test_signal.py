"""Signals drawn: lines whose colour is their relevance, at its place; grey where the network never looked."""

import numpy as np
import pytest

from relume.pictures.kinds import KINDS
from relume.pictures.montage import DrawnMap
from relume.pictures.recording import Recording
from relume.pictures.signal import channels, line_colours, relevance, signal

FLAT = Recording(np.zeros((1, 200), np.float32), "signal", spacing=(0.5,), unit="s")


def drawn(values, kind="diverging", scale=1.0):
    return DrawnMap(KINDS[kind], np.asarray(values, np.float32), scale)


def red_and_blue(picture):
    """Where, from 0 to 1 along the axis, the picture is red and where it is blue."""
    pixels = np.asarray(picture).astype(int)
    red, blue = (np.flatnonzero((pixels[..., a] - pixels[..., b] > 60).any(axis=0)) for a, b in ((0, 2), (2, 0)))
    left, right = 0.07 * picture.width, (0.07 + 0.915) * picture.width
    return [(columns - left) / (right - left) for columns in (red, blue)]


def test_relevance_is_where_it_was_found():
    values = np.zeros(200)
    values[40:60], values[150:160] = 1, -1
    red, blue = red_and_blue(signal(FLAT, drawn(values), (0,)))
    np.testing.assert_allclose([red.min(), red.max(), blue.min(), blue.max()], [0.2, 0.3, 0.75, 0.8], atol=0.012)


def test_a_longer_signal_than_a_picture_loses_neither_its_peaks_nor_their_relevance():
    long = np.zeros((1, 50_000), np.float32)
    long[0, 12_345], values = 9, np.zeros(50_000)
    values[12_345] = 1
    picture = signal(Recording(long, "signal"), drawn(values), (0,))
    red, _ = red_and_blue(picture)
    assert red.mean() == pytest.approx(12_345 / 50_000, abs=0.003)
    rows = np.flatnonzero((np.asarray(picture).astype(int)[..., 0] - np.asarray(picture)[..., 2] > 60).any(axis=1))
    assert np.ptp(rows) > 0.5 * picture.height  # from the ground to the peak


def test_a_map_is_read_in_its_box():
    seen = FLAT.within(((50, 150),))
    read = relevance(seen, np.arange(100, dtype=np.float32))
    np.testing.assert_array_equal(np.isfinite(read), [50 <= i < 150 for i in range(200)])
    np.testing.assert_allclose(read[50:150], np.arange(100))
    coarse = relevance(seen, np.array([0, 10], np.float32))  # its values are at 75 and at 125
    np.testing.assert_allclose(coarse[[50, 74, 99, 100, 125, 149]], [0, 0, 4.9, 5.1, 10, 10], atol=1e-5)
    fine = np.zeros(400, np.float32)
    fine[[201, 203]] = -3, 2
    np.testing.assert_allclose(relevance(FLAT, fine)[[99, 100, 101, 102]], [0, -3, 2, 0])


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_fades_to_grey_at_zero_and_is_strongest_at_an_end(kind):
    colours, weight = line_colours(KINDS[kind], np.array([0, 1, -1], np.float32), 1.0)
    np.testing.assert_allclose(colours[0], 0.6, atol=1e-6)
    assert weight[0] == 0
    assert weight.max() > 0.95


def test_six_channels_at_most_and_those_of_the_strongest_maps():
    eight = Recording(np.zeros((8, 50), np.float32), "signal")
    values = np.zeros((8, 50))
    values[[1, 7], 3] = -1, 1
    assert channels(eight) == channels(eight, drawn(np.ones(50))) == (0, 1, 2, 3, 4, 5)
    assert channels(eight, drawn(values)) == (0, 1, 2, 3, 4, 7)
    assert signal(eight, drawn(values), channels(eight, drawn(values)), 900).width == 900


@pytest.mark.parametrize("values", [np.full((1, 9), np.nan), np.ones((2, 1)), np.array([[np.nan, 1, 2, np.nan]])], ids=str)
def test_signals_with_nothing_to_see_are_drawn_all_the_same(values):
    recording = Recording(values.astype(np.float32), "signal")
    assert signal(recording, drawn(np.ones(values.shape[1])), channels(recording)).width == 1200
