"""What a library says of preprocessing, as plain data: the tensors against those of the library's own code."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from relume.errors import ImageError, InputError, ModelError
from relume.models.libraries import import_library, import_torchvision
from relume.models.timm import timm_preprocessing
from relume.models.transformers import processor_preprocessing
from relume.pictures.photo import Photo
from relume.pictures.preprocessing import INTERPOLATIONS, Preprocessing

SIZES = [(300, 200), (203, 311), (224, 224), (61, 37)]


def photo(width, height):
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), 128 + 90 * np.sin((x + y) / 5)], -1)
    return Image.fromarray(rgb.astype(np.uint8))


@pytest.mark.parametrize("size", [(3, 200), (200, 3), (40, 41), (50, 47)])
@pytest.mark.parametrize("crop", [33, 37, (20, 51)])
def test_margins_are_torchvisions_to_the_pixel(size, crop):
    """Odd margins and odd padding, on both axes."""
    functional = import_torchvision().transforms.functional
    ours = Preprocessing(resize=(40, 41), crop=crop).view(photo(*size))
    theirs = functional.center_crop(functional.resize(photo(*size), (40, 41)), crop)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"resize": 0}, "resize is a number of pixels, or height and width, from 1 on; got 0"),
        ({"crop": (32, -1)}, "crop is a number of pixels"),
        (
            {"crop": 100_000},
            "crop makes pictures of 100000×100000 pixels, and a network's input has at most 64 million; give less",
        ),
        ({"resize": 100_000}, "resize makes pictures of 100000×100000 pixels"),
        ({"resize": (10, 10**7)}, "resize makes pictures of 10×10000000 pixels"),
        ({"interpolation": "cubic"}, "no interpolation 'cubic'; choose from nearest, bilinear, bicubic, lanczos"),
        ({"mean": (0.5, 0.5)}, "mean and std are finite numbers, one for each channel .* got mean 0.5, 0.5 and std 0.229"),
        ({"mean": ()}, "got mean none"),
        ({"std": (1, 1, 0)}, "none of std is zero; got"),
        ({"std": (1, 1, float("nan"))}, "mean and std are finite numbers"),
        ({"resize": (1, 2, 3, 4)}, "resize is a number of pixels"),
        ({"spacing": (1, 0)}, "spacing is a finite number above zero for each axis; got 1, 0"),
        ({"window": (5, 5)}, "window is two finite values, the lower first; got 5, 5"),
        ({"bands": (0, -1)}, "bands are numbers of channels, counted from 0; got 0, -1"),
    ],
)
def test_what_makes_no_tensor_is_refused(changes, says):
    with pytest.raises(InputError, match=says):
        Preprocessing(**changes)


def test_a_line_of_pixels_can_be_squashed():
    assert Preprocessing(resize=(32, 32), crop=32).view(photo(9000, 2)).size == (32, 32)
    with pytest.raises(ImageError):
        Preprocessing(resize=320, crop=32).view(photo(9000, 2))


# --- timm ----------------------------------------------------------------------------------------------------------------

TIMM = {
    "center": {"crop_pct": 0.875, "crop_mode": "center", "interpolation": "bilinear"},
    "odd margins": {"crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic"},
    "squash": {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"},
    "squash and crop": {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bicubic"},
    "squash to a rectangle": {"crop_pct": 0.95, "crop_mode": "squash", "interpolation": "bicubic", "input_size": (3, 160, 256)},
}


def timm_config(**changes):
    return {"input_size": (3, 224, 224), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), **changes}


@pytest.mark.parametrize("case", TIMM)
@pytest.mark.parametrize("size", SIZES)
def test_timms_tensors_to_the_last_bit(case, size):
    config = timm_config(**TIMM[case])
    theirs = import_library("timm").data.create_transform(**config, is_training=False)(photo(*size))
    found = timm_preprocessing(config, case)
    assert torch.equal(found.tensor(found.view(photo(*size))), theirs)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"crop_mode": "border"}, "crop mode 'border'"),
        ({"input_size": (1, 28, 28)}, "pictures of 1 channels"),
        ({"input_size": (3, 160, 256)}, "160×256 pixels from the middle"),
        ({"interpolation": "random"}, "interpolation 'random'"),
    ],
)
def test_what_timm_does_and_relume_does_not_is_refused(changes, says):
    with pytest.raises(ModelError, match=says):
        timm_preprocessing(timm_config(**{**TIMM["center"], **changes}), "timm:it")


# --- transformers --------------------------------------------------------------------------------------------------------

SQUARE = {"size": {"height": 96, "width": 96}}
PROCESSORS = {
    "ViT": ("ViTImageProcessor", {}),
    "ViT, not square": ("ViTImageProcessor", {"size": {"height": 96, "width": 160}, "resample": 1}),
    "ViT, not rescaled": ("ViTImageProcessor", {**SQUARE, "do_rescale": False}),
    "ViT, not normalised": ("ViTImageProcessor", {**SQUARE, "do_normalize": False}),
    "ViT, to ±1": ("ViTImageProcessor", {**SQUARE, "do_normalize": False, "rescale_factor": 1 / 127.5}),
    "ViT, neither": ("ViTImageProcessor", {**SQUARE, "do_normalize": False, "do_rescale": False}),
    "DeiT": ("DeiTImageProcessor", {}),
    "DeiT, odd margins": ("DeiTImageProcessor", {"size": {"height": 99, "width": 103}, "crop_size": 96}),
    "ConvNeXt": ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    "ConvNeXt, 384": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "ConvNeXt, crop_pct": ("ConvNextImageProcessor", {"size": {"shortest_edge": 97}, "crop_pct": 0.95}),
    "Bit": ("BitImageProcessor", {"size": {"shortest_edge": 131}, "crop_size": 96}),
    "CLIP": ("CLIPImageProcessor", {}),
    "PoolFormer": ("PoolFormerImageProcessor", {}),
    "LeViT": ("LevitImageProcessor", {}),
    "EfficientNet": ("EfficientNetImageProcessor", {}),
    "EfficientNet, offset": ("EfficientNetImageProcessor", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
    "MobileNetV2": ("MobileNetV2ImageProcessor", {}),
    "Segformer": ("SegformerImageProcessor", {}),
}


@pytest.mark.parametrize("case", PROCESSORS)
@pytest.mark.parametrize("backend", ["Pil", ""])
def test_the_tensors_of_transformers_processors(case, backend):
    """Pillow's pixels: the same but for the rounding of float32. torchvision's: on average within 0.6 of 255 values."""
    name, options = PROCESSORS[case]
    processor = getattr(import_library("transformers"), name + backend)(**options)
    found = processor_preprocessing(processor, case)
    std = torch.tensor(found.std)[:, None, None]
    for size in SIZES:
        theirs = torch.as_tensor(processor(photo(*size), return_tensors="pt")["pixel_values"][0])
        ours = found.tensor(found.view(photo(*size)))
        assert ours.shape == theirs.shape
        levels = ((ours - theirs) * std * 255).abs()  # in pixel values from 0 to 255
        assert float(levels.max() if backend else levels.mean()) < (1e-3 if backend else 0.6), size


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("ViTImageProcessor", {"do_pad": True}, "do_pad True"),
        ("ViTImageProcessor", {"do_resize": False}, "do_resize False"),
        ("ViTImageProcessor", {"size": {"shortest_edge": 64}}, "size {'shortest_edge': 64}"),
        ("ViTImageProcessor", {"size": {"shortest_edge": 64, "longest_edge": 80}}, "'longest_edge': 80"),
        ("PerceiverImageProcessor", {}, "a PerceiverImageProcessor, does more than its configuration tells"),
    ],
)
def test_processors_that_do_something_else_are_refused(name, options, says):
    processor = getattr(import_library("transformers"), name)(**options)
    with pytest.raises(ModelError, match=says):
        processor_preprocessing(processor, "it")


@pytest.mark.parametrize("backend", ["Pil", ""])
def test_pictures_stay_in_rgb_where_a_processor_turns_them_round(backend):
    processor = getattr(import_library("transformers"), "MobileViTImageProcessor" + backend)(
        size={"shortest_edge": 70}, crop_size={"height": 64, "width": 64}
    )
    found = processor_preprocessing(processor, "it")
    theirs = torch.as_tensor(processor(photo(120, 90), return_tensors="pt")["pixel_values"][0])
    assert float((found.tensor(found.view(photo(120, 90))) - theirs.flip(0)).abs().mean()) < 0.6 / 255


def test_a_processor_with_code_of_its_own_is_found_out():
    class Mirrored(import_library("transformers").ViTImageProcessor):
        def resize(self, image, **kwargs):
            return super().resize(image, **kwargs).flip(-1)

    with pytest.raises(ModelError, match="a Mirrored, does more than its configuration tells relume"):
        processor_preprocessing(Mirrored(), "it")


def test_plain_data_survives_json():
    found = Preprocessing(resize=(96, 160), crop=(90, 150), interpolation="lanczos", offset="floor")
    data = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(json.dumps(found.as_dict())).items()}
    assert Preprocessing(**data) == found


def test_every_interpolation_is_pillows():
    views = [np.asarray(Preprocessing(32, 32, name).view(photo(60, 50))) for name in INTERPOLATIONS]
    for name, view in zip(INTERPOLATIONS, views, strict=True):
        resized = photo(60, 50).resize((38, 32), Image.Resampling[name.upper()])
        assert np.array_equal(view, np.asarray(resized)[:, 3:35])
    assert len({view.tobytes() for view in views}) == 6


def test_a_grey_network_gets_grey_and_bands_their_order():
    picture = photo(40, 30)
    grey = Preprocessing(None, None, mean=(0.5,), std=(0.25,)).tensor(picture)
    assert grey.shape == (1, 30, 40)
    assert np.allclose(grey[0], (np.asarray(picture.convert("L"), np.float32) / 255 - 0.5) / 0.25)
    colours = Preprocessing(None, None, mean=(0.0,) * 3, std=(1.0,) * 3).tensor(picture)
    reversed_ = Preprocessing(None, None, mean=(0.0,), std=(1.0,), bands=(2, 1, 0)).tensor(picture)
    assert np.array_equal(reversed_, colours.flip(0))
    with pytest.raises(ImageError, match="a photo gives 3 channels, and mean and std are for 5; give a file with all of them"):
        Preprocessing(mean=(0.0,) * 5, std=(1.0,) * 5).prepare(Photo.whole(picture))
