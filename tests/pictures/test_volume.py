"""Volumes drawn: three planes through the centre of mass, each where it belongs, and the strongest of all slices."""

import numpy as np
import pytest
from PIL import Image

from relume.pictures.kinds import KINDS
from relume.pictures.montage import DrawnMap, Tile
from relume.pictures.recording import Recording
from relume.pictures.volume import centre, tiles, volume

SIZE = (6, 10, 8)
GENERATOR = np.random.default_rng(5)
VALUES = GENERATOR.normal(size=SIZE).astype(np.float32)
SCAN = Recording(GENERATOR.normal(size=(1, *SIZE)).astype(np.float32), "volume", spacing=(2, 1, 1.5))


def drawn(values, kind="absolute", scale=2.0):
    return DrawnMap(KINDS[kind], np.asarray(values, np.float32), scale)


def heat(values, scale=2.0):
    """The colours that a plane of a map has at its own resolution."""
    return KINDS["absolute"].draw(np.ascontiguousarray(values), scale, None)


def test_each_plane_has_the_maps_own_colours_and_slices_rise():
    at, pixels = (4, 2, 5), SIZE  # a pixel for each voxel
    planes = tiles(SCAN, drawn(VALUES), at, pixels)
    expected = [
        VALUES[4],
        VALUES[::-1, 2],
        VALUES[::-1, :, 5],
        np.take_along_axis(VALUES, np.abs(VALUES).argmax(0)[None], 0)[0],
    ]
    for tile, values in zip(planes, expected, strict=True):
        without_lines = Tile(tile.photo, drawn=tile.drawn)
        assert np.array_equal(np.asarray(without_lines.picture()), np.asarray(heat(values)))
    assert [tile.label for tile in planes] == ["slice 4 of 6", "row 2 of 10", "column 5 of 8", "strongest of all slices"]


def test_the_scan_has_one_range_of_grey_in_all_planes_and_its_mean_another():
    ramp = np.broadcast_to(np.linspace(-1000, 3000, 6, dtype=np.float32)[:, None, None], SIZE)
    scan = Recording(ramp[None].copy(), "volume", limits=(-1000.0, 3000.0))
    planes = tiles(scan, None, (1, 2, 3), SIZE)
    greys = [np.asarray(tile.photo.picture)[..., 0] for tile in planes]
    assert np.unique(greys[0]).tolist() == [51]  # a fifth of 255
    assert greys[1][:, 0].tolist() == greys[2][:, 0].tolist() == [255, 204, 153, 102, 51, 0]  # the first slice is the lowest
    assert abs(int(greys[3][0, 0]) - 127) <= 1


def test_planes_cut_at_the_centre_of_mass():
    values = np.zeros(SIZE, np.float32)
    values[4, 2, 6], values[4, 2, 2] = -3, 1
    assert centre(SCAN, drawn(values)) == (4, 2, 5)
    assert centre(SCAN, drawn(values[None].repeat(2, 0))) == (4, 2, 5)  # (C, D, H, W)
    assert centre(SCAN, drawn(np.zeros(SIZE))) == centre(SCAN) == (3, 5, 4)


def test_a_map_lies_in_its_box_and_what_was_never_seen_is_dimmed():
    """The network saw slices 2 to 5 at half their number, rows from -2 (padding) to 6, columns 4 to 8 at double number."""
    scan = SCAN.within(((2, 6), (-2, 6), (4, 8)))
    values = np.zeros((2, 8, 8), np.float32)
    values[1, 5, 3] = 1  # slices 4 and 5, row 3, half of column 5
    assert centre(scan, drawn(values)) == (5, 3, 5)
    planes = tiles(scan, drawn(values, scale=1.0), (5, 3, 5), SIZE)
    assert [tile.photo.box for tile in planes] == [(4, -2, 8, 6), (4, 0, 8, 4), (-2, 0, 6, 4), (4, -2, 8, 6)]
    assert [tile.photo.seen for tile in planes] == [(4, 0, 8, 6), (4, 0, 8, 4), (0, 0, 6, 4), (4, 0, 8, 6)]
    assert np.argwhere(planes[0].drawn.values).tolist() == [[5, 3]]
    assert np.argwhere(planes[2].drawn.values).tolist() == [[0, 5]]  # slices rise
    untouched = np.asarray(planes[0].picture())[8:, :5]
    grey = np.asarray(planes[0].photo.picture.convert("L"))[8:, :5].astype(float)
    assert np.abs(untouched[..., 0] - (25.5 + 0.3 * grey)).max() < 1


def test_a_finer_map_shows_the_strongest_of_the_slices_in_a_voxel():
    values = np.zeros((12, 10, 8), np.float32)
    values[5, 3, 3], values[4, 3, 3] = -2, 1
    planes = tiles(SCAN, drawn(values, "negative"), (2, 3, 3), SIZE)
    assert planes[0].drawn.values[3, 3] == -2


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 1, 1), (0.2, 0.1, 0.3)])
def test_distances_are_in_proportion_to_the_spacing(spacing):
    scan = Recording(SCAN.values, "volume", spacing=spacing)
    extent = np.array(SIZE) * spacing
    picture = volume(scan, drawn(VALUES), (3, 5, 4), 700)
    assert max(picture.size) <= 700
    assert max(picture.size) > 680
    flat = np.asarray(picture).astype(int)
    ground = flat[0, 0]
    columns = np.flatnonzero((flat[40:] != ground).any(axis=(0, 2)))
    gaps = np.flatnonzero(np.diff(columns) > 3)
    first = columns[gaps[0]] - columns[0] + 1 if len(gaps) else len(columns)
    expected = extent[2] * (picture.width - 24) / (extent[2] + max(extent[1:]))
    assert first == pytest.approx(expected, abs=4)


def test_small_pictures_have_no_labels_and_large_scans_are_not_enlarged():
    assert volume(SCAN, None, (3, 5, 4), 150).size < (151, 151)
    wide = Recording(np.zeros((1, 2, 500, 500), np.uint8), "volume")
    assert 1000 < volume(wide, None, (1, 250, 250)).width < 1100


def test_voxels_without_a_value_are_black_and_a_constant_scan_is_grey():
    values = np.full((1, 4, 4, 4), 7, np.float32)
    values[0, 0] = np.nan
    planes = tiles(Recording(values, "volume"), None, (0, 0, 0), (4, 4, 4))
    assert isinstance(planes[0].picture(), Image.Image)
    assert np.asarray(planes[0].photo.picture).max() == 0
    assert np.asarray(planes[1].photo.picture)[..., 0].tolist() == [[128] * 4] * 3 + [[0] * 4]
    assert np.unique(np.asarray(planes[3].photo.picture)).tolist() == [128]  # the mean is of what is known
