"""Wrappers that average a method's maps over copies of the images: SmoothGrad with VarGrad, and test-time augmentation."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.errors import InputError
from relume.maps import MapInfo, upsample
from relume.methods.wrapper import Copy, Moments, Wrapper, widened
from relume.targets.base import is_index

__all__ = ["Augmented", "Smooth"]


@dataclass(frozen=True)
class Smooth(Wrapper):
    """SmoothGrad around any method, with its variance, VarGrad.

    Smilkov et al. 2017, arXiv:1706.03825: ``1/n Σ M(x + ε)``, ``ε ~ N(0, σ²)``. The variance of the same maps is VarGrad,
    Adebayo et al. 2018, arXiv:1810.03307, here that of the population, ``1/n Σ (M(x + ε) - mean)²``: of one sample it is zero.
    Maps ``smooth_<method>``, signed as the method's, and ``vargrad_<method>``, not negative; both of the method's shape.

    Attributes, beside those of :class:`relume.methods.Wrapper`:
        samples: how many noisy copies.
        noise: σ as a share of each image's range, its highest value less its lowest, over all channels. Too much of it hides
            from the network what is explained, which the frozen target does not show.
        generator: the source of the noise, each image of a batch getting the same, scaled to its range; None for a new one on
            the CPU, seeded 0, in each call.

    Raises:
        InputError: there is no such method, or a number is not positive.

    Example:
        >>> import relume, torch
        >>> opened = relume.open_model("demo")
        >>> e = relume.explain(opened.model, torch.rand(1, 3, 96, 96), methods=[relume.Smooth("gradient", samples=3)])
        >>> list(e.maps)
        ['smooth_gradient', 'vargrad_gradient']
    """

    samples: int = 25
    noise: float = 0.15
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_index(self.samples) or self.samples < 1:
            raise InputError(f"smoothing takes one sample at least; got samples={self.samples}")
        if not 0 < self.noise < float("inf"):
            raise InputError(f"noise is a share of the image's range above zero, such as 0.15; got noise={self.noise}")

    @property
    def maps(self) -> tuple[MapInfo, ...]:
        """The descriptions of the mean and of the variance."""
        note = f"{self.samples} noisy copies, noise {self.noise:g}"
        variance = self.derived("vargrad", "VarGrad, {}", signed=False, note=note)
        return self.derived("smooth", "SmoothGrad, {}", note=note), variance

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The caller's, if there is one."""
        return () if self.generator is None else (self.generator,)

    def copies(self, images: Tensor) -> Iterator[Copy]:
        """Yield the images with noise, :attr:`samples` times."""
        generator = self.generator or torch.Generator().manual_seed(0)
        images, dtype = widened(images), images.dtype
        low, high = images.reshape(len(images), -1).aminmax(dim=1)
        sigma = (self.noise * (high - low)).view(-1, *[1] * (images.ndim - 1))
        for _ in range(self.samples):
            epsilon = torch.randn(images.shape[1:], generator=generator, device=generator.device, dtype=images.dtype)
            yield Copy((images + sigma * epsilon.to(images.device)).to(dtype))

    def reduce(self, moments: Sequence[Moments]) -> Sequence[Tensor]:
        """Return the mean and the variance."""
        return moments[0].mean, moments[0].variance


@dataclass(frozen=True)
class Augmented(Wrapper):
    """Test-time augmentation of any method: the mean of its maps of the images, mirrored and resized, each brought back.

    The map ``augmented_<method>`` has the method's shape. Maps and images are resized linearly, and values left as they are: a
    gradient per pixel is smaller where there are more pixels.

    Attributes, beside those of :class:`relume.methods.Wrapper`:
        flip: if True, each copy is explained mirrored too, along its last axis: left to right.
        scales: other sizes, as multiples of the images'; they are explained in their own in any case.

    Raises:
        InputError: there is no such method, a number is not positive, or nothing would be done.

    Example:
        >>> import relume, torch
        >>> opened = relume.open_model("demo")
        >>> augmented = relume.Augmented("gradcam", scales=(0.75, 1.25))
        >>> list(relume.explain(opened.model, torch.rand(1, 3, 96, 96), methods=[augmented]).maps)
        ['augmented_gradcam']
    """

    flip: bool = True
    scales: Sequence[float] = ()

    moves = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < scale < float("inf") for scale in self.scales):
            raise InputError(f"scales are multiples of the images' size, such as (0.75, 1.25); got {self.scales}")
        object.__setattr__(self, "scales", tuple(dict.fromkeys((1.0, *self.scales))))
        if not self.flip and self.scales == (1.0,):
            raise InputError("without flip and without another scale, augmentation is the plain method; give one of them")

    @property
    def maps(self) -> tuple[MapInfo, ...]:
        """The description of the mean."""
        return (self.derived("augmented", "augmented, {}"),)

    def copies(self, images: Tensor) -> Iterator[Copy]:
        """Yield the images in each size, as they are and mirrored."""
        axes = images.ndim - 2
        if axes < 1:
            raise InputError(f"only images with spatial axes are mirrored or resized; these have shape {tuple(images.shape)}")
        for scale in self.scales:
            size = [max(1, round(side * scale)) for side in images.shape[2:]]
            resized = _resized(widened(images), size).to(images.dtype)
            for mirrored in (False, True)[: 1 + self.flip]:
                back = functools.partial(_brought_back, axes=axes, mirrored=mirrored)
                yield Copy(resized.flip(-1) if mirrored else resized, back)

    def reduce(self, moments: Sequence[Moments]) -> Sequence[Tensor]:
        """Return the mean."""
        return (moments[0].mean,)


def _brought_back(values: Tensor, shape: torch.Size, *, axes: int, mirrored: bool) -> Tensor:
    return _resized(values.flip(-1) if mirrored else values, shape[-axes:])


def _resized(values: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate ``values`` linearly to have last axes of ``size``."""
    before = values.shape[: -len(size)]
    if values.shape[len(before) :] == torch.Size(size):
        return values
    return upsample(values.flatten(0, len(before) - 1), size).reshape(*before, *size)
