"""Candidates: maxima of maps, the places that they crowd at, and clusters of what they are on."""

import numpy as np
import torch

from relume.datasets.shortcuts.candidates import Peaks, clusters, likely_windows, peaks_of, resized, typical_first, whitened


def test_maxima_are_those_of_their_surroundings():
    maps = torch.zeros(2, 16, 16)
    for row, column, value in ((3, 4, 1.0), (4, 5, 0.9), (10, 12, 0.5), (15, 0, 0.2)):  # near a higher one; too low
        maps[0, row, column] = value
    peaks = peaks_of(maps)
    assert peaks.pictures.tolist() == [0, 0]
    assert peaks.cells.tolist() == [[3, 4], [10, 12]]
    np.testing.assert_allclose(peaks.centres[0], [3.5 / 16, 4.5 / 16])


def test_a_coarse_map_keeps_its_place():
    heat = torch.zeros(7, 7)
    heat[1, 5] = 3.0
    grid = resized(heat)
    assert grid.shape == (16, 16)
    assert float(grid.max()) == 1
    centre = peaks_of(grid[None]).centres[0]
    np.testing.assert_allclose(centre, [1.5 / 7, 5.5 / 7], atol=1 / 16)


def test_windows_are_those_that_other_classes_do_not_fill():
    rng = np.random.default_rng(0)
    anywhere, crowd = rng.integers(0, 16, (200, 2)), np.full((30, 2), 8)
    others = Peaks(np.arange(230), np.concatenate([anywhere, crowd]))
    own = Peaks(np.arange(90), np.concatenate([rng.integers(0, 16, (40, 2)), crowd, np.full((20, 2), 2)]))
    first, _ = likely_windows(own, others)
    assert set(range(70, 90)) <= set(first.tolist()), "the place of its own, not the one that all share"


def test_clusters_are_groups_of_like_activations():
    rng, kinds = np.random.default_rng(0), np.repeat(np.arange(4), 20)
    points = whitened(
        (rng.normal(0, 0.05, (80, 3)) + 3 * np.array([[1, 0, 0], [-1, 1, 0], [0, -1, 1], [1, 1, -1]])[kinds]).astype(np.float32)
    )
    for group in clusters(points):
        assert len(set(kinds[group])) == 1
        assert sorted(typical_first(points, group)) == sorted(group)
    for nothing in (np.zeros((80, 0), np.float32), np.ones((80, 4), np.float32), np.ones((1, 4), np.float32)):
        assert not [*clusters(whitened(nothing))]
