"""Wrappers, which ask a method about other images or other targets, and the names under which methods are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from relume.errors import InputError
from relume.maps import MapInfo
from relume.methods.base import Method, resolve_method
from relume.targets.base import Target

__all__ = ["AnyMethod", "Copy", "MethodLike", "Moments", "Wrapper", "resolve_methods", "rewinding", "widened"]


def widened(values: Tensor) -> Tensor:
    """Return ``values`` in float32 at least: sums of many maps need it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _unchanged(values: Tensor, _: torch.Size) -> Tensor:
    return values


class Copy(NamedTuple):
    """A copy of the images, ``(N, C, *spatial)``, and a function that brings its map back to the shape of the first copy's.

    Example:
        A mirrored copy, and its map mirrored back:

        >>> import torch
        >>> from relume.methods import Copy
        >>> images = torch.rand(1, 3, 8, 8)
        >>> mirrored = Copy(images.flip(-1), lambda values, shape: values.flip(-1))
    """

    images: Tensor
    back: Callable[[Tensor, torch.Size], Tensor] = _unchanged


class Moments:
    """The mean and the population variance of maps that come one after the other, in float32 at least.

    Welford 1962, doi:10.1080/00401706.1962.10490022.

    Example:
        >>> import torch
        >>> from relume.methods import Copy, Moments
        >>> moments = Moments()
        >>> for value in (1.0, 3.0):
        ...     moments.add(Copy(torch.zeros(1, 1)), torch.full((1, 1), value))
        >>> float(moments.mean), float(moments.variance)
        (2.0, 1.0)
    """

    def __init__(self) -> None:
        """Begin with no map."""
        self.count, self.mean, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, copy: Copy, values: Tensor) -> None:
        """Add the map of one copy."""
        values = copy.back(widened(values), self.mean.shape if self.count else values.shape)
        self.count += 1
        change = values - self.mean
        self.mean = self.mean + change / self.count
        self._squares = self._squares + change * (values - self.mean)

    @property
    def variance(self) -> Tensor:
        """``1/n Σ (x - mean)²``."""
        return self._squares / self.count


@dataclass(frozen=True)
class Wrapper(ABC):
    """A method asked about copies of the images, about several targets, or both; it stands wherever a method does.

    A wrapper of yours is a frozen dataclass with :attr:`maps` and :meth:`reduce`, and with :meth:`copies`, :meth:`targets` or
    both. Wrappers of one class with equal fields share their forward passes, whatever methods are in them. The target was
    decided on the images themselves and is the same for every copy.

    Attributes:
        method: the method inside: a key of :data:`relume.METHODS` or a :class:`relume.Method`.
        batch_size: how many images run at once, at most, but one copy of all of them at least. The maps do not depend on it,
            unless the network mixes the samples of a batch.

    Raises:
        InputError: there is no such method, or ``batch_size`` is not positive.

    Example:
        The gradient's mean over darker copies:

        >>> from dataclasses import dataclass
        >>> import relume, torch
        >>> from relume.methods import Copy, Wrapper
        >>> @dataclass(frozen=True)
        ... class Dimmed(Wrapper):
        ...     @property
        ...     def maps(self):
        ...         return (self.derived("dimmed", "{} of darker copies"),)
        ...     def copies(self, images):
        ...         for strength in (1.0, 0.8, 0.6):
        ...             yield Copy(images * strength)
        ...     def reduce(self, moments):
        ...         return [moments[0].mean]
        >>> opened = relume.open_model("demo")
        >>> list(relume.explain(opened.model, torch.rand(1, 3, 96, 96), methods=[Dimmed("gradient")]).maps)
        ['dimmed_gradient']
    """

    method: str | Method
    batch_size: int = field(default=8, kw_only=True)

    #: True if a copy shows things in other places, so that a target with a place has no meaning in it.
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        resolve_method(self.method)
        if self.batch_size < 1:
            raise InputError(f"one image runs at once at least; got batch_size={self.batch_size}")

    @property
    def inner(self) -> Method:
        """The method inside."""
        return resolve_method(self.method)

    @property
    @abstractmethod
    def maps(self) -> tuple[MapInfo, ...]:
        """The description of each map, in the order of :meth:`reduce`; see :meth:`derived`."""

    def derived(self, name: str, title: str, *, signed: bool | None = None, note: str = "") -> MapInfo:
        """Describe a map of the same place as that of the method inside.

        Args:
            name: what comes before the key of the method inside, joined by ``_``.
            title: a format in which ``{}`` stands for the title of the method inside.
            signed: True if the map can be negative; as that of the method inside if None.
            note: how the map is made, for the caption of a figure.
        """
        (inner,) = self.inner.maps
        signed = inner.signed if signed is None else signed
        return replace(inner, key=f"{name}_{inner.key}", title=title.format(inner.title), signed=signed, note=note)

    @property
    def needs_layer(self) -> bool:
        """True if the method inside reads a target layer."""
        return self.inner.needs_layer

    @property
    def settings(self) -> Hashable:
        """The settings that wrappers share their forward passes by: all but the method."""
        return type(self), *(getattr(self, f.name) for f in fields(self) if f.name != "method")

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The caller's generators that :meth:`copies` draws from: each part of a batch begins with the same state of them."""
        return ()

    def copies(self, images: Tensor) -> Iterator[Copy]:
        """Yield the copies of ``images`` ``(N, C, *spatial)`` to explain.

        Without a method of its own for it, a wrapper explains the images themselves, and no new forward pass is needed.
        """
        yield Copy(images)

    def targets(self, target: Target, outputs: Any) -> Sequence[Target]:  # noqa: ARG002 - those of a wrapper may depend on it
        """Return the targets to explain in place of ``target``, which is decided, given the network's ``outputs``."""
        return [target]

    @abstractmethod
    def reduce(self, moments: Sequence[Moments]) -> Sequence[Tensor]:
        """Make the maps, one for each of :attr:`maps`, of the moments of the copies' maps, one for each target."""


AnyMethod: TypeAlias = "Method | Wrapper"
MethodLike: TypeAlias = "str | Method | Wrapper"


def resolve_methods(methods: Iterable[MethodLike]) -> list[AnyMethod]:
    """Return the methods and wrappers that ``methods`` names, each once.

    Raises:
        InputError: an unknown key, something that is no method, two methods that make a map of one key, or none at all.

    Example:
        >>> from relume import Smooth
        >>> from relume.methods import resolve_methods
        >>> [info.key for method in resolve_methods(["gradient", Smooth("gradcam")]) for info in method.maps]
        ['gradient', 'smooth_gradcam', 'vargrad_gradcam']
    """
    given = [] if isinstance(methods, str) else list(methods)
    if not given:
        raise InputError(f"methods are a list of keys, such as ['guided_backprop']; got {methods!r}")
    by_key: dict[str, AnyMethod] = {}
    for method in given:
        resolved = method if isinstance(method, Wrapper) else resolve_method(method)
        for info in resolved.maps:
            if by_key.setdefault(info.key, resolved) != resolved:
                raise InputError(f"two different methods are called {info.key!r}; give one another key, or ask in two calls")
    return list(dict.fromkeys(by_key.values()))


def rewinding(methods: Iterable[MethodLike]) -> Callable[[], None]:
    """Return a function that gives the generators of the wrappers among ``methods`` the states that they have now.

    Example:
        >>> import torch
        >>> from relume import Smooth
        >>> from relume.methods.wrapper import rewinding
        >>> generator = torch.Generator().manual_seed(0)
        >>> rewind = rewinding([Smooth("gradient", generator=generator)])
        >>> first = torch.rand(1, generator=generator)
        >>> rewind()
        >>> bool(torch.rand(1, generator=generator) == first)
        True
    """
    generators = dict.fromkeys(g for method in methods if isinstance(method, Wrapper) for g in method.generators)
    states = [(generator, generator.get_state()) for generator in generators]

    def rewind() -> None:
        for generator, state in states:
            generator.set_state(state)

    return rewind
