"""Damaged picture files: a photo or one sentence, and nothing else, whatever Pillow raises, warns of or prints."""

import logging
import warnings

import numpy as np
import pytest
from PIL import Image

from relume.errors import ImageError
from relume.pictures import decoding as reading
from relume.pictures.photo import load_photo
from tests.helpers.damaged import case, escape, whole


@pytest.fixture(scope="module")
def pictures():
    return whole()


def test_whole_pictures_of_every_format_are_read(pictures, tmp_path):
    """Or else the damaged ones would show nothing."""
    read = set()
    for content in pictures:
        (tmp_path / "whole").write_bytes(content)
        assert escape(tmp_path / "whole") is None
        try:
            load_photo(tmp_path / "whole")
        except ImageError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(tmp_path / "whole") as picture:
                read.add(picture.format)
    assert read >= {"BMP", "DDS", "GIF", "ICO", "JPEG", "MPO", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"}


@pytest.mark.parametrize("part", range(8))
def test_nothing_escapes_from_damaged_pictures(pictures, part, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # or a damaged size would fill the memory
    monkeypatch.setattr(logging.root, "handlers", [])  # those of the tests would take what is logged
    path = tmp_path / "damaged.image"
    escaped = {}
    for seed in range(part * 250, (part + 1) * 250):
        path.write_bytes(case(seed, pictures))
        if (what := escape(path)) is not None:
            escaped[seed] = what
    assert escaped == {}
    if reading._libtiff_setters():  # libtiff prints past Python
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "error", [TypeError("EXIF"), RuntimeError("AVIF"), NotImplementedError(), KeyError(273), AssertionError(), RecursionError()]
)
def test_whatever_a_reader_raises_is_an_error_of_the_file(tmp_path, monkeypatch, error):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.bmp")

    def fail(self):
        raise error

    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", fail)
    with pytest.raises(ImageError, match=f"a.bmp' cannot be read: .*{type(error).__name__}.*; it may be damaged or cut short"):
        load_photo(tmp_path / "a.bmp")


def test_a_picture_that_does_not_fit_into_memory_is_said_and_an_interrupt_goes_through(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.bmp")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", lambda self: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ImageError, match="a.bmp' does not fit into memory; scale it down first"):
        load_photo(tmp_path / "a.bmp")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        load_photo(tmp_path / "a.bmp")


def test_damaged_exif_data_leave_the_picture(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def fail(self):
        raise TypeError("an entry of another type")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    photo = load_photo(tmp_path / "a.png")
    assert np.array_equal(np.asarray(photo.picture), pixels)
    assert (photo.orientation, photo.notes) == (1, ("its EXIF data cannot be read, so it is taken to be upright",))


def test_damage_is_made_of_the_seed_alone(pictures):
    assert case(7, pictures) == case(7, pictures)
    assert len({case(seed, pictures) for seed in range(50)}) > 45
