"""What a run asks of every item: the same for all engines, machines and parts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch

from relume.errors import InputError
from relume.explanation.belief import reference
from relume.explanation.calibration import Calibration
from relume.methods.base import METHODS, Method
from relume.methods.names import DEFAULT_METHODS
from relume.methods.wrapper import MethodLike, resolve_methods

if TYPE_CHECKING:
    from relume.explanation.request import Layers, Options
    from relume.maps import MapInfo
    from relume.targets import TargetLike

__all__ = ["RunRequest", "Store"]

#: The maps that are kept, of those as large as the input: none, their saliency, or signed. The small map of a layer always is.
Store: TypeAlias = Literal["facts", "saliency", "maps"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRequest:
    """Everything that a row depends on, except the network and the item.

    Attributes:
        methods: as for :func:`relume.explain`.
        target: as for :func:`relume.explain`, or a class by its name; for items that have no target of their own.
        layer: as for :func:`relume.explain`.
        store: what is kept of maps that have the size of the input.
        exact: True to keep these maps in float32; otherwise a value is a byte, see :mod:`relume.datasets.codes`.
        masks: True if items have masks that maps are measured against.
        options: further options of :func:`relume.explain`.

    Raises:
        InputError: no such store, or no such method.

    Example:
        >>> from relume.datasets import RunRequest
        >>> RunRequest(methods=["gradcam"], target="cat").as_dict()["methods"]
        ['gradcam']
    """

    methods: Iterable[MethodLike] = DEFAULT_METHODS
    target: str | TargetLike = None
    layer: Layers = None
    store: Store = "saliency"
    exact: bool = False
    masks: bool = False
    options: Options = field(default_factory=dict)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.store not in get_args(Store):
            raise InputError(f"store is {' or '.join(map(repr, get_args(Store)))}; got {self.store!r}")
        object.__setattr__(self, "methods", tuple(resolve_methods(self.methods)))

    @property
    def infos(self) -> dict[str, MapInfo]:
        """The description of each map by key."""
        return {info.key: info for method in resolve_methods(self.methods) for info in method.maps}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``, equal for requests that give the same rows."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; an object is a mapping with its ``class``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else _plain_object(value)


def _plain_object(value: object) -> Any:
    if isinstance(value, Method) and METHODS.get(value.key) == value:
        return value.key
    if isinstance(value, Calibration):
        return reference(value)
    plain: dict[str, Any] = {"class": getattr(value, "__qualname__", type(value).__qualname__)}
    if isinstance(value, torch.Generator | torch.Tensor):
        values = value.get_state() if isinstance(value, torch.Generator) else value.detach().cpu().float()
        return plain | {"sha256": hashlib.sha256(values.numpy().tobytes()).hexdigest()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain | {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return plain
