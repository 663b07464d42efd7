"""Pictures in: every format and every slip, and preprocessing equal to torchvision's to the last bit."""

import errno
import io
import os
import socket
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

import relume
from relume import errors
from relume.models.libraries import import_torchvision
from relume.pictures.photo import as_photo, load_photo, load_picture
from relume.pictures.preprocessing import IMAGENET, Preprocessing


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


TIFF_OF_YCBCR = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow before 13 cannot read the YCbCr TIFF that it writes"
)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", pytest.param("YCbCr", marks=TIFF_OF_YCBCR), "1", "LA", "RGBA", "HSV"])
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


# --- Files that are no picture files ---


needs_unix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes and sockets here")


def said(path):
    with pytest.raises(errors.ImageError) as caught:
        load_photo(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@needs_unix
@pytest.mark.timeout(20)
def test_what_would_wait_for_a_writer_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    for name in ("pipe", "socket", os.devnull):
        assert said(name) == f"{name!r} is a pipe, a socket or a device, and no file; save the picture as a file first"
    server.close()
    photo(8, 8).save("real.png")
    Path("link.png").symlink_to("real.png")
    assert load_photo("link.png").picture.size == (8, 8)


@pytest.mark.parametrize("where", ["stat", "open"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, where):
    photo(8, 8).save(tmp_path / "secret.png")

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, where, refuse)
    assert said(tmp_path / "secret.png").startswith(f"there is no permission to read '{tmp_path}/secret.png'; ")


def test_names_that_no_file_can_have():
    assert "cannot be opened: file name too long; check the path" in said("x" * 5000)
    assert "cannot be opened: " in said("a\0b")


def test_a_name_that_is_no_text_is_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9\n.jpg")
    path = tmp_path / name
    assert said(path) == f"there is no file '{tmp_path}/caf\\udce9\\n.jpg'; check the path"
    path.mkdir()
    assert said(path).endswith("caf\\udce9\\n.jpg/*.jpg")


def test_eps_is_refused_by_a_sentence_whether_or_not_ghostscript_is_there(tmp_path):
    photo(8, 8).save(tmp_path / "a.eps")
    assert said(tmp_path / "a.eps").endswith("it is EPS, a program that Ghostscript would have to run; convert it to PNG")


def test_a_picture_that_cannot_be_decoded_is_an_error_of_the_picture(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(jpeg(photo(300, 300))[:3000])
    with (
        Image.open(tmp_path / "cut.jpg") as lazy,
        pytest.raises(errors.ImageError, match="^the picture cannot be read: .*trunc"),
    ):
        as_photo(lazy)
    with pytest.raises(errors.ImageError, match="the picture: there are no pixels in 0×5 pixels"):
        as_photo(Image.new("RGB", (0, 5)))


def test_facts_of_a_file_do_not_go_into_what_is_drawn_of_it(tmp_path):
    picture = photo(8, 8)
    picture.info["comment"] = "x" * 70000  # which no JPEG can hold, and Pillow would write into one
    assert as_photo(picture).picture.info == {}
    picture.save(tmp_path / "a.png", icc_profile=b"profile")
    assert load_photo(tmp_path / "a.png").picture.info == {"icc_profile": b"profile"}


# --- What is said of a picture ---


FIRST = ("the first of several pictures in it is taken",)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_of_several_pictures_is_taken_and_said(tmp_path, kind):
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    pictures[0].save(tmp_path / "a", kind, save_all=True, append_images=pictures[1:])
    several = load_photo(tmp_path / "a")
    assert several.notes == FIRST
    assert several.as_dict()["notes"] == [*FIRST]
    red, green, blue = several.picture.getpixel((8, 8))
    assert (red > 250, green < 5, blue < 5) == (True, True, True)
    pictures[0].save(tmp_path / "b", "JPEG" if kind == "MPO" else kind)
    assert load_photo(tmp_path / "b").notes == ()
    with Image.open(tmp_path / "a") as lazy:
        lazy.seek(1)
        second = as_photo(lazy)
        assert second.notes == ("number 2 of several pictures in it is taken",)
        assert second.picture.getpixel((8, 8))[1] > 100


def test_an_animation_that_is_cut_short_still_has_its_first_picture(tmp_path):
    pictures = [photo(60, 40), photo(60, 40).rotate(180)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    whole, content = load_picture(tmp_path / "a.gif"), (tmp_path / "a.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) // 2 + 40])
    assert np.array_equal(np.asarray(load_picture(tmp_path / "cut.gif")), np.asarray(whole))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize(("highest", "bits"), [(255, 8), (1000, 10), (4095, 12), (16383, 14), (16384, None), (0, None)])
def test_sixteen_bits_that_hold_fewer_are_said_and_not_scaled(tmp_path, suffix, highest, bits):
    values = np.linspace(0, highest, 40 * 30).astype(np.uint16).reshape(30, 40)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    read = load_photo(tmp_path / f"a.{suffix}")
    assert np.array_equal(np.asarray(read.picture)[..., 1], np.round(values / 257))
    if bits is None:
        assert read.notes == ()
    else:
        (note,) = read.notes
        assert (
            f"above {2**bits - 1}, so it is nearly black; if it holds {bits} bits, multiply them by {2 ** (16 - bits)}" in note
        )


def test_sixteen_bits_of_either_order_are_the_same():
    values = np.linspace(0, 60000, 40 * 30).astype(np.uint16).reshape(30, 40)
    big = Image.frombytes("I;16B", (40, 30), values.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(as_photo(big).picture), np.asarray(as_photo(Image.fromarray(values)).picture))


def test_sixteen_bits_a_colour_that_are_nearly_black_are_said(tmp_path):
    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    for highest, notes in ((4095, 1), (65535, 0)):
        values = np.linspace(0, highest, 6 * 8 * 3).astype(">u2").reshape(6, 24)
        rows = b"".join(b"\0" + row.tobytes() for row in values)
        head = (8).to_bytes(4, "big") + (6).to_bytes(4, "big") + b"\x10\2\0\0\0"
        parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        read = load_photo(tmp_path / "a.png")
        assert np.array_equal(np.asarray(read.picture).reshape(6, 24), values >> 8)
        assert len(read.notes) == notes


def test_twelve_bits_that_a_tiff_states_are_scaled_by_them(tmp_path):
    values = np.linspace(0, 4095, 12 * 8).astype(np.uint16)
    packed = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in values.reshape(-1, 2).tolist())
    tags = [(256, 12), (257, 8), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, len(packed))]
    fields = b"".join(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little") for tag, value in tags)
    at = (8 + len(packed)).to_bytes(4, "little")
    (tmp_path / "a.tiff").write_bytes(b"II*\0" + at + packed + len(tags).to_bytes(2, "little") + fields + b"\0" * 4)
    read = load_photo(tmp_path / "a.tiff")
    assert np.array_equal(np.asarray(read.picture)[..., 0].ravel(), np.round(values / (4095 / 255)))
    assert read.notes == ()


def test_a_line_of_pixels_is_refused_and_a_panorama_is_not():
    with pytest.raises(errors.ImageError, match="30000×3 pixels is too narrow"):
        IMAGENET.view(photo(30000, 3))
    assert IMAGENET.view(photo(5000, 100)).size == (224, 224)
