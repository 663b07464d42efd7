"""Find the layer that Grad-CAM reads, and capture its output while a replica runs.

Layers are modules, rectifiers are graph nodes, and this file is where the two meet: a :class:`Probe` hooks the modules of a
private replica and keeps the output of the layer asked for, or of the last layer with spatial axes before pooling.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relume.errors import LayerError

__all__ = ["Layer", "Probe", "layer_name"]


def _copy(output: Tensor) -> Tensor:
    """A clone that copies memory only when one of the two is written to, where torch can make one."""
    try:
        return torch._lazy_clone(output)
    except (AttributeError, RuntimeError):  # a private name of torch, and not for memory that is not torch's own
        return output.clone()


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A captured layer: its dotted ``name`` and its ``output``, ``(N, channels, *spatial)``."""

    name: str
    output: Tensor


def layer_name(model: nn.Module, layer: nn.Module | str) -> str:
    """The dotted name of ``layer``, a module of ``model`` or a name.

    Raises:
        LayerError: no such module in the model.
    """
    # a compiled part runs as what it was compiled from, in its place
    names: dict[nn.Module, str] = {module: name.replace("._orig_mod", "") for name, module in model.named_modules() if name}
    if isinstance(layer, nn.Module):
        if layer in names:
            return names[layer]
        raise LayerError(f"the layer {type(layer).__name__} is not a module inside this model; {_suggest(names.values())}")
    if not isinstance(layer, str):
        raise LayerError(f"a layer is a module of the model, its dotted name or None; got {layer!r}")
    wanted = layer.replace("_orig_mod.", "")
    try:
        return names[model.get_submodule(wanted)]
    except (AttributeError, KeyError):
        raise LayerError(f"the model has no layer {layer!r}; {_suggest(names.values(), wanted)}") from None


def _suggest(names: Collection[str], wanted: str = "") -> str:
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    offered = close or [name for name in names if "." not in name]
    return "candidates: " + (", ".join(offered[-8:]) or "none, the model has no submodules")


class Probe:
    """Watches a replica's modules run and keeps one layer's output.

    The output kept is the layer's own, also when a later operation overwrites it in place: what goes on downstream is a
    clone, made lazily, so that memory is copied only where something does write into it.
    """

    def __init__(self, replica: nn.Module, name: str | None, ndim: int) -> None:
        """Watch for the layer ``name``, or choose one (None); ``ndim`` is the number of axes of the input."""
        self._wanted, self._ndim = name, ndim
        self._runs: Counter[str] = Counter()
        self._spatial: list[str] = []
        self._kept: Layer | None = None
        self._trouble = ""
        for module_name, module in replica.named_modules():
            # hooks on the inside of TorchScript register without error and never fire
            if module_name and not isinstance(module, torch.jit.ScriptModule):
                module.register_forward_hook(self._hook(module_name))

    def _hook(self, name: str) -> Any:
        def watch(module: nn.Module, args: Any, output: Any) -> Any:
            self._runs[name] += 1
            # a layer that hands its input on must not be confused with its input, which others may read, or overwrite;
            # one that overwrote its input in place is what they read
            passed_on = any(output is arg for arg in args) and not getattr(module, "inplace", False)
            if self._wanted is None:
                return self._consider(name, output, passed_on=passed_on)
            if self._is_map(output):
                self._spatial.append(name)
            return self._keep(name, output, passed_on=passed_on) if name == self._wanted else None

        return watch

    def _is_map(self, output: Any) -> bool:
        return (
            isinstance(output, Tensor)
            and output.requires_grad
            and output.ndim == self._ndim >= 3
            and math.prod(output.shape[2:]) > 1
        )

    def _keep(self, name: str, output: Any, *, passed_on: bool) -> Tensor | None:
        if not self._is_map(output):
            self._trouble = f"returned {_describe(output)}, not a map of shape (N, channels, *spatial)"
            return None
        self._kept = Layer(name, _copy(output) if passed_on else output)
        return _copy(self._kept.output)

    def _consider(self, name: str, output: Any, *, passed_on: bool) -> Tensor | None:
        """Keep the output if it is a map, not yet pooled, of a layer that runs once."""
        if self._kept is not None and self._kept.name == name:
            self._kept = None  # runs again: its name would not tell which run is meant
        if self._is_map(output):
            if self._runs[name] == 1 and not _is_pooled(output):
                self._trouble = ""
                return self._keep(name, output, passed_on=passed_on)
        elif isinstance(output, Tensor) and output.ndim == 3 < self._ndim and output.shape[1] > 1:
            self._trouble = f"is followed by {name!r}, which works on tokens of shape {tuple(output.shape)}"
        return None

    def layer(self) -> Layer:
        """The layer kept, handed over.

        Raises:
            LayerError: it did not run, ran more than once, or has no map; the message names candidates.
        """
        kept, self._kept = self._kept, None  # a replica in a reference cycle must not hold the graph until it is collected
        name = self._wanted
        if name is None:
            if kept is None:
                raise LayerError("no layer with spatial axes ran once before pooling; name a target layer that has them")
            if self._trouble:
                raise LayerError(
                    f"no target layer can be chosen: the last map, {kept.name!r}, {self._trouble}; name the target layer"
                )
            return kept
        others = ", ".join(list(dict.fromkeys(n for n in self._spatial if self._runs[n] == 1))[-8:]) or "none"
        if self._runs[name] != 1:
            runs = f"ran {self._runs[name]} times" if self._runs[name] else "did not run"
            raise LayerError(f"layer {name!r} {runs} in this forward pass, and must run once; candidates: {others}")
        if kept is None:
            raise LayerError(f"layer {name!r} {self._trouble}; candidates: {others}")
        return kept


def _is_pooled(output: Tensor) -> bool:
    made_by = "" if output.grad_fn is None else output.grad_fn.name()
    return "Pool" in made_by or made_by.startswith("Mean")


def _describe(output: Any) -> str:
    return f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
