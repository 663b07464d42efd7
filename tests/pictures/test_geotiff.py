"""Bands with a place on the Earth: kept in maps, nodata as NaN, and damage in one sentence."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from relume.errors import ImageError
from relume.pictures import Photo, grid_of, read
from relume.pictures.formats.windows import windowed

UTM = Affine(10, 0, 500000, 0, -10, 5000000)
TURNED = Affine(8, 3, 500000, 2, -9, 5000000)
LAND = {"crs": "EPSG:32632", "transform": UTM}


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, values, bands=(), colours=None, **profile):
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype} | profile
    with rasterio.open(name, "w", driver="GTiff", **profile) as dataset:
        dataset.write(values)
        for i, band in enumerate(bands, start=1):
            dataset.set_band_description(i, band)
        if colours:
            dataset.colorinterp = colours


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize(
    ("crs", "transform", "unit", "spacing"),
    [
        ("EPSG:32632", UTM, "m", (10, 10)),
        ("EPSG:32632", TURNED, "m", (90**0.5, 68**0.5)),
        ("EPSG:4326", Affine(0.01, 0, 7, 0, 0.02, 47), "°", (0.02, 0.01)),
        ("EPSG:2263", UTM, "US survey foot", (10, 10)),
    ],
    ids=["projected", "turned", "geographic", "feet"],
)
def test_a_map_of_a_scene_lies_on_it(dtype, crs, transform, unit, spacing):
    values = np.random.default_rng(0).integers(0, 99, (5, 12, 9)).astype(dtype)
    bands = ("B02", "B03", "B04", "B08", "B11")
    write("scene.tif", values, bands, crs=crs, transform=transform)
    recording = read("scene.tif")
    assert (recording.kind, recording.unit, recording.notes, recording.limits) == ("bands", unit, (), None)
    assert recording.spacing == pytest.approx(spacing)
    np.testing.assert_array_equal(recording.values, values)
    grid = grid_of(json.loads(json.dumps(recording.as_dict()["grid"])))
    assert grid == recording.grid
    for count in (1, 5):
        marked = np.zeros((count, 12, 9), np.float32)
        marked[-1, 7, 2] = 5
        with MemoryFile(grid.write(marked)) as file, file.open() as written:
            assert written.crs == rasterio.CRS.from_user_input(crs)
            assert written.transform == transform
            np.testing.assert_array_equal(written.read(), marked)
            assert written.dtypes == ("float32",) * count
            assert written.descriptions == (bands if count == 5 else (None,))
            row, column = np.argwhere(written.read(count))[0]
            a, b, c, d, e, f = transform[:6]
            assert written.xy(row, column) == pytest.approx((a * 2.5 + b * 7.5 + c, d * 2.5 + e * 7.5 + f))


def test_nodata_and_masked_pixels_are_nan_and_transparency_is_no_band():
    values = np.random.default_rng(0).random((2, 10, 10)).astype(np.float32)
    values[0, :2] = -9999
    values[1, 5, 5] = np.nan
    write("scene.tif", values, nodata=-9999, **LAND)
    recording = read("scene.tif")
    assert recording.notes == ("10.5 % of its values are nodata",)
    hidden = (values == -9999) | np.isnan(values)
    np.testing.assert_array_equal(np.isnan(recording.values), hidden)
    np.testing.assert_array_equal(recording.values[~hidden], values[~hidden])

    colours = np.full((4, 10, 10), 255, np.uint8)
    colours[3, 0] = 0
    write("alpha.tif", colours, colours=(ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha), **LAND)
    recording = read("alpha.tif")
    assert recording.values.shape == (3, 10, 10)
    assert np.isnan(recording.values[:, 0]).all()
    assert not np.isnan(recording.values[:, 1:]).any()
    assert recording.is_colour  # and so are all of its tiles
    with windowed("alpha.tif") as picture:
        parts = [picture.read((rows, (0, 10))) for rows in ((0, 5), (5, 10))]
    assert [part.limits for part in parts] == [(0, 255)] * 2
    write("opaque.tif", colours[:3], **LAND)
    recording = read("opaque.tif")
    assert (recording.is_colour, recording.values.dtype, recording.limits) == (True, np.uint8, (0, 255))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_tiff_is_a_photo_if_pillow_reads_it_and_it_has_no_place():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        Image.new(mode, (6, 4)).save("photo.tif")
        assert isinstance(read("photo.tif"), Photo), mode
    for count, dtype in [
        (1, "float32"),
        (1, "int16"),
        (1, "uint32"),
        (2, "uint8"),
        (5, "uint8"),
        (3, "float32"),
        (7, "uint16"),
    ]:
        for name, options in {"bands.tif": {}, "big.tiff": {"bigtiff": "yes"}, "TILED.TIF": {"tiled": True}}.items():
            values = np.ones((count, 16, 16), dtype)
            write(name, values, **options)
            recording = read(name)
            assert (recording.unit, recording.spacing) == ("", (1, 1))
            np.testing.assert_array_equal(recording.values, values)
    with MemoryFile(recording.grid.write(np.ones((1, 16, 16), np.float32))) as file, file.open() as written:
        assert written.crs is None
        assert written.transform == Affine.identity()
    write("photo.tif", np.ones((3, 16, 16), np.uint8))
    assert isinstance(read("photo.tif"), Photo)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_a_scene_is_not_used_for_is_said():
    points = [rasterio.control.GroundControlPoint(row, column, column, -row) for row, column in ((0, 0), (0, 9), (9, 0))]
    write("scene.tif", np.ones((5, 10, 10), np.float32))
    with rasterio.open("scene.tif", "r+") as dataset:
        dataset.scales = (2,) * 5
        dataset.gcps = points, rasterio.CRS.from_epsg(4326)
    assert read("scene.tif").notes == (
        "its ground control points are not kept in maps",
        "its values are as they are stored, without their scale and offset",
    )


def damage(name, values, part=None, **profile):
    write(name, values, **LAND | profile)
    if part is not None:
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: int(part * len(content))])


def test_a_damaged_scene_is_one_sentence(capfd, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # those of the tests would take what is logged
    noise = np.random.default_rng(0).random((5, 60, 60)).astype(np.float32)
    for part in (0.9, 0.5):
        damage("cut.tif", noise, part, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
        with pytest.raises(ImageError, match="^'cut.tif'.* cut short"):
            read("cut.tif")
    infinite = noise.copy()
    infinite[0, 0, :3] = np.inf
    faults = {
        "it holds nothing but nodata; give another scene": (np.full_like(noise, -1), {"nodata": -1}),
        "3 of its 18000 values are NaN or infinite; replace them": (infinite, {}),
        "it holds complex numbers; save their magnitude": (noise.astype(np.complex64), {}),
        r"its transform \(1.0, 0.0, 0.0, 2.0, 0.0, 0.0\) is singular": (noise, {"transform": Affine(1, 0, 0, 2, 0, 0)}),
    }
    for words, (values, profile) in faults.items():
        damage("scene.tif", values, **profile)
        with pytest.raises(ImageError, match=f"^'scene.tif': {words}") as caught:
            read("scene.tif")
        assert "\n" not in str(caught.value)
    Path("text.tif").write_text("hello")
    Path("empty.tif").touch()
    for name, words in {"text.tif": "is not a picture in a format that Pillow reads", "empty.tif": "is empty"}.items():
        with pytest.raises(ImageError, match=f"^'{name}' {words}"):
            read(name)
    assert capfd.readouterr() == ("", "")
