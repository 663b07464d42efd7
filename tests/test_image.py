"""Pictures in: CONFORMANCE 26, and preprocessing equal to torchvision's to the last bit."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import relume
from relume import errors
from relume.image import IMAGENET, Preprocessing, load_picture
from relume.models.vision import import_torchvision


def photo(width, height, mode="RGB"):
    """Smooth colour with detail in every channel, so that a wrong size, shift or channel order shows."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), 128 + 90 * np.sin((x + y) / 5)], -1)
    return Image.fromarray(rgb.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (224, 224), (257, 256), (1000, 90), (40, 30), (1, 1)])
@pytest.mark.parametrize(
    "preprocessing", [IMAGENET, Preprocessing(342, 299, "bicubic", (0.5,) * 3, (0.25,) * 3)], ids=["imagenet", "bicubic 299"]
)
def test_equals_torchvisions_preset(size, preprocessing):
    vision = import_torchvision()
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(
        crop_size=preprocessing.crop,
        resize_size=preprocessing.resize,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=vision.transforms.InterpolationMode(preprocessing.interpolation),
    )
    picture = photo(*size)
    ours = preprocessing.tensor(preprocessing.view(picture))
    assert torch.equal(ours, preset(picture))


def test_a_crop_larger_than_the_picture_is_padded_as_torchvision_pads():
    vision = import_torchvision()
    picture = photo(50, 40)
    ours = Preprocessing(resize=32, crop=48).view(picture)
    theirs = vision.transforms.functional.center_crop(vision.transforms.functional.resize(picture, 32), 48)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_preprocess_image_is_imagenets(tmp_path):
    photo(320, 240).save(tmp_path / "dog.png")
    got = relume.preprocess_image(tmp_path / "dog.png")
    assert (got.shape, got.dtype) == ((3, 224, 224), torch.float32)
    assert torch.equal(got, IMAGENET.tensor(IMAGENET.view(photo(320, 240))))


def test_exif_orientation_is_applied(tmp_path):
    picture = photo(60, 40)
    for orientation, undo in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.transpose(undo).save(tmp_path / "turned.png", exif=exif)
        assert np.array_equal(np.asarray(load_picture(tmp_path / "turned.png")), np.asarray(picture)), orientation


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "YCbCr", "1", "LA", "RGBA", "HSV"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    picture = photo(40, 30, "RGB").convert(mode)
    path = tmp_path / ("picture.tiff" if mode in ("CMYK", "YCbCr", "HSV") else "picture.png")
    path = tmp_path / "picture.jpg" if mode == "HSV" else path
    (picture.convert("RGB") if mode == "HSV" else picture).save(path)
    loaded = load_picture(path)
    assert (loaded.mode, loaded.size) == ("RGB", (40, 30))
    if mode not in ("HSV", "YCbCr"):
        assert np.array_equal(np.asarray(loaded), np.asarray(picture.convert("RGB")))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    loaded = np.asarray(load_picture(tmp_path / "deep.png"))
    assert np.array_equal(loaded[..., 0], np.round(values / 257))
    assert np.array_equal(loaded[..., 0], loaded[..., 2])


def test_transparency_shows_white(tmp_path):
    picture = photo(20, 20, "RGBA")
    picture.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (20, 10))))
    picture.save(tmp_path / "cut.png")
    loaded = np.asarray(load_picture(tmp_path / "cut.png"))
    assert (loaded[:, 0::2] == 255).all()
    assert np.array_equal(loaded[:, 1::2], np.asarray(picture.convert("RGB"))[:, 1::2])
    palette = photo(20, 20).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    palette.save(tmp_path / "palette.gif")
    assert load_picture(tmp_path / "palette.gif").getpixel((0, 0)) == (255, 255, 255)


def jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


def float_tiff():
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)).save(buffer, "TIFF")
    return buffer.getvalue()


UNUSABLE = {
    "missing.jpg": (None, "there is no file '.*missing.jpg'; check the path"),
    "words.jpg": (b"This is not a picture.", "is not a picture in a format that Pillow reads"),
    "empty.jpg": (b"", "empty.jpg' is empty, 0 bytes long; copy or download it again"),
    "cut.jpg": (jpeg(photo(300, 300))[:3000], "cut.jpg' cannot be read: .*truncated.*; it may be damaged or cut short"),
    "float.tiff": (float_tiff(), "floating-point values has no known range"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_files_are_refused_in_one_sentence(tmp_path, name):
    content, says = UNUSABLE[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.ImageError, match=says) as caught:
        relume.preprocess_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_png_cut_short_anywhere_is_refused_or_whole(tmp_path):
    buffer = io.BytesIO()
    photo(64, 64).save(buffer, "PNG")
    whole = buffer.getvalue()
    refused = 0
    for end in range(1, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "cut.png").write_bytes(whole[:end])
        try:
            assert np.array_equal(np.asarray(load_picture(tmp_path / "cut.png")), np.asarray(photo(64, 64)))
        except errors.ImageError:
            refused += 1
    assert refused > 30


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(errors.ImageError, match="is a directory; name the pictures in it"):
        load_picture(tmp_path)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    photo(64, 64).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(errors.ImageError, match="scale it down first"):
        load_picture(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # above the limit that only warns
    assert load_picture(tmp_path / "big.png").size == (64, 64)


def test_a_line_of_pixels_is_refused_and_a_panorama_is_not():
    with pytest.raises(errors.ImageError, match="30000×3 pixels is too narrow"):
        IMAGENET.view(photo(30000, 3))
    assert IMAGENET.view(photo(5000, 100)).size == (224, 224)
