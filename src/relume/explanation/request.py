"""A request: everything that one explanation depends on, beside the network and its inputs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, ParamSpec, Self, TypeAlias, TypedDict, TypeVar, Unpack

from torch import nn

from relume.engine.inputs import Output
from relume.engine.reading import LayerLike, Reading, Rectifiers, Reshape
from relume.errors import InputError, LayerError, TargetError
from relume.explanation.calibration import Calibration
from relume.methods.gradients import Fuse
from relume.methods.wrapper import AnyMethod, MethodLike, Wrapper, resolve_methods
from relume.targets.activation import Activation, check_activation
from relume.targets.base import TargetLike
from relume.targets.conversion import as_target

__all__ = ["Layers", "Options", "ReadingOptions", "Request", "check_places", "with_options"]

Layers: TypeAlias = "LayerLike | Sequence[LayerLike] | None"

P = ParamSpec("P")
R = TypeVar("R")


class ReadingOptions(TypedDict, total=False):
    """The options of every function that runs a network; :func:`relume.explain` describes them."""

    wrt: int | str | None
    output: Output
    rectifiers: Rectifiers
    reshape: Reshape | None
    batch_size: int | None


class Options(ReadingOptions, total=False):
    """The options of every function that explains; :func:`relume.explain` describes them."""

    fuse: Fuse
    evidence: Literal["quick", "full"] | None
    activation: Activation
    labels: Sequence[str] | None
    calibration: Calibration | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Request(Reading):
    """Everything that one explanation depends on, beside the network and its inputs.

    Attributes, beside those of :class:`relume.engine.reading.Reading`:
        methods: the methods and wrappers to explain by.
        fuse: how several layers' heat maps become one: their ``mean``, ``max`` or ``product``.
        evidence: ``quick`` for the cheap checks of each map, ``full`` to compare each with the one for another class too, None
            for none.
        activation: how probabilities follow from the network's scores.
        labels: the class names by index.
        calibration: the calibration of the network, if there is one.
        batch_size: how many images run at once, at most; None for all of them.

    Example:
        >>> from relume.explanation import Request
        >>> request = Request.of([0, 1], ["gradient"], batch_size=8)
        >>> len(request.targets), request.methods[0].key, request.evidence
        (2, 'gradient', 'quick')
    """

    methods: Sequence[AnyMethod] = ()
    fuse: Fuse = "mean"
    evidence: Literal["quick", "full"] | None = "quick"
    activation: Activation = "auto"
    labels: Sequence[str] | None = None
    calibration: Calibration | None = None
    batch_size: int | None = None

    @classmethod
    def of(
        cls, targets: Sequence[TargetLike], methods: Iterable[MethodLike], layer: Layers = None, **options: Unpack[Options]
    ) -> Self:
        """Make a request of what a caller gave, and refuse what does not fit together.

        Raises:
            InputError: an option has no such value, or there is no such method.
            LayerError: the list of layers is empty.
            TargetError: a target has a place, and the copies of a wrapper show it elsewhere.
        """
        if not hasattr(targets, "__iter__"):
            raise InputError(f"targets are a list, such as [243, 281]; got {targets!r}")
        resolved = resolve_methods(methods)
        layers = _layers(layer) if any(method.needs_layer for method in resolved) else ()
        return cls(targets=[as_target(target) for target in targets], methods=resolved, layers=layers, **options)

    def __post_init__(self) -> None:
        _check_choice("rectifiers", self.rectifiers, ("all", "relu"))
        _check_choice("fuse", self.fuse, ("mean", "max", "product"))
        _check_choice("evidence", self.evidence, ("quick", "full", None))
        check_activation(self.activation)
        if isinstance(self.labels, str) or not all(isinstance(label, str) for label in self.labels or ()):
            raise InputError(f"labels are a list of class names; got {self.labels!r}")
        if self.batch_size is not None and (type(self.batch_size) is not int or self.batch_size < 1):
            raise InputError(
                f"batch_size is how many images run at once, one at least, or None for all; got {self.batch_size!r}"
            )
        check_places(self.targets, self.wrappers)

    @property
    def wrappers(self) -> list[Wrapper]:
        """The wrappers among the methods."""
        return [method for method in self.methods if isinstance(method, Wrapper)]


def _layers(layer: Layers) -> Sequence[LayerLike] | None:
    """List the layers that were given; None if they are to be chosen."""
    if layer is None or isinstance(layer, str | nn.Module) or not isinstance(layer, Sequence):
        return None if layer is None else [layer]
    if not layer:
        raise LayerError("no target layer is in an empty list; name at least one, or give None to choose")
    return layer


def check_places(targets: Sequence[TargetLike], wrappers: Sequence[Wrapper]) -> None:
    """Refuse targets that have a place, if a wrapper's copies show it elsewhere.

    Raises:
        TargetError: they do.
    """
    local = [type(target).__name__ for target in targets if as_target(target).is_local]
    moving = [type(wrapper).__name__ for wrapper in wrappers if wrapper.moves]
    if local and moving:
        raise TargetError(
            f"{moving[0]} shows things in other places, and {local[0]} asks about one; "
            "explain a class or a channel, or use Smooth"
        )


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {' or '.join(map(repr, choices))}; got {value!r}")


def with_options(options: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show the options in the signature of a function that takes them as ``**options``, each with its default.

    The function then refuses an option that there is not, as Python does.
    """
    defaults = {f.name: f.default for f in fields(Request) if f.default is not MISSING}
    names = [name for name in (*ReadingOptions.__annotations__, *Options.__annotations__) if name in options.__annotations__]
    keywords = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=options.__annotations__[name]
        )
        for name in dict.fromkeys(names)
    ]

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        known = {parameter.name for parameter in (*own, *keywords)}

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs.keys() - known:
                raise TypeError(f"{function.__qualname__}() got an unexpected keyword argument {name!r}")
            return function(*args, **kwargs)

        shown: Any = checked
        shown.__signature__ = signature.replace(parameters=[*own, *keywords])
        return checked

    return decorate
