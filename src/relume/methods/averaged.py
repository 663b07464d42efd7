"""Methods asked about several copies of the images: SmoothGrad with VarGrad, and test-time augmentation.

A :class:`Repeated` wraps a method and stands wherever a method does. It says which copies there are and what is made of the
mean and the variance of their maps; :func:`repeat` has them explained. What is explained, class, place or layer, was decided on
the images themselves and is the same for every copy.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby, islice
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from relume.engine.forward_pass import raised_by_network
from relume.engine.out_of_memory import out_of_memory
from relume.errors import InputError, TargetError
from relume.maps import upsample
from relume.methods.base import Method, distinct, resolve_method
from relume.targets.base import TargetLike
from relume.targets.conversion import as_target

__all__ = ["Augmented", "Copy", "Moments", "Repeated", "Smooth", "check_places", "repeat", "resolve"]

Maps: TypeAlias = dict[str, Tensor]
#: Each copy's maps for each target, of copies of one shape by methods.
Ask: TypeAlias = Callable[[Sequence[Tensor], Sequence[Method]], list[list[Maps]]]


def _as_it_is(values: Tensor, _: torch.Size) -> Tensor:
    return values


class Copy(NamedTuple):
    """A copy of the images, ``(N, C, *spatial)``, and what brings a map of it ``back`` to the shape of the first copy's."""

    images: Tensor
    back: Callable[[Tensor, torch.Size], Tensor] = _as_it_is


class Moments:
    """Mean and population variance of maps that come one after the other.

    Welford 1962, doi:10.1080/00401706.1962.10490022; in float32 at least.
    """

    def __init__(self) -> None:
        """Of no maps yet."""
        self.count, self.mean, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, copy: Copy, values: Tensor) -> None:
        """Take in the map of one copy."""
        values = copy.back(_wide(values), self.mean.shape if self.count else values.shape)
        self.count += 1
        change = values - self.mean
        self.mean = self.mean + change / self.count
        self._squares = self._squares + change * (values - self.mean)

    @property
    def variance(self) -> Tensor:
        """``1/n Σ (x - mean)²``."""
        return self._squares / self.count


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True)
class Repeated(ABC):
    """A method asked about copies of the images, each given to the network as the images are.

    A wrapper of yours is a frozen dataclass with :attr:`names`, :meth:`copies` and :meth:`reduce`. Wrappers of one class with
    equal fields share their copies and forward passes, whatever methods are in them.

    Attributes:
        method: the method inside: a key of :data:`relume.METHODS` or a :class:`relume.Method`.
        batch: how many images run at once, at most, but one copy of all of them at least. The maps do not depend on it, unless
            the network mixes the samples of a batch.

    Raises:
        InputError: there is no such method, or ``batch`` is not positive.
    """

    method: str | Method
    batch: int = field(default=8, kw_only=True)

    #: What the maps are called, before the key of the method inside.
    names: ClassVar[tuple[str, ...]]
    #: Whether a copy shows things in other places, so that a target with a place has no meaning in it.
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        resolve_method(self.method)
        if self.batch < 1:
            raise InputError(f"a batch holds one image at least; got batch={self.batch}")

    @property
    def inner(self) -> Method:
        """The method inside."""
        return resolve_method(self.method)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the maps."""
        return tuple(f"{name}_{self.inner.key}" for name in self.names)

    @property
    def needs_layer(self) -> bool:
        """Whether the method inside reads a target layer."""
        return self.inner.needs_layer

    @property
    def settings(self) -> Hashable:
        """What is the same for wrappers that can share their copies: all but the method."""
        return type(self), *(getattr(self, f.name) for f in fields(self) if f.name != "method")

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The caller's generators that :meth:`copies` draws from: each chunk of a batch begins with the same state of them."""
        return ()

    @abstractmethod
    def copies(self, images: Tensor) -> Iterator[Copy]:
        """The copies of ``images`` ``(N, C, *spatial)``, one after the other."""

    @abstractmethod
    def reduce(self, maps: Moments) -> Sequence[Tensor]:
        """What is made of the copies' maps: a map for each of :attr:`names`."""


@dataclass(frozen=True)
class Smooth(Repeated):
    """SmoothGrad around any method, with its variance, VarGrad: ``relume.Smooth("guided_backprop", 25)``.

    Smilkov et al. 2017, arXiv:1706.03825: ``1/n Σ M(x + ε)``, ``ε ~ N(0, σ²)``. The variance of the same maps is VarGrad,
    Adebayo et al. 2018, arXiv:1810.03307, here that of the population, ``1/n Σ (M(x + ε) - mean)²``: of one sample it is zero.
    Maps ``smooth_<method>``, signed as the method's, and ``vargrad_<method>``, not negative; both of the method's shape.

    Attributes, beside those of :class:`Repeated`:
        samples: how many noisy copies.
        noise: σ as a share of each image's range, its highest value less its lowest, over all channels. Too much of it hides
            from the network what is explained, which the frozen target does not show.
        generator: where noise comes from, each image of a batch getting the same, scaled to its range; None is a new one on
            the CPU, seeded 0, in each call.

    Raises:
        InputError: there is no such method, or a number is not positive.
    """

    samples: int = 25
    noise: float = 0.15
    generator: torch.Generator | None = None

    names = ("smooth", "vargrad")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise InputError(f"smoothing takes one sample at least; got samples={self.samples}")
        if not 0 < self.noise < float("inf"):
            raise InputError(f"noise is a share of the image's range above zero, such as 0.15; got noise={self.noise}")

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The caller's, if there is one."""
        return () if self.generator is None else (self.generator,)

    def copies(self, images: Tensor) -> Iterator[Copy]:
        """The images with noise, :attr:`samples` times."""
        generator = self.generator or torch.Generator().manual_seed(0)
        images, dtype = _wide(images), images.dtype
        low, high = images.reshape(len(images), -1).aminmax(dim=1)
        sigma = (self.noise * (high - low)).view(-1, *[1] * (images.ndim - 1))
        for _ in range(self.samples):
            epsilon = torch.randn(images.shape[1:], generator=generator, device=generator.device, dtype=images.dtype)
            yield Copy((images + sigma * epsilon.to(images.device)).to(dtype))

    def reduce(self, maps: Moments) -> Sequence[Tensor]:
        """Mean and variance."""
        return maps.mean, maps.variance


@dataclass(frozen=True)
class Augmented(Repeated):
    """Test-time augmentation of any method: the mean of its maps of the images, mirrored and resized, each brought back.

    ``relume.Augmented("gradcam", scales=(0.75, 1.25))`` gives the map ``augmented_gradcam``, of the method's shape. Maps and
    images are resized linearly, and values left as they are: a gradient per pixel is smaller where there are more pixels.

    Attributes, beside those of :class:`Repeated`:
        flip: whether each copy is explained mirrored too, along its last axis: left to right.
        scales: other sizes, as multiples of the images'; they are explained in their own in any case.

    Raises:
        InputError: there is no such method, a number is not positive, or nothing would be done.
    """

    flip: bool = True
    scales: Sequence[float] = ()

    names = ("augmented",)
    moves = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < scale < float("inf") for scale in self.scales):
            raise InputError(f"scales are multiples of the images' size, such as (0.75, 1.25); got {self.scales}")
        object.__setattr__(self, "scales", tuple(dict.fromkeys((1.0, *self.scales))))
        if not self.flip and self.scales == (1.0,):
            raise InputError("without flip and without another scale, augmentation is the plain method; give one of them")

    def copies(self, images: Tensor) -> Iterator[Copy]:
        """The images in each size, as they are and mirrored."""
        axes = images.ndim - 2
        if axes < 1:
            raise InputError(f"only images with spatial axes are mirrored or resized; these have shape {tuple(images.shape)}")
        for scale in self.scales:
            size = [max(1, round(side * scale)) for side in images.shape[2:]]
            resized = _resized(_wide(images), size).to(images.dtype)
            for mirrored in (False, True)[: 1 + self.flip]:
                back = functools.partial(_brought_back, axes=axes, mirrored=mirrored)
                yield Copy(resized.flip(-1) if mirrored else resized, back)

    def reduce(self, maps: Moments) -> Sequence[Tensor]:
        """The mean."""
        return (maps.mean,)


def _brought_back(values: Tensor, shape: torch.Size, *, axes: int, mirrored: bool) -> Tensor:
    return _resized(values.flip(-1) if mirrored else values, shape[-axes:])


def _resized(values: Tensor, size: Sequence[int]) -> Tensor:
    """``values`` with their last axes of ``size``, interpolated linearly."""
    before = values.shape[: -len(size)]
    if values.shape[len(before) :] == torch.Size(size):
        return values
    return upsample(values.flatten(0, len(before) - 1), size).reshape(*before, *size)


def resolve(methods: Iterable[str | Method | Repeated]) -> list[Method | Repeated]:
    """The methods and wrappers that ``methods`` names, each once.

    Raises:
        InputError: as :func:`relume.methods.resolve_methods`.
    """
    return distinct(methods, lambda method: method if isinstance(method, Repeated) else resolve_method(method))


def check_places(methods: Iterable[Method | Repeated], targets: Iterable[TargetLike]) -> None:
    """Whether every target means the same in the copies.

    Raises:
        TargetError: a target has a place, and the copies of a wrapper show it elsewhere.
    """
    placed = [type(target).__name__ for target in targets if as_target(target).is_local]
    moving = [type(method).__name__ for method in methods if isinstance(method, Repeated) and method.moves]
    if placed and moving:
        raise TargetError(
            f"{moving[0]} shows things in other places, and {placed[0]} asks about one; "
            "explain a class or a channel, or use Smooth"
        )


def repeat(wrappers: Sequence[Repeated], images: Tensor, ask: Ask, *, stackable: bool, limit: int | None = None) -> list[Maps]:
    """The maps of ``wrappers`` for each target: ``ask`` explains copies, several stacked into one batch if ``stackable``.

    No more than ``limit`` images run at once then, whatever the wrappers say.

    Raises:
        InputError: the network does not take copies of their size.
    """
    groups: dict[Hashable, list[Repeated]] = defaultdict(list)
    for wrapper in wrappers:
        groups[wrapper.settings].append(wrapper)
    found: dict[int, Maps] = defaultdict(dict)
    for group in groups.values():
        at_once = min(group[0].batch, limit or group[0].batch)
        most = max(1, at_once // len(images)) if stackable else 1
        for i, moments in _moments(group, images, ask, most).items():
            for wrapper in group:
                found[i].update(zip(wrapper.keys, wrapper.reduce(moments[wrapper.inner.key]), strict=True))
    return list(found.values())


def _moments(group: Sequence[Repeated], images: Tensor, ask: Ask, most: int) -> dict[int, dict[str, Moments]]:
    """What the copies' maps come to, by target and the key of the method inside; ``most`` copies run at once."""
    methods = list(dict.fromkeys(wrapper.inner for wrapper in group))
    found: dict[int, dict[str, Moments]] = defaultdict(lambda: defaultdict(Moments))
    for copies in _batches(group[0].copies(images), most):
        for copy, answer in zip(copies, _answers(copies, methods, images, ask), strict=True):
            for i, maps in enumerate(answer):
                for key, values in maps.items():
                    found[i][key].add(copy, values)
    return found


def _batches(copies: Iterator[Copy], most: int) -> Iterator[list[Copy]]:
    """Copies of one shape together, ``most`` at a time."""
    for _, alike in groupby(copies, lambda copy: copy.images.shape):
        while batch := list(islice(alike, most)):
            yield batch


def _answers(copies: Sequence[Copy], methods: Sequence[Method], images: Tensor, ask: Ask) -> list[list[Maps]]:
    """Each copy's maps for each target; what a network does not take stacked, such as an exported program, one by one."""
    try:
        return ask([copy.images for copy in copies], methods)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        size = copies[0].images.shape
        if not raised_by_network(error) or out_of_memory(error) or (len(copies) == 1 and size == images.shape):
            raise
        if len(copies) == 1:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"the network takes images of shape {tuple(images.shape)} and fails on a copy of {tuple(size)} ({said}); "
                "ask for no other size"
            ) from error
    return [answer for copy in copies for answer in _answers([copy], methods, images, ask)]
