"""The input of a layer as the output of another: a network gets one more module in front of the layer, which can be read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from relume.engine.layers import layer_name
from relume.engine.preparation import preparation_of
from relume.engine.reading import LayerLike
from relume.engine.tensor_state import version
from relume.engine.wrappers import modules_of, unwrap
from relume.errors import LayerError

__all__ = ["with_layer_input"]


def with_layer_input(model: nn.Module, layer: LayerLike) -> tuple[nn.Module, str]:
    """Return a network that computes what ``model`` does, and the name of the layer in it that returns what ``layer`` is given.

    ``model`` is a part of it and is not touched; the engine runs a replica of both.

    Raises:
        LayerError: there is no such layer, it is no module of Python, or the network is prepared; while the network runs, if
            the layer is given no tensor.
    """
    if preparation_of(model) is not None:
        raise LayerError("a layer's input cannot be read in a prepared network; give the network that it was prepared from")
    inner = unwrap(model)
    name = layer_name(inner, layer)
    if isinstance(inner, torch.jit.ScriptModule) or name not in modules_of(inner).values():
        raise LayerError(f"the input of {name!r} cannot be read, since no module of Python runs there; attribute to its output")
    network = _WithLayerInput(inner, name)
    return network, network.added


class _WithLayerInput(nn.Module):
    """A network with one more module, whose output is what one of its layers is given."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.training = False  # of this module alone: the caller's network keeps its modes
        self.network, self.name = network, name
        self.added = f"input of {name.replace('.', '/')}"  # as messages call it
        self.add_module(self.added, _Copies().eval())

    def forward(self, *args: Any) -> Any:
        """Run the network; this is a replica, so that hooks on its modules are none of the caller's."""
        held: list[tuple[Tensor, Tensor, int]] = []

        def before(_layer: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor, ...]:
            if not given or not all(isinstance(value, Tensor) for value in given):
                kinds = ", ".join(type(value).__name__ for value in given) or "nothing by position"
                raise LayerError(f"layer {self.name!r} is given {kinds}, and must be given tensors; attribute to its output")
            copies: tuple[Tensor, ...] = self.get_submodule(self.added)(*given)
            held.extend((original, copy, version(copy)) for original, copy in zip(given, copies, strict=True))
            return copies

        def after(*_: Any) -> None:
            for original, copy, was in held:
                if version(copy) != was:  # the layer works in place, and others may read what it wrote
                    original.copy_(copy)
            held.clear()

        layer = self.network.get_submodule(self.name)
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)
        return self.network(*args)


class _Copies(nn.Module):
    """Copies of tensors, so that their gradient is not that of other readers of the tensors."""

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Copy the tensors."""
        return tuple(tensor.clone() for tensor in tensors)
