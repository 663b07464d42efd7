"""Preprocessing: from a picture to the tensor that a network expects."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from relume.errors import ImageError, InputError
from relume.pictures.photo import Photo, load_picture

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IMAGENET", "INTERPOLATIONS", "UNCHANGED", "Interpolation", "Preprocessing", "check_same", "preprocess_image"]

#: The most pixels of a resized picture: more are a mistake (a line of pixels, say) and not a photograph.
_MOST_PIXELS = 64_000_000

#: The highest difference between an input and its photo, in units of that of the photo moved by a pixel. Other ways to resize
#: stay below it, nearest neighbours only just; a crop two pixels off, or a scale 3 % off, does not.
_SAME = 1.0

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

#: Pillow's ways to resize.
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width."""
    return size if isinstance(size, tuple) else (size, size)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """A network's preprocessing as plain data: a picture is resized, cropped about its centre and normalised.

    The tensors are those of torchvision's classification presets, to the last bit, and of those of its detectors, which resize
    and normalise images themselves.

    Attributes:
        resize: the shorter side in pixels, the other in proportion; or (height, width), whatever the picture's proportions;
            None to leave its size.
        crop: the side of the square, or (height, width), cut from the middle, in pixels; beyond the picture it is black. None
            for the whole.
        interpolation: the way to resize: one of :data:`INTERPOLATIONS`.
        mean: the values subtracted from red, green and blue, whose range is 0 to 1.
        std: the values that they are divided by after that.
        offset: the rounding of an odd margin: torchvision rounds half a pixel to even, transformers rounds down (``floor``).
        letterbox: True to fit the whole picture into the crop, between bars of black; ``resize`` has no effect then.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures import Preprocessing
        >>> preprocessing = Preprocessing(resize=64, crop=(48, 56), interpolation="bicubic")
        >>> view = preprocessing.view(Image.new("RGB", (200, 100), "white"))
        >>> view.size, preprocessing.tensor(view).shape
        ((56, 48), torch.Size([3, 48, 56]))
    """

    resize: int | tuple[int, int] | None = 256
    crop: int | tuple[int, int] | None = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    offset: Literal["round", "floor"] = "round"
    letterbox: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no tensor can be made with.

        Raises:
            InputError: a size below one pixel or of too many, an unknown interpolation, or not a finite number for each colour.
        """
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is None:
                continue
            if min(_pair(size)) < 1:
                raise InputError(f"{name} is a number of pixels, or height and width, from 1 on; got {size}")
            if math.prod(_pair(size)) > _MOST_PIXELS:
                raise InputError(
                    f"{name} makes pictures of {'×'.join(map(str, _pair(size)))} pixels, and a network's input has at most "
                    f"{_MOST_PIXELS // 10**6} million; give less"
                )
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"there is no interpolation {self.interpolation!r}; choose from {', '.join(INTERPOLATIONS)}")
        if self.letterbox and self.crop is None:
            raise InputError(
                "a letterbox fits a picture into the crop, and there is none; give crop=, and --crop in the command"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not np.isfinite(values).all() or (name == "std" and 0 in values):
                what = "three finite numbers" + (", none of them zero" if name == "std" else "")
                raise InputError(f"{name} is {what}, for red, green and blue; got {', '.join(map(str, values)) or 'none'}")

    def view(self, picture: Image.Image) -> Image.Image:
        """Return the view that the network has of ``picture``: resized and cropped to the pixels of ``crop``, RGB.

        Raises:
            ImageError: the picture is so long and narrow that resizing its shorter side would make it enormous.
        """
        size = self._size(picture)
        method = Image.Resampling[self.interpolation.upper()]
        resized = picture if picture.size == size else picture.resize(size, method)
        return resized.crop(self._crop(size))

    def frame(self, photo: Photo) -> Photo:
        """Return the photo with the box that :meth:`view` takes of it."""
        size = self._size(photo.picture)
        across, down = photo.picture.width / size[0], photo.picture.height / size[1]
        left, top, right, bottom = self._crop(size)
        return replace(photo, box=(left * across, top * down, right * across, bottom * down))

    def _crop(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the crop's edges in a resized picture of ``size``."""
        if self.crop is None:
            return 0, 0, *size
        height, width = _pair(self.crop)
        left, top = self._margin(size[0] - width), self._margin(size[1] - height)
        return left, top, left + width, top + height

    def _size(self, picture: Image.Image) -> tuple[int, int]:
        """Return width and height of the resized picture."""
        width, height = picture.size
        if self.letterbox:
            assert self.crop is not None, "it was refused"
            within = _pair(self.crop)
            factor = min(within[1] / width, within[0] / height)
            return max(1, round(width * factor)), max(1, round(height * factor))
        if self.resize is None:
            return width, height
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        short, long = min(width, height), max(width, height)
        longer = int(self.resize * long / short)
        if longer * self.resize > _MOST_PIXELS:
            raise ImageError(
                f"a picture of {width}×{height} pixels is too narrow for a shorter side of {self.resize}; crop it first"
            )
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def _margin(self, rest: int) -> int:
        """Return where the crop begins in ``rest`` spare pixels; of an odd padding, both libraries put the odd pixel last."""
        return round(rest / 2) if self.offset == "round" and rest > 0 else int(rest / 2)

    def tensor(self, view: Image.Image) -> Tensor:
        """Convert a view to the network's input: ``(3, height, width)``, float32, normalised by ``mean`` and ``std``."""
        import torch

        pixels = torch.from_numpy(np.array(view, dtype=np.uint8)).permute(2, 0, 1).contiguous()
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return pixels.to(torch.float32).div(255).sub_(mean).div_(std)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


#: The preprocessing of most networks trained on ImageNet: 224 × 224 pixels from the middle.
IMAGENET = Preprocessing()

#: The preprocessing of networks that resize and normalise images themselves, as torchvision's detectors do: none.
UNCHANGED = Preprocessing(resize=None, crop=None, mean=(0, 0, 0), std=(1, 1, 1))


def preprocess_image(path: str | Path, preprocessing: Preprocessing = IMAGENET) -> Tensor:
    """Read a picture file as a network's input: ``(3, H, W)``, float32; by default 224 × 224 with ImageNet's normalisation.

    Args:
        path: a file in a format that Pillow reads.
        preprocessing: the preprocessing that the network was trained with.

    Raises:
        ImageError: the picture cannot be read or used.

    Example:
        >>> import tempfile
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     draw_scene(0).picture.save(file.name)
        ...     image = relume.preprocess_image(file.name)
        >>> image.shape, image.dtype
        (torch.Size([3, 224, 224]), torch.float32)
    """
    return preprocessing.tensor(preprocessing.view(load_picture(path)))


def check_same(view: Image.Image, image: Tensor, sample: int) -> None:
    """Refuse to draw ``image`` ``(C, H, W)``, number ``sample``, on another photo than the one ``view`` was cut from.

    Each channel, or grey for a network of another number of channels, is compared less its mean and over its standard
    deviation, so that another normalisation is no other photo. The difference must be less than that between the photo and
    itself moved by one pixel.

    Raises:
        InputError: another size, or another picture.
    """
    import torch

    if tuple(image.shape[1:]) != (view.height, view.width):
        raise InputError(
            f"photo {sample} becomes an input of {view.height} × {view.width} pixels, and image {sample} has shape "
            f"{tuple(image.shape)}; give the preprocessing that made it"
        )
    pixels = image.detach().cpu().float()
    in_colour = len(pixels) == 3
    seen = np.array(view if in_colour else view.convert("L"), dtype=np.float32)
    expected = _standardised(torch.from_numpy(seen).reshape(view.height, view.width, -1).permute(2, 0, 1))
    actual = _standardised(pixels if in_colour else pixels.mean(0, keepdim=True))
    moved = max(0.01, *(float((expected - expected.roll(1, axis)).abs().mean()) for axis in (1, 2)))
    difference = float((actual - expected).abs().mean())
    if not difference < _SAME * moved:
        raise InputError(
            f"image {sample} is not what becomes of photo {sample}: they differ {difference / moved:.1f} times as much as the "
            "photo and itself moved by a pixel; give the preprocessing that made it, and the photos in the order of the images"
        )


def _standardised(channels: Tensor) -> Tensor:
    return (channels - channels.mean((1, 2), keepdim=True)) / channels.std((1, 2), keepdim=True).clamp(min=1e-6)
