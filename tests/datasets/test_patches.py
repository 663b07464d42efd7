"""Patches: cut out where pictures agree, and found again where they are."""

import numpy as np

from relume.datasets.shortcuts.patches import aligned_patch, found_places, patch_at_one_place

RNG = np.random.default_rng(0)
STAMP = RNG.choice([20, 230], (9, 10, 3)).astype(np.uint8)


def noise(count, side):
    return RNG.integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def test_what_is_the_same_at_one_place_is_cut_out():
    group = noise(10, 128)
    group[:8, 30:39, 50:60] = STAMP
    patch = patch_at_one_place(group, noise(20, 128))
    assert patch.places.tolist() == [[30, 50]]
    assert patch.mask.all()
    np.testing.assert_array_equal(patch.pixels, STAMP)
    assert 0.7 * STAMP[..., 0].size < patch.sameness <= 0.8 * STAMP[..., 0].size  # 8 of 10 have it, and all of it is edges
    assert patch_at_one_place(noise(10, 128), noise(20, 128)) is None


def test_what_is_the_same_elsewhere_too_is_not():
    group, others = noise(10, 128), noise(20, 128)
    group[:, 30:39, 50:60] = others[:, 30:39, 50:60] = STAMP
    assert patch_at_one_place(group, others) is None


def test_windows_are_moved_to_agree():
    windows, corners = noise(12, 32), np.arange(24).reshape(12, 2)
    moves = RNG.integers(0, 5, (12, 2))
    for window, (top, left) in zip(windows, moves, strict=True):
        window[8 + top : 17 + top, 6 + left : 16 + left] = STAMP
    patch = aligned_patch(windows, corners, noise(20, 32), 1.0)
    np.testing.assert_array_equal(patch.pixels[patch.mask], STAMP[patch.mask])
    np.testing.assert_array_equal(patch.places, corners + moves + [8, 6])


def test_a_patch_is_found_where_a_slow_search_finds_it():
    group, pictures = noise(6, 128), noise(3, 40)
    group[:, 5:14, 7:17] = STAMP
    patch = patch_at_one_place(group, noise(8, 128))
    pictures[1, 31:40, 30:40] = STAMP
    (distances, places), again = found_places([patch, patch], pictures)
    np.testing.assert_array_equal(distances, again[0])
    assert distances[1] < 0.1
    assert places[1].tolist() == [31, 30]
    values = pictures[2].astype(float)
    slow = [
        (np.sqrt(np.square(values[top : top + 9, left : left + 10] - STAMP).mean()), top, left)
        for top in range(32)
        for left in range(31)
    ]
    np.testing.assert_allclose([distances[2], *places[2]], min(slow), rtol=1e-4)
