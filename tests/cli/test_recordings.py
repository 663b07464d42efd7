"""Volumes, series, bands, signals and clips, each explained by one command, and the mistakes made with them."""

import json

import av
import nibabel
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

import relume
from tests.helpers.commands import relume_command
from tests.helpers.dicom import put

RNG = np.random.default_rng(0)
AFFINE = np.array([[0, -1.5, 0, 10], [2.0, 0, 0, -5], [0, 0, 3.0, 20], [0, 0, 0, 1]])


def nifti(path):
    nibabel.save(nibabel.Nifti1Image(RNG.normal(40, 100, (12, 14, 10)).astype(np.float32), AFFINE), path)


def series(path):
    for k in (2, 0, 3, 1):
        facts = {"ImagePositionPatient": [0.0, 0.0, 5.0 * k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        pixels = RNG.integers(-1000, 1000, (12, 14), dtype=np.int16)
        put(path / f"{k}.dcm", pixels, PixelSpacing=[1.0, 1.0], RescaleSlope=1, RescaleIntercept=0, **facts)


def bands(path):
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500000, 0, -10, 5500000)}
    with rasterio.open(path, "w", driver="GTiff", width=18, height=16, count=5, dtype="uint16", **place) as file:
        file.write(RNG.integers(0, 3000, (5, 16, 18), dtype=np.uint16))


def signal(path):
    np.save(path, RNG.normal(size=(1, 60)).astype(np.float32))


def clip(path):
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(6):
            pixels = RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))


CASES = {
    "scan.nii.gz": (nifti, 3, 1, ["--window=-150,250", "--spacing", "2,2,2", "--prepare"], "guided_gradcam.nii.gz"),
    "ct": (series, 3, 1, ["--window=-150,250"], "guided_gradcam.nii.gz"),
    "scene.tif": (bands, 2, 5, ["--mean", "1500", "--std", "800"], "guided_gradcam.tif"),
    "ecg.npy": (signal, 1, 1, [], "guided_gradcam.npy"),
    "clip.mp4": (clip, 3, 3, ["--resize", "24", "--crop", "20"], "guided_gradcam.npy"),
}


def explain(tmp_path, name, axes, channels, *options):
    return relume_command(
        "explain", tmp_path / name, "--model", "tests.helpers.networks:Pooled", "--output", tmp_path / "out",
        "--model-args", json.dumps({"axes": axes, "channels": channels}), "--layer", "features.1", "--target", "1", *options,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_command_explains_each(name, tmp_path):
    write, axes, channels, options, on_grid = CASES[name]
    write(tmp_path / name)
    result = explain(tmp_path, name, axes, channels, *options)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / name.partition(".")[0] / "1"
    with Image.open(folder / "guided_gradcam.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5  # more than a plain surface
    loaded = relume.Explanation.load(folder)
    assert loaded["guided_backprop"].any()
    assert loaded["guided_backprop"].shape[1] == channels
    assert loaded.images.ndim == axes + 2
    assert (folder / on_grid).is_file()
    assert loaded.picture("guided_gradcam").size == picture.size


def test_the_map_of_a_volume_lies_on_the_scan(tmp_path):
    nifti(tmp_path / "scan.nii.gz")
    assert explain(tmp_path, "scan.nii.gz", 3, 1, "--crop", "8", "--method", "gradient").exit_code == 0
    scan, written = (
        nibabel.load(path) for path in (tmp_path / "scan.nii.gz", tmp_path / "out" / "scan" / "1" / "gradient.nii.gz")
    )
    assert np.allclose(written.affine, scan.affine)
    assert written.shape == scan.shape
    there = np.argwhere(np.asarray(written.dataobj))
    assert (there.min(0).tolist(), there.max(0).tolist()) == ([2, 3, 1], [9, 10, 8])


@pytest.mark.parametrize(
    ("name", "axes", "channels", "options", "code", "says"),
    [
        ("ecg.npy", 3, 1, [], 1, "that of signals, and the network is for volumes or video"),
        ("scan.nii.gz", 2, 3, [], 1, "that of volumes or video, and the network is for pictures"),
        ("scene.tif", 2, 5, ["--bands", "7"], 1, "there is no band 7 in a recording of 5, counted from 0"),
        ("scene.tif", 2, 5, ["--window", "5"], 2, "window is two finite values, the lower first; got 5"),
        ("scan.nii.gz", 3, 1, ["--spacing", "1,1"], 1, "spacing has 2 numbers, and a volume 3 axes; give one for each"),
        ("scan.nii.gz", 3, 1, ["--tiles", "8"], 1, "is a volume; tiles are cut from photos and pictures of bands"),
        ("ecg.npy", 1, 1, ["--spacing", "100"], 1, "returned shape (1, 4, 1), not a map of shape (N, channels, *spatial)"),
    ],
)
def test_a_mistake_is_one_sentence(name, axes, channels, options, code, says, tmp_path):
    CASES[name][0](tmp_path / name)
    result = explain(tmp_path, name, axes, channels, *options)
    assert result.exit_code == code, result.output
    assert says in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_of_all_of_them_is_explained_but_for_what_does_not_fit(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("scan.nii.gz", "ct", "ecg.npy"):
        CASES[name][0](tmp_path / "data" / name)
    Image.new("RGB", (20, 20)).save(tmp_path / "data" / "a.png")  # comes first, and drawn pictures fail as it does
    result = explain(tmp_path, "data", 3, 1, "--method", "gradient")
    assert result.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ct", "scan"]
    assert "ecg.npy" in result.stderr


def test_check_tries_a_volume_and_says_how_it_is_prepared(tmp_path):
    nifti(tmp_path / "scan.nii.gz")
    model = ["tests.helpers.networks:Pooled", "--model-args", '{"axes": 3, "channels": 1}']
    result = relume_command("check", *model[:1], tmp_path / "scan.nii.gz", *model[1:], "--window=-150,250")
    assert result.exit_code == 0, result.output
    assert "window (-150.0, 250.0)" in " ".join(result.stdout.split())
    assert "resize" not in result.stdout
    without = relume_command("check", *model)
    assert without.exit_code == 2
    said = " ".join(without.stderr.split())
    assert "that of pictures, and the network is for volumes or video" in said
    assert "it was tried on a drawn scene, (3, 224, 224); name a file of yours" in said
