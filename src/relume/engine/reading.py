"""A reading: the choices that one forward pass depends on, beside the network and its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor, nn

from relume.engine.inputs import Output
from relume.targets.base import TargetLike

__all__ = ["LayerLike", "Reading", "Rectifiers", "Reshape"]

LayerLike: TypeAlias = "nn.Module | str"
Rectifiers: TypeAlias = Literal["all", "relu"]
Reshape: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """The choices that one forward pass depends on: see :meth:`relume.engine.trace.Trace.run`.

    Attributes:
        targets: what will be explained. The layers of units among them are captured, and a chosen layer matters to all.
        layers: the layers to capture, modules of the model or their dotted names; None to choose one.
        wrt: which of several inputs is explained, by position or name; the first floating-point tensor if None.
        output: which part of what the network returns is meant: a key, an index, or a callable; all of it if None.
        reshape: makes a map ``(N, channels, *spatial)`` of what a layer returns; found from its shape if None.
        rectifiers: ``"relu"`` applies rules to the ReLU family alone.

    Example:
        >>> Reading(layers=["layer4"], targets=[243]).rectifiers
        'all'
    """

    targets: Sequence[TargetLike] = ()
    layers: Sequence[LayerLike] | None = ()
    wrt: int | str | None = None
    output: Output = None
    reshape: Reshape | None = None
    rectifiers: Rectifiers = "all"
