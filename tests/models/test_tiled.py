"""Pictures explained tile by tile: what is stitched is the map of the whole where a network looks at single pixels."""

import json

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import Affine
from torch import nn

import relume
from relume.errors import ImageError
from relume.models.opened import Opened
from relume.models.tiled import explain_tiled
from relume.pictures import IMAGENET, Preprocessing
from tests.helpers.commands import relume_command

METHODS = ["gradient", "guided_backprop", "gradient_x_input"]


class OfPixels(nn.Module):
    """A network whose score is a sum over pixels, so that the gradient at a pixel depends on that pixel alone."""

    def __init__(self, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(channels, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU())

    def forward(self, x):
        return self.features(x).sum((2, 3))


@pytest.fixture
def scene(tmp_path):
    """Five bands on the Earth, with a corner and a band of rows in which nothing was recorded."""
    values = np.random.default_rng(0).normal(10, 3, (5, 90, 70)).astype(np.float32)
    values[:, :40, :30] = -1
    values[:, 60:, :] = -1
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500000, 0, -10, 5500000), "nodata": -1}
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", driver="GTiff", width=70, height=90, count=5, dtype="float32", **place) as file:
        file.write(values)
    return path, values


def bands_network():
    preparation = Preprocessing(None, None, mean=(10.0,), std=(3.0,))
    return Opened("pixels", OfPixels(5).eval(), IMAGENET, recordings=preparation)


def test_stitched_maps_are_those_of_the_whole_on_its_grid(scene, tmp_path):
    path, values = scene
    (folder,) = explain_tiled(bands_network(), path, tmp_path / "out", [2], METHODS, tiles=(32, 8), batch_size=2)
    nothing = (values == -1).all(0)
    inputs = torch.from_numpy(np.where(nothing, 0, (values - 10) / 3))[None].float()
    whole = relume.explain(OfPixels(5).eval(), inputs, 2, METHODS, evidence=None)
    for method in METHODS:
        with rasterio.open(path) as before, rasterio.open(folder / f"{method}.tif") as after:
            assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
            expected = np.where(nothing, np.nan, whole[method][0].numpy())
            assert np.allclose(after.read(), expected, atol=1e-6, equal_nan=True), method
    facts = json.loads((folder / "tiles.json").read_text())
    assert (facts["target"], facts["tiles"]) == (2, {"size": 32, "overlap": 8, "count": 12})
    with Image.open(folder / "gradient.png") as picture:
        assert picture.size == (70, 90)


def test_without_a_target_it_is_one_class_for_the_whole(scene, tmp_path):
    path, values = scene
    network = bands_network()
    (folder,) = explain_tiled(network, path, tmp_path / "out", methods=["gradient"], tiles=(90, 0))
    seen = np.where((values == -1).all(0), 0, (values - 10) / 3)
    scores = network.model(torch.from_numpy(seen)[None].float())
    assert json.loads((folder / "tiles.json").read_text())["target"] == int(scores.argmax())


def test_a_network_in_training_mode_is_not_changed_and_its_own_errors_stay_its_own(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explain_tiled(Opened("trained", model, IMAGENET), tmp_path / "p.png", tmp_path / "out", methods=["gradient"], tiles=(32, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    class Offline(nn.Module):
        def forward(self, x):
            raise OSError(101, "Network is unreachable")

    for targets in ([None], [0]):
        with pytest.raises(OSError, match="unreachable") as caught:
            explain_tiled(Opened("offline", Offline(), IMAGENET), tmp_path / "p.png", tmp_path / "no", targets, ["gradient"])
        assert not isinstance(caught.value, relume.errors.RelumeError)
    assert not (tmp_path / "no").exists()


def test_a_photo_in_tiles_and_grad_cam_at_one_layer(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    opened = Opened("pixels", OfPixels().eval(), IMAGENET)
    methods = ["gradcam", "gradient"]
    folders = explain_tiled(opened, tmp_path / "p.png", tmp_path / "out", [1, 3, 1], methods, tiles=(32, 8))
    assert [folder.name for folder in folders] == ["1", "3", "1-2"]
    inputs = IMAGENET.tensor(Image.fromarray(pixels))[None]
    for folder, target in zip(folders, [1, 3, 1], strict=True):
        whole = relume.explain(opened.model, inputs, target, ["gradient"], evidence=None)["gradient"][0]
        assert np.allclose(np.load(folder / "gradient.npy"), whole, atol=1e-6)
        assert np.load(folder / "gradcam.npy").shape == (1, 50, 60)
        assert json.loads((folder / "tiles.json").read_text())["layer"] == "features"


def test_what_has_nothing_to_cut_is_refused_and_nothing_is_left(tmp_path):
    np.save(tmp_path / "volume.npy", np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(ImageError, match="is a volume; tiles are cut from photos and pictures of bands"):
        explain_tiled(bands_network(), tmp_path / "volume.npy", tmp_path / "out", [0])
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 0, 0, -10, 0), "nodata": 0}
    with rasterio.open(tmp_path / "n.tif", "w", driver="GTiff", width=9, height=9, count=5, dtype="float32", **place) as file:
        file.write(np.zeros((5, 9, 9), np.float32))
    with pytest.raises(ImageError, match="nothing was recorded anywhere in the picture; there is nothing to explain"):
        explain_tiled(bands_network(), tmp_path / "n.tif", tmp_path / "out", [0], ["gradient"])
    assert not (tmp_path / "out").exists()


def test_the_command_explains_in_tiles(tmp_path):
    Image.new("RGB", (80, 60), "red").save(tmp_path / "p.png")
    command = ["explain", tmp_path / "p.png", "--target", "cat", "--method", "gradcam", "--output", tmp_path / "out"]
    result = relume_command(*command, "--tiles", "48")
    assert result.exit_code == 0, result.output
    assert "p.png" in result.stdout
    assert "4-cat" in result.stdout
    assert json.loads((tmp_path / "out" / "p" / "4-cat" / "tiles.json").read_text())["tiles"]["overlap"] == 6
    again = relume_command(*command, "--tiles", "48,8")
    assert again.exit_code == 0, again.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p"]
    refused = relume_command(*command, "--tiles", "big")
    assert refused.exit_code == 2
    assert "--tiles is SIZE or SIZE,OVERLAP in pixels, such as 512,64; got 'big'" in " ".join(refused.stderr.split())
