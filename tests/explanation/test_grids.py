"""Maps written on the grids of the recordings that they explain."""

import gzip
import io
from dataclasses import replace

import nibabel
import numpy as np
import torch
from torch import nn

import relume
from relume.explanation import WRITERS, SaveOptions
from relume.pictures import Recording, grid_of, read


def test_maps_lie_on_the_volume_where_the_network_saw_it(tmp_path):
    """A layer's map is upsampled, a signed one keeps its signs, and what the network did not see is zero."""
    affine = np.array([[0, -1.5, 0, 10], [2, 0, 0, -5], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((10, 8, 8), np.uint8), affine), tmp_path / "scan.nii")
    recording = read(tmp_path / "scan.nii").within(((0, 8), (0, 8), (2, 6)))
    network = nn.Sequential(nn.Conv3d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 27, 3)).eval()
    e = relume.explain(network, torch.rand(2, 1, 8, 8, 8), 1, ["gradient", "gradcam"])
    e.with_photos([recording, recording]).save(tmp_path / "saved")
    e = relume.Explanation.load(tmp_path / "saved")
    assert [loaded.grid for loaded in e.photos] == [recording.grid] * 2
    files = WRITERS["grids"](e, SaveOptions())
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "saved").glob("*.nii.gz")}
    assert set(files) == {f"{method}.{i}.nii.gz" for method in ("gradient", "gradcam") for i in range(2)}
    for i in range(2):
        gradient, cam = (nibabel.Nifti1Image.from_bytes(gzip.decompress(files[f"{m}.{i}.nii.gz"])) for m in e.maps)
        for image in (gradient, cam):
            np.testing.assert_array_equal(image.affine, affine)
            values = image.get_fdata()
            assert values[:8, :, 2:6].any()
            assert not values[8:].any()
            assert not values[:, :, :2].any()
            assert not values[:, :, 6:].any()
        expected = e["gradient"][i, 0].view(8, 8, 4, 2).mean(-1)  # two cells of the input lie in one of the scan
        np.testing.assert_allclose(gradient.get_fdata()[:8, :, 2:6], expected, atol=1e-7)
        assert cam.get_fdata().max() <= e["gradcam"][i].max()
    assert WRITERS["grids"](replace(e, photos=None), SaveOptions()) == {}


def test_a_map_is_nan_where_nothing_was_recorded():
    recording = Recording(np.array([[[1.0, np.nan], [2, 3]], [[4, 5], [6, 7]]]), "bands", grid=grid_of({"format": ".npy"}))
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    e = relume.explain(network, torch.rand(1, 2, 2, 2), 1, ["gradient"]).with_photos([recording])
    values = np.load(io.BytesIO(WRITERS["grids"](e, SaveOptions())["gradient.npy"]))
    assert np.isnan(values).tolist() == [[[False, True], [False, False]]] * 2
