"""What a run asks of every item: the same for all engines, machines and parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from relume.errors import InputError
from relume.methods.names import DEFAULT_METHODS
from relume.methods.wrapper import MethodLike, resolve_methods

if TYPE_CHECKING:
    from relume.explanation.request import Layers, Options
    from relume.maps import MapInfo
    from relume.targets import TargetLike

__all__ = ["RunRequest", "Store"]

#: What is kept of maps beside the facts: nothing, their saliency, or the signed maps. A layer's map is always kept.
Store: TypeAlias = Literal["facts", "saliency", "maps"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRequest:
    """Everything that a row depends on beside the network and the item.

    Attributes:
        methods: as for :func:`relume.explain`.
        target: as for :func:`relume.explain`, or a class by its name; the target of an item stands before it.
        layer: as for :func:`relume.explain`.
        store: what is kept of maps that have the size of the input.
        exact: True to keep them in float32 instead of codes of 8 bits.
        masks: True if items have masks that maps are measured against.
        options: further options of :func:`relume.explain`.
        shapes: the shape of each map that is kept, where all images have one: :func:`relume.datasets.rows.with_shapes`.

    Raises:
        InputError: no such store, or no such method.
    """

    methods: Iterable[MethodLike] = DEFAULT_METHODS
    target: str | TargetLike = None
    layer: Layers = None
    store: Store = "saliency"
    exact: bool = False
    masks: bool = False
    options: Options = field(default_factory=lambda: {})
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.store not in get_args(Store):
            raise InputError(f"store is {', '.join(map(repr, get_args(Store)))}; got {self.store!r}")
        object.__setattr__(self, "methods", tuple(resolve_methods(self.methods)))

    @property
    def infos(self) -> dict[str, MapInfo]:
        """The description of each map by key."""
        return {info.key: info for method in resolve_methods(self.methods) for info in method.maps}

    def with_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> RunRequest:
        """Return the same request with the shapes of the maps that are kept."""
        return replace(self, shapes=shapes)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``, equal for equal requests."""
        raise NotImplementedError
