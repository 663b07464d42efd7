"""Layers: the modules of a network by name, and their outputs as Grad-CAM reads them."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from relume.engine.preparation import layer_alias
from relume.engine.reading import LayerLike, Reshape
from relume.engine.tensor_state import is_view, version
from relume.engine.wrappers import modules_of, named_places, without_wrappers
from relume.errors import LayerError

__all__ = ["Layer", "describe", "layer_name", "node_name"]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A captured layer.

    Attributes:
        name: its dotted name.
        output: what it returned, as it was.
        to_map: makes a map of the output, or of its gradient.
        version: the version of the output when it was captured.
        why: why it was chosen, in words; empty where it was named.
        others: the tensors that it returned after this one, with their versions when they were captured.
    """

    name: str
    output: Tensor
    to_map: Reshape
    version: int = 0
    why: str = ""
    others: tuple[tuple[Tensor, int], ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor that it returned."""
        return self.output, *(tensor for tensor, _ in self.others)

    def map(self, values: Tensor) -> Tensor:
        """Arrange ``values`` of the output's shape as ``(N, channels, *spatial)``.

        Raises:
            LayerError: the caller's own ``reshape`` gave something else.
        """
        result: Any = self.to_map(values)
        if not isinstance(result, Tensor) or result.ndim < 3 or len(result) != len(values):
            raise LayerError(
                f"reshape made {describe(result)} of layer {self.name!r}, of shape {tuple(values.shape)}; "
                "it is to return (N, channels, *spatial)"
            )
        return result

    def untouched(self) -> Self:
        """Return itself, whose output is still what the layer returned.

        Raises:
            LayerError: it was overwritten.
        """
        if is_view(self.output) and version(self.output) != self.version:
            raise LayerError(
                f"layer {self.name!r} returned a view, which was overwritten in place later on, so that its output is lost; "
                "name another"
            )
        return self


def describe(output: Any) -> str:
    """Describe what a layer returned."""
    return f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"


def layer_name(model: nn.Module, layer: LayerLike) -> str:
    """Find the dotted name of ``layer``, a module of ``model`` or a name.

    Raises:
        LayerError: no such module in the model.
    """
    layer = layer_alias(model, layer)
    if isinstance(layer, str) and isinstance(model, torch.fx.GraphModule) and layer in _nodes(model):
        return layer
    names = {module: name for module, name in modules_of(model).items() if name}
    if isinstance(layer, nn.Module):
        if layer in names:
            return names[layer]
        raise LayerError(f"the layer {type(layer).__name__} is not a module inside this model; {_suggestion(names.values())}")
    if not isinstance(layer, str):
        raise LayerError(f"a layer is a module of the model, its dotted name or None; got {layer!r}")
    # a compiled part runs as what it was compiled from, in its place; torch.compile calls it otherwise
    wanted = without_wrappers(layer)
    for name in (layer, wanted):
        if name and name in names.values():
            return name
    # under every name that it has: a module in two places runs under the first
    places = dict(named_places(model))
    for name in (layer, wanted):
        if name in places and places[name] in names:
            return names[places[name]]
    raise LayerError(f"the model has no layer {layer!r}; {_suggestion(names.values(), wanted)}")


def node_name(name: str, modules: Collection[str]) -> str:
    """Name an operation of a graph module whose ``modules`` are named; one called as a module is has ``(node)`` after it."""
    return name if name not in modules else f"{name} (node)"


def _nodes(model: torch.fx.GraphModule) -> set[str]:
    modules = {name for name, _ in model.named_modules()}
    return {node_name(n.name, modules) for n in model.graph.nodes if n.op in ("call_function", "call_method")}


def _suggestion(names: Collection[str], wanted: str = "") -> str:
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    candidates = close or [name for name in names if "." not in name]
    return "candidates: " + (", ".join(candidates[-8:]) or "none, the model has no submodules")
