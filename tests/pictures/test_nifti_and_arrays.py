"""Volumes of NIfTI and arrays: read as they are, refused in one sentence, and maps written where the scan lies."""

import gzip
import json
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nibabel.affines import apply_affine
from PIL import Image

from relume.errors import ImageError
from relume.pictures import Photo, Recording, grid_of, placed, read

SIZE = (6, 7, 8)
OBLIQUE = np.array([[0.0, -1.2, 0.1, 10], [2, 0.1, 0, -5], [0.1, 0, 3, 7], [0, 0, 0, 1]])
FLIPPED = np.array([[-2.0, 0, 0, 90], [0, -2, 0, 126], [0, 0, 2.5, -72], [0, 0, 0, 1]])


def scan(affine=FLIPPED, size=SIZE, dtype=np.int16):
    return nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 100, size).astype(dtype), affine)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("affine", [OBLIQUE, FLIPPED, None], ids=["oblique", "flipped", "none"])
@pytest.mark.parametrize("name", ["scan.nii", "SCAN.NII.GZ"])
def test_a_map_of_a_volume_lies_on_the_scan(affine, name):
    """A voxel marked in the map has the coordinates that it has in the scan, by either form of the affine."""
    image = scan(affine)
    image.header.set_zooms((2, 3, 4)) if affine is None else image.set_qform(affine, 2)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(2, -30)
    nibabel.save(image, name)
    stored = nibabel.load(name)
    recording = read(name)
    np.testing.assert_array_equal(recording.values[0], stored.get_fdata(dtype=np.float32))
    assert recording.spacing == pytest.approx(nibabel.affines.voxel_sizes(stored.affine))
    assert (recording.kind, recording.unit, recording.notes) == ("volume", "mm", ())

    grid = grid_of(json.loads(json.dumps(recording.as_dict()["grid"])))
    assert grid == recording.grid
    for channels in (1, 3):
        marked = np.zeros((channels, *SIZE), np.float32)
        marked[-1, 4, 1, 6] = 5
        Path("map.nii.gz").write_bytes(grid.write(marked))
        written = nibabel.load("map.nii.gz")
        assert written.get_data_dtype() == np.float32
        assert written.shape == (*SIZE, *[3] * (channels == 3))
        voxel = np.argwhere(written.get_fdata())[0]
        np.testing.assert_array_equal(apply_affine(written.affine, voxel[:3]), apply_affine(stored.affine, (4, 1, 6)))
        for form in ("get_sform", "get_qform"):
            ours, theirs = (getattr(one, form)(coded=True) for one in (written, stored))
            assert ours[1] == theirs[1]
            assert ours[0] is theirs[0] is None or np.abs(ours[0] - theirs[0]).max() < 1e-5
        assert written.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(written.header.get_zooms()[:3], stored.header.get_zooms())


def test_more_axes_are_channels_or_refused():
    for size, channels in [((*SIZE, 1), 1), ((*SIZE, 4), 4), ((*SIZE, 1, 3), 3)]:
        nibabel.save(scan(size=size), "scan.nii")
        recording = read("scan.nii")
        assert recording.values.shape == (channels, *SIZE)
        told = (f"its fourth axis is taken for {channels} channels, not for times",)
        assert recording.notes == (told if channels > 1 else ())
        np.testing.assert_array_equal(recording.values[-1], nibabel.load("scan.nii").get_fdata().reshape(*SIZE, -1)[..., -1])
    for size in [(6, 7), (*SIZE, 2, 3)]:
        nibabel.save(scan(size=size), "scan.nii")
        with pytest.raises(
            ImageError, match=r"^'scan.nii': a volume has three axes, and a fourth for its channels; its shape is"
        ):
            read("scan.nii")


def test_units_of_length_become_millimetres():
    image = scan()
    for unit, factor in [("unknown", 1), ("mm", 1), ("micron", 1e-3), ("meter", 1e3)]:
        image.header.set_xyzt_units(unit)
        nibabel.save(image, "scan.nii")
        assert read("scan.nii").spacing == pytest.approx([2 * factor, 2 * factor, 2.5 * factor])


def damaged_volumes():
    """Yield names, contents and the words of their errors."""
    image = scan(size=(30, 30, 30))
    whole = image.to_bytes()
    packed = gzip.compress(whole)
    yield "cut.nii", whole[:-50], "its voxels are damaged or cut short, there should be 30 × 30 × 30; copy it again"
    yield "cut.nii.gz", packed[:-50], "its voxels are damaged or cut short, there should be 30 × 30 × 30; copy it again"
    other = "its header is not that of NIfTI; it may be of another format, or cut short"
    yield "header.nii", whole[:200], other
    yield "header.nii.gz", packed[:50], other
    yield "text.nii", b"hello" * 200, other
    yield "text.nii.gz", b"hello" * 200, other
    yield (
        "flat.nii",
        whole[:296] + bytes(16) + whole[312:],
        "its affine .* is singular, so its voxels have no place; write that of the scanner",
    )
    values = np.zeros(SIZE, np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    unknown = nibabel.Nifti1Image(values, FLIPPED).to_bytes()
    yield "nan.nii", unknown, "16 of its 336 values are NaN or infinite; replace them, by numpy.nan_to_num for example"
    complex_ = nibabel.Nifti1Image(values.astype(np.complex64), FLIPPED).to_bytes()
    yield "complex.nii", complex_, "its voxels are complex64, not real numbers; convert it"
    yield "empty.nii", b"", "is empty, 0 bytes long; copy or download it again"


def test_a_damaged_volume_is_one_sentence(capfd):
    for name, content, words in damaged_volumes():
        Path(name).write_bytes(content)
        with pytest.raises(ImageError, match=f"^'{name}':? {words}") as caught:
            read(name)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_a_directory_and_a_missing_library(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="^there is no file 'none.nii'; check the path"):
        read("none.nii")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(ImageError, match="^'folder.nii' is a directory"):
        read("folder.nii")
    nibabel.save(scan(), "scan.nii")
    grid = read("scan.nii").grid
    for name in ("nibabel", "nibabel.nifti1"):
        monkeypatch.setitem(sys.modules, name, None)
    for use in (lambda: read("scan.nii"), lambda: grid.write(np.zeros((1, *SIZE), np.float32))):
        with pytest.raises(
            ImageError, match="reading and writing this needs nibabel; install it: pip install 'relume.medical.'"
        ):
            use()


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [((50,), "signal", (50,)), ((12, 50), "signal", (50,)), ((5, 6, 7), "bands", (6, 7)), ((1, 5, 6, 7), "volume", (5, 6, 7))],
)
def test_the_axes_of_an_array_tell_what_it_is(shape, kind, size):
    values = np.random.default_rng(0).integers(0, 9, shape)
    for dtype in ("bool", "u1", "i2", ">u2", "i8", "f2", "<f4", ">f4", "f8"):
        np.save("a.npy", values.astype(dtype))
        recording = read("a.npy")
        assert (recording.kind, recording.size) == (kind, size)
        np.testing.assert_array_equal(recording.values.reshape(shape), values.astype(dtype))
        assert recording.values.dtype in (np.uint8, np.float32, np.float64)
    np.savez("a.npz", values)
    np.testing.assert_array_equal(read("a.npz").values.reshape(shape), values)
    grid = grid_of(recording.as_dict()["grid"])
    Path("map.npy").write_bytes(grid.write(recording.values.astype(np.float32)))
    np.testing.assert_array_equal(np.load("map.npy"), recording.values)


def test_bytes_of_three_channels_are_colours():
    np.save("a.npy", np.zeros((3, 6, 7), np.uint8))
    assert read("a.npy").is_colour
    np.save("a.npy", np.zeros((3, 6, 70), np.float32))
    assert not read("a.npy").is_colour


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            np.zeros((40, 50)),
            r"its shape \(40, 50\) may be that of a grey picture or of a signal; save a picture as \(1, 40, 50\)",
        ),
        (
            np.zeros((40, 50, 3)),
            r"its shape is \(40, 50, 3\), and channels come first; save it by numpy.moveaxis\(values, -1, 0\)",
        ),
        (np.zeros(()), r"its shape is \(\); save it as \(places\), \(channels, places\)"),
        (np.zeros((1, 0)), r"its shape is \(1, 0\); save it as \(places\)"),
        (np.zeros((1, 1, 2, 2, 2)), r"its shape is \(1, 1, 2, 2, 2\); save it as"),
        (np.array([1j]), "it holds complex numbers; save an array of real numbers"),
        (np.array(["a"]), "it holds text; save an array of real numbers"),
        (np.array([{}]), "it holds Python objects, which may run code as they are read; save numbers"),
        (np.array([1, np.nan, np.inf]), "2 of its 3 values are NaN or infinite; replace them"),
    ],
    ids=str,
)
def test_an_array_that_is_no_recording_is_one_sentence(values, words):
    np.save("a.npy", values)
    np.savez("a.npz", values)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ImageError, match=f"^'{name}': {words}"):
            read(name)


def test_files_of_numpy_that_are_damaged_or_hold_more():
    np.savez("two.npz", first=np.zeros(9), second=np.zeros(9))
    np.savez("none.npz")
    np.save("cut.npy", np.zeros(900))
    np.savez("cut.npz", np.zeros(900))
    for name in ("cut.npy", "cut.npz"):
        Path(name).write_bytes(Path(name).read_bytes()[:500])
    Path("text.npy").write_text("1 2 3")
    with zipfile.ZipFile("other.npz", "w") as archive:
        archive.writestr("a.txt", "1 2 3")
    for name, words in {
        "two.npz": "it holds 2 arrays, first, second; save the one that is meant with numpy.save",
        "none.npz": "it holds 0 arrays, none; save",
        "other.npz": "it holds no array of NumPy",
        "cut.npy": "cannot be read: .*; it may be damaged or cut short",
        "cut.npz": "cannot be read: .*; it may be damaged or cut short",
        "text.npy": "it is no file of NumPy, though its name says so; write it with numpy.save",
    }.items():
        with pytest.raises(ImageError, match=f"^'{name}':? {words}"):
            read(name)


def test_all_other_files_are_photos():
    Image.new("RGB", (6, 4)).save("a.png")
    assert isinstance(read("a.png"), Photo)
    with pytest.raises(ImageError, match="^'a.nii.png' is not a picture in a format that Pillow reads"):
        nibabel.save(scan(), "a.nii")
        Path("a.nii").rename("a.nii.png")
        read("a.nii.png")


@pytest.mark.parametrize("box", [((0, 6), (0, 7), (0, 8)), ((1, 5), (-2, 9), (0.5, 6.5))], ids=["all", "part"])
def test_a_map_of_the_input_is_placed_as_torch_resizes(box):
    """A ramp in the recording's own cells, sampled at any resolution, is itself between its outermost cells."""
    recording = Recording(np.zeros((1, *SIZE), np.float32), "volume", box=box)
    at = [low + (np.arange(n) + 0.5) * (high - low) / n - 0.5 for (low, high), n in zip(box, (8, 12, 5), strict=True)]
    values = placed(recording, np.stack(np.meshgrid(*at, indexing="ij")), fill=np.nan)
    cells = np.indices(SIZE).astype(np.float32)
    low, high = (np.reshape(edge, (3, 1, 1, 1)) for edge in zip(*box, strict=True))
    inside = ((cells + 0.5 >= low) & (cells + 0.5 <= high)).all(0)
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(~inside, values.shape))
    first, last = (np.reshape([middles[end] for middles in at], (3, 1, 1, 1)) for end in (0, -1))
    inner = ((cells >= first + 0.5) & (cells <= last - 0.5)).all(0)
    assert inner.any()
    np.testing.assert_allclose(values[:, inner], cells[:, inner], atol=1e-5)


def test_a_map_is_resized_to_the_recording_as_torch_does():
    """Where the network saw all of it, also against torch's own interpolation."""
    values = torch.rand(2, 3, 4, 5)
    whole = placed(Recording(np.zeros((1, *SIZE), np.float32), "volume"), values.numpy())
    expected = F.interpolate(values[None], SIZE, mode="trilinear", align_corners=False)[0]
    np.testing.assert_allclose(whole, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("count", [13, 24, 50])
def test_nothing_of_a_map_finer_than_the_recording_is_passed_over(count):
    """Wherever the only value of a map lies, a cell there has its share, as in thick slices resampled to thin ones."""
    for place in range(count):
        values = np.zeros((1, count), np.float32)
        values[0, place] = 1
        cells = placed(Recording(np.zeros((1, 10)), "signal"), values)[0]
        centre = np.average(np.arange(10) + 0.5, weights=cells)
        assert abs(centre - (place + 0.5) / count * 10) < 0.5, place
