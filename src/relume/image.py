"""A picture file to the tensor a network expects, with what it saw of the picture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from relume.errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IMAGENET", "INTERPOLATIONS", "Interpolation", "Preprocessing", "load_picture", "opened", "preprocess_image"]

# beyond this a resized picture is a mistake (a line of pixels, say) and not a photograph
_MOST_PIXELS = 64_000_000

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

#: Pillow's ways to resize.
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return size if isinstance(size, tuple) else (size, size)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes a network's input, as plain data: resized, cropped about its centre, normalised.

    The tensors are those of torchvision's classification presets, to the last bit.

    Attributes:
        resize: the shorter side, the other in proportion; or (height, width), whatever the proportions of the picture.
        crop: the side of the square, or (height, width), that is cut from the middle; what lies outside is black.
        interpolation: how the resized picture is computed: one of :data:`INTERPOLATIONS`.
        mean: what is subtracted from red, green and blue, in pixel values from 0 to 1.
        std: what they are divided by then.
        offset: where the crop begins if the margin is odd: torchvision rounds half a pixel to even, transformers rounds down.
    """

    resize: int | tuple[int, int] = 256
    crop: int | tuple[int, int] = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    offset: Literal["round", "floor"] = "round"

    def __post_init__(self) -> None:
        """Refuse what makes no tensor.

        Raises:
            InputError: a size below one pixel, an unknown interpolation, or not a finite number for each colour.
        """
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if min(_pair(size)) < 1:
                raise InputError(f"{name} is a number of pixels, or height and width, from 1 on; got {size}")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"there is no interpolation {self.interpolation!r}; choose from {', '.join(INTERPOLATIONS)}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not np.isfinite(values).all() or (name == "std" and 0 in values):
                what = "three finite numbers" + (", none of them zero" if name == "std" else "")
                raise InputError(f"{name} is {what}, for red, green and blue; got {', '.join(map(str, values)) or 'none'}")

    def view(self, picture: Image.Image) -> Image.Image:
        """What the network sees of ``picture``: resized and cropped, as many pixels as ``crop`` says, RGB.

        Raises:
            ImageError: the picture is so long and narrow that resizing its shorter side would make it enormous.
        """
        size = self._size(picture)
        method = Image.Resampling[self.interpolation.upper()]
        resized = picture if picture.size == size else picture.resize(size, method)
        height, width = _pair(self.crop)
        left, top = self._margin(size[0] - width), self._margin(size[1] - height)
        return resized.crop((left, top, left + width, top + height))

    def _size(self, picture: Image.Image) -> tuple[int, int]:
        """Width and height of the resized picture."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        width, height = picture.size
        short, long = min(width, height), max(width, height)
        longer = int(self.resize * long / short)
        if longer * self.resize > _MOST_PIXELS:
            raise ImageError(
                f"a picture of {width}×{height} pixels is too narrow for a shorter side of {self.resize}; crop it first"
            )
        return (self.resize, longer) if width <= height else (longer, self.resize)

    def _margin(self, rest: int) -> int:
        """Where the crop begins in ``rest`` spare pixels; below zero, both libraries put the odd pixel of padding last."""
        return round(rest / 2) if self.offset == "round" and rest > 0 else int(rest / 2)

    def tensor(self, view: Image.Image) -> Tensor:
        """A view as the network's input: ``(3, height, width)``, float32, normalised by ``mean`` and ``std``."""
        import torch

        pixels = torch.from_numpy(np.array(view, dtype=np.uint8)).permute(2, 0, 1).contiguous()
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return pixels.to(torch.float32).div(255).sub_(mean).div_(std)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


IMAGENET = Preprocessing()


def load_picture(path: str | Path) -> Image.Image:
    """Read a picture file upright and in RGB: EXIF orientation applied, transparency over white, 16 bits scaled to 8.

    Raises:
        ImageError: the file is missing, not a picture, damaged, or too large.
    """
    with opened(path) as file:
        return _rgb(ImageOps.exif_transpose(file))


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """A picture file, its pixels read.

    Raises:
        ImageError: as :func:`load_picture`; and for what is raised as one inside, with the file's name before it.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a directory; name the pictures in it, {path}/*.jpg")
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 megapixels and refuses above 179: the refusal is enough
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                file.load()
                yield file
    except ImageError as error:
        raise ImageError(f"{str(path)!r}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"there is no file {str(path)!r}; check the path") from None
    except UnidentifiedImageError:
        raise ImageError(f"{str(path)!r} is not a picture in a format that Pillow reads; convert it to PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{str(path)!r} has more than 179 million pixels; scale it down first") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{str(path)!r} cannot be read: {_reason(error)}; it may be damaged or cut short") from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".").lower()


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        values = np.asarray(picture, dtype=np.float64)
        if values.max(initial=0) > 65535 or values.min(initial=0) < 0:
            raise ImageError("a picture with 32 bits per pixel has no known range; save it with 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ImageError("a picture of floating-point values has no known range; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def preprocess_image(path: str | Path, preprocessing: Preprocessing = IMAGENET) -> Tensor:
    """Read a picture file as a network's input: ``(3, H, W)``, float32; by default 224×224 with ImageNet's normalisation.

    Raises:
        ImageError: the picture cannot be read or used.
    """
    return preprocessing.tensor(preprocessing.view(load_picture(path)))
