"""The layers of a network that have weights, in the order of their use; and random weights for them, on a private copy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relume.auditing.subject import How
from relume.engine.replica import replicate
from relume.engine.trees import tree_leaves
from relume.engine.wrappers import unwrap
from relume.errors import ModelError

__all__ = ["own_copy", "randomise_layer", "restore", "weight_layers"]


def own_copy(model: nn.Module) -> nn.Module:
    """Make a replica of ``model`` in evaluation mode whose weights are its own too, to be written to."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        model = copy.deepcopy(model)  # a replica would hold the very same module
    replica = replicate(model)
    memo: dict[int, Any] = {}  # one that is in two places stays one
    for module in replica.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not isinstance(module, torch.jit.ScriptModule):
                # a new one, since what is written to an alias counts as a new version of the original
                setattr(module, name, copy.deepcopy(parameter, memo))
    return replica


@torch.no_grad()
def restore(network: nn.Module, model: nn.Module) -> None:
    """Give ``network``, an :func:`own_copy` of ``model``, the weights and buffers of ``model`` again."""
    original = unwrap(model)
    for ours, theirs in zip(_tensors(network), _tensors(original), strict=True):
        ours.copy_(theirs)


def _tensors(model: nn.Module) -> chain[Tensor]:
    return chain(model.parameters(), model.buffers())


# --- Which layers --------------------------------------------------------------------------------------------------------


class _Uses(TorchFunctionMode):
    """A watcher of operations that records when each of some tensors was last an argument."""

    def __init__(self, layer_of: Mapping[int, str]) -> None:
        super().__init__()
        self._layer_of, self.last = layer_of, dict[str, int]()
        self._time = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._time += 1
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # asking for a shape or a dtype is no use
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in self._layer_of:
                    self.last[self._layer_of[id(leaf)]] = self._time
        return result


def weight_layers(model: nn.Module, images: Tensor) -> list[str]:
    """List the names of all layers with weights that matter on ``images``, from the output down.

    A layer is a module that has parameters of its own: a convolution, a normalisation, the attention of a transformer, the
    module that holds its class token. Its place is when one of them was last an argument of an operation in a forward pass, so
    that neither names nor the order of definition are trusted; parameters that no operation used are no layer. Inside
    TorchScript operations cannot be watched: a network with such parts is taken in the order of its definition.

    Raises:
        ModelError: there is no such layer.
    """
    network = replicate(model)
    owners = {name: list(module.parameters(recurse=False)) for name, module in network.named_modules()}
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        last = {name: i for i, (name, own) in enumerate(owners.items()) if own}
    else:
        layer_of: dict[int, str] = {}
        for name, own in owners.items():
            for parameter in own:
                layer_of.setdefault(id(parameter), name)  # one that is shared belongs to the first
        with torch.no_grad(), _Uses(layer_of) as uses:
            network(images)
        last = uses.last
    if not last:
        raise ModelError(f"no operation of this {type(unwrap(model)).__name__} uses a weight; there is nothing to make random")
    return sorted(last, key=lambda name: last[name], reverse=True)


# --- Random --------------------------------------------------------------------------------------------------------------


def randomise_layer(network: nn.Module, name: str, generator: torch.Generator, how: How = "reset") -> None:
    """Make one layer's weights random in place: by its own ``reset_parameters``, or by shuffling each of its tensors.

    A layer without such a scheme, and every layer with ``how="shuffle"``, keeps its values and loses their places.
    """
    layer = dict(network.named_modules())[name]  # TorchScript has no get_submodule
    reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
    with torch.no_grad():
        if how == "reset" and callable(reset):
            devices = {parameter.device for parameter in layer.parameters() if parameter.is_cuda}
            own = {id(tensor) for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))}
            others = [(tensor, tensor.clone()) for tensor in _tensors(layer) if id(tensor) not in own]
            with torch.random.fork_rng(list(devices)):  # its scheme draws from the global generator
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                reset()
            for tensor, before in others:  # a scheme may reach into parts, which are layers of their own
                tensor.copy_(before)
        else:
            for parameter in layer.parameters(recurse=False):
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
