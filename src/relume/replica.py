"""A private replica of a network: the same weights, in evaluation mode, and nothing that reaches back into the original.

relume promises that a model is never changed, not even for the time of a call and not in the eyes of another thread. Yet
a network in training mode is to run as in evaluation mode, and a layer's output can only be had by a hook on its module. So
each call runs a replica, new module objects over the same storage. In it

* parameters are aliases that need no gradient, so no weight gradient exists to be computed;
* buffers are copies, so a forward pass that updates them leaves the original's alone;
* every ``training`` flag is false, set directly: a user's own ``eval`` may merge weights in place;
* backward hooks are left out: they belong to training and would alter or observe a gradient that is not theirs.

Attributes that refer to the modules (lists of layers, bound methods, partials) refer to their replicas.
"""

from __future__ import annotations

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from relume.errors import ModelError

__all__ = ["replicate", "unwrap"]


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``, which share its weights."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := model.__dict__.get("_modules", {}).get("_orig_mod"), nn.Module):
            model = inner
        else:
            return model


def replicate(model: nn.Module) -> nn.Module:
    """A replica of ``model`` in evaluation mode that shares its weights; modules are named as in ``unwrap(model)``.

    Raises:
        ModelError: the model has lazy parameters that no forward pass has given a shape.
    """
    memo: dict[int, Any] = {}
    tree = list(_tree(model))
    for module in tree:
        memo[id(module)] = _blank(module)
        if not isinstance(module, torch.jit.ScriptModule):
            memo.update((id(p), _alias(p)) for p in module._parameters.values() if p is not None)
            memo.update((id(b), b.detach().clone()) for b in module._buffers.values() if b is not None)
    for module in tree:
        memo[id(module)] = memo[id(unwrap(module))]
    for module in tree:
        if unwrap(module) is module and not isinstance(module, torch.jit.ScriptModule):
            _fill(memo[id(module)], module, memo)
    replica: nn.Module = memo[id(model)]
    return replica


def _tree(module: nn.Module, seen: set[nn.Module] | None = None) -> Iterator[nn.Module]:
    """The modules of the tree, each once; TorchScript's are taken whole."""
    seen = set() if seen is None else seen
    if module not in seen:
        seen.add(module)
        yield module
        if not isinstance(module, torch.jit.ScriptModule):
            for child in module.children():
                yield from _tree(child, seen)


def _blank(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        # not made of Python objects: a copy of the whole, weights included, is the only private one
        return copy.deepcopy(module).eval() if module.training else module
    # some modules, FX graphs among them, make a new class in their own __new__
    blank: nn.Module = object.__new__(type(module))
    return blank


def _alias(parameter: nn.Parameter) -> Tensor:
    if torch.nn.parameter.is_lazy(parameter):
        raise ModelError("the model has lazy parameters without a shape; run it once on an example before explaining it")
    data = parameter.detach()
    if data.is_inference():  # made under inference_mode, it cannot be saved for a backward pass
        data = data.clone()
    return nn.Parameter(data, requires_grad=False) if type(parameter) is nn.Parameter else data


def _fill(replica: nn.Module, module: nn.Module, memo: dict[int, Any]) -> None:
    for name, value in module.__dict__.items():
        private = name in ("_backward_hooks", "_backward_pre_hooks")
        replica.__dict__[name] = type(value)() if private else _rebind(value, memo)
    replica.__dict__["training"] = False


def _rebind(value: Any, memo: dict[int, Any]) -> Any:
    """``value`` with every module, parameter and buffer in it exchanged for the replica's; containers anew, all else shared."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, dict):
        rebound = value.copy() if type(value) in (dict, OrderedDict) else copy.copy(value)
        for key, item in value.items():
            rebound[key] = _rebind(item, memo)
        return rebound
    if type(value) in (list, tuple):
        return type(value)(_rebind(item, memo) for item in value)
    if isinstance(value, types.MethodType):
        return types.MethodType(value.__func__, _rebind(value.__self__, memo))
    if isinstance(value, functools.partial):
        return functools.partial(_rebind(value.func, memo), *_rebind(value.args, memo), **_rebind(value.keywords, memo))
    return value
