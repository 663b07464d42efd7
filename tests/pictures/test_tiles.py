"""Tiles: they cover a picture, their weights sum to one, and what is stitched is what was cut."""

import itertools

import numpy as np
import pytest

from relume.errors import InputError
from relume.pictures.tiles import Strip, check_tiles, pieces


@pytest.mark.parametrize(
    ("side", "size", "overlap"), [(100, 40, 8), (40, 40, 8), (30, 40, 8), (1000, 64, 0), (103, 32, 31), (41, 40, 0)]
)
def test_pieces_cover_a_side_and_their_weights_sum_to_one(side, size, overlap):
    total, covered = np.zeros(side), pieces(side, size, overlap)
    for piece in covered:
        assert piece.end - piece.start == min(size, side) == len(piece.weights)
        assert (piece.weights >= 0).all()
        total[piece.start : piece.end] += piece.weights
    assert np.allclose(total, 1, atol=1e-6)
    assert all(one.end - other.start >= overlap for one, other in itertools.pairwise(covered))


def test_a_map_that_is_cut_and_stitched_is_itself():
    whole = np.random.default_rng(0).normal(size=(2, 103, 77)).astype(np.float32)
    whole[:, 40:45, 30:60] = np.nan
    rows, columns = pieces(103, 32, 8), pieces(77, 32, 8)
    strip, parts = Strip(2, 77), []
    for row, end in zip(rows, [*(piece.start for piece in rows[1:]), 103], strict=True):
        for column in columns:
            strip.add(whole[:, row.start : row.end, column.start : column.end], row, column)
        parts.append(strip.until(end))
    assert np.allclose(np.concatenate(parts, axis=1), whole, atol=1e-6, equal_nan=True)


def test_where_no_tile_lies_it_is_nan():
    row, first, _ = pieces(8, 8, 0)[0], *pieces(16, 8, 0)
    strip = Strip(1, 16)
    strip.add(np.ones((1, 8, 8)), row, first)
    assert np.array_equal(strip.until(8)[0, 0], [1.0] * 8 + [np.nan] * 8, equal_nan=True)
    assert np.isnan(strip.until(12)).all()


@pytest.mark.parametrize("tiles", [(0, 0), (8, 8), (8, -1)])
def test_tiles_that_cover_nothing_are_refused(tiles):
    with pytest.raises(InputError, match="tiles are a size in pixels from 1 on, and an overlap from 0 to below it; got"):
        check_tiles(*tiles)
