"""Series of DICOM, written by pydicom: in order and in place, and every fault of a series in one sentence."""

import gzip
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    EnhancedCTImageStorage,
    JPEGLSLossless,
)

from relume.errors import ImageError
from relume.models.photos import picture_suffixes
from relume.pictures import format_of, read
from tests.helpers.dicom import SERIES, header, put

SHAPE = ROWS, COLUMNS = 6, 5
AXIAL = [1, 0, 0, 0, 1, 0]
OBLIQUE = [0.8, 0.6, 0, 0, 0, -1]


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def series(orientation=AXIAL, count=4, step=2.5, tilt=(0, 0, 0)):
    """Write slices into ``ct``, files named in another order than their positions, and return each one's position."""
    across, down = np.reshape(orientation, (2, 3))
    positions = [np.array([-40.0, 12, 7]) + k * (step * np.cross(across, down) + tilt) for k in range(count)]
    for k, position in enumerate(positions):
        pixels = np.arange(ROWS * COLUMNS, dtype=np.int16).reshape(SHAPE) + 100 * k
        where = {"ImagePositionPatient": [*map(float, position)], "ImageOrientationPatient": orientation}
        facts = {"PixelSpacing": [0.7, 0.4], "RescaleSlope": 2, "RescaleIntercept": -1000 - k, "SeriesDescription": "thorax"}
        put(f"ct/IM{(7 * k + 3) % count}", pixels, **where, **facts)
    return positions


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("step", [2.5, -2.5], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("tilt", [(0, 0, 0), (0.1, 0.2, 0.3)], ids=["upright", "tilted"])
def test_a_map_of_a_series_lies_where_its_files_say(orientation, step, tilt):
    """A voxel of the map has the place of that pixel of that file, to the right, to the front and up."""
    positions = series(orientation, step=step, tilt=tilt)
    recording = read("ct")
    assert (recording.kind, recording.values.shape, recording.unit) == ("volume", (1, 4, *SHAPE), "mm")
    assert recording.notes == ()
    normal = np.cross(*np.reshape(orientation, (2, 3)))
    assert recording.spacing == pytest.approx((abs((positions[1] - positions[0]) @ normal), 0.7, 0.4))
    marked = np.zeros((1, 4, *SHAPE), np.float32)
    for k, position in enumerate(positions):
        place = k if step > 0 else 3 - k
        expected = 2 * (np.arange(ROWS * COLUMNS).reshape(SHAPE) + 100 * k) - 1000 - k
        np.testing.assert_array_equal(recording.values[0, place], expected)
        marked[:] = 0
        marked[0, place, 5, 1] = 1
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(recording.grid.write(marked)))
        world = nibabel.affines.apply_affine(image.affine, np.argwhere(image.get_fdata())[0])
        across, down = np.reshape(orientation, (2, 3))
        left_back_up = position + 5 * 0.7 * down + 1 * 0.4 * across
        np.testing.assert_allclose(world, left_back_up * (-1, -1, 1), atol=1e-4)
        qform, code = image.get_qform(coded=True)
        assert code == (0 if any(tilt) else 1)
        assert code == 0 or np.abs(qform - image.affine).max() < 1e-4


def test_a_remark_on_the_values_of_a_series_is_made_once():
    facts = {"ImageOrientationPatient": AXIAL, "PixelSpacing": [0.7, 0.4], "PhotometricInterpretation": "MONOCHROME1"}
    for k in range(3):
        put(f"ct/{k}", np.zeros(SHAPE, np.int16), ImagePositionPatient=[0.0, 0.0, 2.5 * k], **facts)
    Path("ct/notes.txt").write_text("")
    low_is_white = "its low values are white (MONOCHROME1), and are as they are stored"
    assert read("ct").notes == (low_is_white, "1 file without pictures of DICOM left out")


def test_frames_of_one_file_have_places_of_their_own():
    """An enhanced file tells some facts once for all frames and others for each."""
    dataset = header(NumberOfFrames=3, SOPClassUID=EnhancedCTImageStorage)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = [0.7, 0.4], AXIAL
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], []
    for k, depth in enumerate((10.0, 4.0, 7.0)):
        frame, position, scale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient, scale.RescaleSlope, scale.RescaleIntercept = [0.0, 0.0, depth], 1, 100 * k
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [scale]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    dataset.Rows, dataset.Columns = SHAPE
    dataset.PixelData = np.zeros((3, *SHAPE), np.int16).tobytes()
    dataset.save_as("enhanced", enforce_file_format=True)
    recording = read("enhanced")
    assert recording.spacing == pytest.approx((3, 0.7, 0.4))
    assert [float(v) for v in recording.values[0, :, 0, 0]] == [100, 200, 0]
    np.testing.assert_allclose(np.array(recording.grid.sform) @ (2, 0, 0, 1), (0, 0, 10, 1))


def test_one_picture_is_bands_and_frames_in_time_are_video():
    pixels = np.arange(30, dtype=np.int16).reshape(SHAPE)
    put("x/ray.dcm", pixels, ImagerPixelSpacing=[0.1, 0.2], PhotometricInterpretation="MONOCHROME1")
    for path in ("x/ray.dcm", "x"):
        recording = read(path)
        assert (recording.kind, recording.spacing, recording.unit) == ("bands", (0.1, 0.2), "mm")
        np.testing.assert_array_equal(recording.values, pixels[None])
        assert recording.notes == ("its low values are white (MONOCHROME1), and are as they are stored",)
        assert recording.grid.suffix == ".npy"
    put("cine.dcm", np.stack([pixels] * 3), NumberOfFrames=3, FrameTime=40)
    recording = read("cine.dcm")
    assert (recording.kind, recording.values.shape, recording.spacing) == ("video", (1, 3, *SHAPE), (0.04, 1, 1))
    put("frames.dcm", np.stack([pixels] * 3), NumberOfFrames=3)
    with pytest.raises(ImageError, match="^'frames.dcm': its 3 frames have neither positions nor a time between them"):
        read("frames.dcm")


def change(name, **facts):
    """Write a file of the series again with other facts."""
    dataset = pydicom.dcmread(f"ct/{name}")
    for fact, value in facts.items():
        setattr(dataset, fact, value)
    dataset.save_as(f"ct/{name}")


def names():
    return sorted(path.name for path in Path("ct").iterdir())


def cut(name, size):
    Path("ct", name).write_bytes(Path("ct", name).read_bytes()[:size])


def at(depth):
    return next(name for name in names() if pydicom.dcmread(f"ct/{name}").ImagePositionPatient[2] == depth)


FAULTS = {
    "missing": (
        lambda: Path("ct", at(9.5)).unlink(),
        "a slice is missing between those at 7.00 and 12.00 mm, where the others are 2.50",
    ),
    "doubled": (
        lambda: shutil.copy("ct/IM0", "ct/copy"),
        "1 of its 9 slices lies where another one does; keep one copy, time or echo",
    ),
    "uneven": (lambda: change(at(7.0), ImagePositionPatient=[-40, 12, 6.0]), "its slices are 2.50 to 3.50 mm apart; resample"),
    "shifted": (lambda: change(at(9.5), ImagePositionPatient=[-30, 12, 9.5]), "its slices are shifted against each other"),
    "turned": (
        lambda: change("IM0", ImageOrientationPatient=[0, 1, 0, 0, 0, 1]),
        "its slices lie in planes of several directions",
    ),
    "sizes": (
        lambda: change("IM0", Rows=5, PixelData=bytes(50)),
        "its slices are of several sizes, 1 of 5 × 5 × 1, 7 of 6 × 5 × 1",
    ),
    "placeless": (lambda: delete("IM0", "ImagePositionPatient"), "a slice has no position, orientation or spacing"),
    "series": (
        lambda: change("IM0", SeriesInstanceUID="1.2.3", SeriesDescription="scout"),
        rf"it holds 2 series, 1.2.3 'scout', 1 files; {SERIES} 'thorax', 7 files; put each into a folder of its own",
    ),
    "pixels": (lambda: cut("IM0", -20), "'IM0' cannot be read: .*; it may be damaged or cut short"),
    "start": (lambda: cut(at(7.0), 400), "'IM.': it has no pixels; it may be cut short, copy it again"),
    "header": (lambda: delete("IM0", "PixelData"), "'IM0': it has no pixels; it may be cut short, copy it again"),
    "text": (lambda: Path("ct/a.dcm").write_text("hello"), "'a.dcm': it is no DICOM file, though its name says so"),
    "frames": (
        lambda: change("IM0", NumberOfFrames=2),
        "it holds 8 files, and one with several frames is a recording by itself",
    ),
    "codec": (
        lambda: change("IM0", PixelData=pydicom.encaps.encapsulate([b"\0\0"])) or compress(),
        "'IM0': its pixels are JPEG-LS Lossless Image Compression; to decode them, install .*pyjpegls",
    ),
}


def delete(name, fact):
    dataset = pydicom.dcmread(f"ct/{name}")
    delattr(dataset, fact)
    dataset.save_as(f"ct/{name}")


def compress():
    dataset = pydicom.dcmread("ct/IM0")
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as("ct/IM0")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_series_is_one_sentence(fault, capfd, monkeypatch):
    series(count=8)
    spoil, words = FAULTS[fault]
    spoil()
    if fault == "codec":
        monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    with pytest.raises(ImageError, match=f"^'ct': {words}") as caught:
        read("ct")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_files_without_a_suffix_are_known_whatever_pillow_was_used_for(monkeypatch):
    monkeypatch.setitem(Image.registered_extensions(), "", "PPM")  # as Pillow before 13 does by itself
    series()
    assert format_of("ct") == "dicom"
    assert "" not in picture_suffixes()


def test_what_is_no_image_of_the_series_is_left_out():
    series()
    Path("ct/notes.txt").write_text("hello")
    Path("ct/.hidden").write_text("hello")
    Path("ct/folder").mkdir()
    report = header(SeriesInstanceUID="1.2.3", SOPClassUID=BasicTextSRStorage)
    report.save_as("ct/report", enforce_file_format=True)
    recording = read("ct")
    assert recording.size == (4, *SHAPE)
    assert recording.notes == ("2 files without pictures of DICOM left out",)
    for name in ("IM0", "IM1", "IM2", "IM3"):
        Path("ct", name).unlink()
    with pytest.raises(ImageError, match="^'ct': none of the DICOM files in it has pixels; name a folder with the slices"):
        read("ct")
    Path("ct/report").unlink()
    with pytest.raises(ImageError, match="^'ct' is a directory; name the pictures in it"):
        read("ct")
