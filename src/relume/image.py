"""A picture file to the tensor a network expects, with what it saw of the picture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from relume.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IMAGENET", "Preprocessing", "load_picture", "opened", "preprocess_image"]

# beyond this a resized picture is a mistake (a line of pixels, say) and not a photograph
_MOST_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes a network's input, as plain data: shorter side to ``resize``, centre ``crop``, normalisation.

    The tensors are those of torchvision's classification presets, to the last bit.
    """

    resize: int = 256
    crop: int = 224
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def view(self, picture: Image.Image) -> Image.Image:
        """What the network sees of ``picture``: resized and cropped, ``crop`` × ``crop`` pixels, RGB.

        Raises:
            ImageError: the picture is so long and narrow that resizing its shorter side would make it enormous.
        """
        width, height = picture.size
        short, long = min(width, height), max(width, height)
        longer = int(self.resize * long / short)
        if longer * self.resize > _MOST_PIXELS:
            raise ImageError(
                f"a picture of {width}×{height} pixels is too narrow for a shorter side of {self.resize}; crop it first"
            )
        size = (self.resize, longer) if width <= height else (longer, self.resize)
        method = Image.Resampling[self.interpolation.upper()]
        resized = picture if picture.size == size else picture.resize(size, method)
        left, top = round((size[0] - self.crop) / 2), round((size[1] - self.crop) / 2)
        return resized.crop((left, top, left + self.crop, top + self.crop))

    def tensor(self, view: Image.Image) -> Tensor:
        """A view as the network's input: ``(3, crop, crop)``, float32, normalised by ``mean`` and ``std``."""
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
