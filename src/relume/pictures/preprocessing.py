"""Preprocessing: from a picture or a recording to the tensor that a network expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, overload

import numpy as np
from PIL import Image

from relume.errors import ImageError, InputError
from relume.pictures.photo import Photo, load_picture
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AS_RECORDED", "IMAGENET", "INTERPOLATIONS", "Interpolation", "Preprocessing", "check_same", "preprocess_image"]

#: The most pixels of a resized picture: more are a mistake (a line of pixels, say) and not a photograph.
_MOST_PIXELS = 64_000_000
_MOST_CELLS = 1 << 29  # of a volume

#: The highest difference between an input and its photo, in units of that of the photo moved by a pixel. Other ways to resize
#: stay below it, nearest neighbours only just; a crop two pixels off, or a scale 3 % off, does not.
_SAME = 1.0

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

#: A number of pixels for the shorter or every side, or one for each axis.
Size: TypeAlias = int | tuple[int, ...] | None

#: Pillow's ways to resize.
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """A network's preprocessing as plain data: a picture is resized, cropped about its centre and normalised.

    The tensors of photos are those of torchvision's classification presets, to the last bit.

    Attributes:
        resize: the shorter side in pixels, the other in proportion; or a number for each axis, (height, width), whatever the
            picture's proportions; None to leave the size as it is. Of a video, one number is about the frames' sides.
        crop: the side of the square, or a number for each axis, cut from the middle, in pixels; beyond the picture it is black.
            None to cut nothing.
        interpolation: the way to resize: one of :data:`INTERPOLATIONS`; recordings take the first three of them.
        mean: the values subtracted from each channel, whose range is 0 to 1; of a recording without a window or known limits,
            whose range is its own. One value is for all channels, and makes photos grey.
        std: the values that they are divided by after that.
        offset: the rounding of an odd margin: torchvision rounds half a pixel to even, transformers rounds down (``floor``).
        letterbox: True to fit the whole picture into the crop, between bars of black; ``resize`` has no effect then.
        spacing: the distance between neighbours along each axis, in the unit of a recording, to which it is resampled first.
        window: the values of a recording that become 0 and 1, such as ``(-150, 250)`` Hounsfield units; beyond, it is cut.
        bands: the channels that the network takes, in its order, counted from 0; all of them if None.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures import Preprocessing
        >>> preprocessing = Preprocessing(resize=64, crop=(48, 56), interpolation="bicubic")
        >>> view = preprocessing.view(Image.new("RGB", (200, 100), "white"))
        >>> view.size, preprocessing.tensor(view).shape
        ((56, 48), torch.Size([3, 48, 56]))

        A scan whose slices are 3 mm apart, for a network trained on cubes of 1.5 mm:

        >>> import numpy as np
        >>> from relume.pictures import Recording
        >>> scan = Recording(np.zeros((1, 40, 64, 64)), "volume", spacing=(3.0, 1.5, 1.5), unit="mm")
        >>> preprocessing = Preprocessing(None, 32, mean=(0,), std=(1,), spacing=(1.5, 1.5, 1.5), window=(-150, 250))
        >>> framed, image = preprocessing.prepare(scan)
        >>> image.shape, framed.box
        (torch.Size([1, 32, 32, 32]), ((12.0, 28.0), (16.0, 48.0), (16.0, 48.0)))
    """

    resize: Size = 256
    crop: Size = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    offset: Literal["round", "floor"] = "round"
    letterbox: bool = False
    spacing: tuple[float, ...] | None = None
    window: tuple[float, float] | None = None
    bands: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse values that no tensor can be made with.

        Raises:
            InputError: a size below one pixel or of too many, an unknown interpolation, not one finite number for each channel.
        """
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            sides = _sides(size, 2)
            if min(sides, default=1) < 1 or (isinstance(size, tuple) and not 0 < len(size) < 4):
                raise InputError(f"{name} is a number of pixels, or height and width, from 1 on; got {size}")
            if math.prod(sides) > _MOST_PIXELS:
                raise InputError(
                    f"{name} makes pictures of {'×'.join(map(str, sides))} pixels, and a network's input has at most "
                    f"{_MOST_PIXELS // 10**6} million; give less"
                )
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"there is no interpolation {self.interpolation!r}; choose from {', '.join(INTERPOLATIONS)}")
        counts = {len(self.mean), len(self.std)} - {1}
        if 0 in counts or len(counts) > 1 or not np.isfinite((*self.mean, *self.std)).all() or 0 in self.std:
            raise InputError(
                "mean and std are finite numbers, one for each channel (three for red, green and blue) or one for all, and "
                f"none of std is zero; got mean {_listed(self.mean)} and std {_listed(self.std)}"
            )
        if self.spacing is not None and not all(math.isfinite(step) and step > 0 for step in self.spacing):
            raise InputError(f"spacing is a finite number above zero for each axis; got {_listed(self.spacing)}")
        if self.window is not None and not _is_range(self.window):
            raise InputError(f"window is two finite values, the lower first; got {_listed(self.window)}")
        if self.bands is not None and (not self.bands or min(self.bands) < 0):
            raise InputError(f"bands are numbers of channels, counted from 0; got {_listed(self.bands)}")

    @overload
    def prepare(self, photo: Photo) -> tuple[Photo, Tensor]: ...
    @overload
    def prepare(self, photo: Recording) -> tuple[Recording, Tensor]: ...
    def prepare(self, photo: Photo | Recording) -> tuple[Photo | Recording, Tensor]:
        """Return a photo or recording with the part that the network sees of it, and the network's input: ``(C, *spatial)``.

        The input is float32, float64 where that is what was recorded.

        Raises:
            ImageError: it has other channels or axes than this preprocessing is for, or would become enormous.
        """
        if isinstance(photo, Recording):
            from relume.pictures.resampling import resampled

            return resampled(photo, self)
        return self.frame(photo), self.tensor(self.view(photo.picture))

    def view(self, picture: Image.Image) -> Image.Image:
        """Return the view that the network has of ``picture``: resized and cropped to the pixels of ``crop``, RGB.

        Raises:
            ImageError: the picture is so long and narrow that resizing its shorter side would make it enormous.
        """
        height, width = self.resized((picture.height, picture.width))
        method = Image.Resampling[self.interpolation.upper()]
        resized = picture if picture.size == (width, height) else picture.resize((width, height), method)
        (top, bottom), (left, right) = self.cropped((height, width))
        return resized.crop((left, top, right, bottom))

    def frame(self, photo: Photo) -> Photo:
        """Return the photo with the box that :meth:`view` takes of it."""
        sides = photo.picture.height, photo.picture.width
        size = self.resized(sides)
        down, across = (side / resized for side, resized in zip(sides, size, strict=True))
        (top, bottom), (left, right) = self.cropped(size)
        return replace(photo, box=(left * across, top * down, right * across, bottom * down))

    def resized(self, sides: tuple[int, ...], whole: int = 2) -> tuple[int, ...]:
        """Return the sides of a resized picture; a single number of ``resize`` or ``crop`` is about the last ``whole`` axes.

        Raises:
            ImageError: they would be enormous.
            InputError: ``resize`` is for another number of axes.
        """
        kept, within = sides[: len(sides) - whole], sides[len(sides) - whole :]
        if self.letterbox and self.crop is not None:
            factor = min(most / side for most, side in zip(_sides(self.crop, len(within))[-whole:], within, strict=True))
            return kept + tuple(max(1, round(side * factor)) for side in within)
        if self.resize is None:
            return sides
        if isinstance(self.resize, tuple):
            _check_axes("resize", self.resize, len(sides))
            return sides[: len(sides) - len(self.resize)] + self.resize
        short = min(within)
        size = tuple(self.resize if side == short else int(self.resize * side / short) for side in within)
        if math.prod(size) > (_MOST_PIXELS if len(within) < 3 else _MOST_CELLS):
            raise ImageError(
                f"a picture of {'×'.join(map(str, within[::-1]))} pixels is too narrow for a shorter side of {self.resize}; "
                "crop it first"
            )
        return kept + size

    def cropped(self, size: tuple[int, ...], whole: int = 2) -> tuple[tuple[int, int], ...]:
        """Return where the crop begins and ends along each axis of a resized picture of ``size``."""
        if isinstance(self.crop, tuple):
            _check_axes("crop", self.crop, len(size))
        crop = _sides(self.crop, whole)
        crop = size[: len(size) - len(crop)] + crop
        starts = [self._margin(side - part) for side, part in zip(size, crop, strict=True)]
        return tuple((start, start + part) for start, part in zip(starts, crop, strict=True))

    def _margin(self, rest: int) -> int:
        """Return where the crop begins in ``rest`` spare pixels; of an odd padding, both libraries put the odd pixel last."""
        return round(rest / 2) if self.offset == "round" and rest > 0 else int(rest / 2)

    def tensor(self, view: Image.Image) -> Tensor:
        """Convert a view to the network's input: ``(C, height, width)``, float32, normalised by ``mean`` and ``std``.

        Raises:
            ImageError: the network takes other channels than a photo has.
        """
        import torch

        if self.bands is None:
            view = view.convert("L") if self.channels == 1 else view
        pixels = torch.from_numpy(np.array(view, dtype=np.uint8)).reshape(view.height, view.width, -1).permute(2, 0, 1)
        if self.bands is not None:
            if max(self.bands) > 2:
                raise ImageError(f"a photo has the channels 0 to 2, red, green and blue; bands are {_listed(self.bands)}")
            pixels = pixels[list(self.bands)]
        if self.channels not in (1, len(pixels)):
            raise ImageError(
                f"a photo gives {len(pixels)} channels, and mean and std are for {self.channels}; give a file with all of "
                "them, such as a GeoTIFF or .npy"
            )
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return pixels.contiguous().to(torch.float32).div(255).sub_(mean).div_(std)

    @property
    def channels(self) -> int:
        """The number of channels that ``mean`` and ``std`` are for; 1 if they are for any number."""
        return max(len(self.mean), len(self.std))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that :meth:`as_dict` wrote, also after it was JSON."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**values)


def _sides(size: Size, count: int) -> tuple[int, ...]:
    """Return a side for each of ``count`` axes, or those given; none if there is no size."""
    return () if size is None else size if isinstance(size, tuple) else (size,) * count


def _is_range(values: tuple[float, ...]) -> bool:
    """Tell whether these are two finite values, the lower first."""
    return len(values) == 2 and bool(np.isfinite(values).all()) and values[0] < values[1]


def _check_axes(name: str, size: tuple[int, ...], axes: int) -> None:
    if len(size) > axes:
        raise InputError(f"{name} has {len(size)} numbers, {_listed(size)}, and this has {axes} axes; give one for each")


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(map(str, values)) or "none"


#: The preprocessing of a recording where nothing else is known: none, its values as they are.
AS_RECORDED = Preprocessing(None, None, mean=(0.0,), std=(1.0,))

#: The preprocessing of most networks trained on ImageNet: 224 × 224 pixels from the middle.
IMAGENET = Preprocessing()


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
