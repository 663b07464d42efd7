"""A private replica of a network: the same weights, in evaluation mode, and nothing that reaches back into the original.

relume promises that a model is never changed, not even for the time of a call and not in the eyes of another thread. Yet
a network in training mode is to run as in evaluation mode, and a layer's output can only be had by a hook on its module. So
each call runs a replica, new module objects over the same storage. In it

* parameters are aliases that need no gradient, so no weight gradient exists to be computed;
* buffers and other tensors are copies, so a forward pass that updates them leaves the original's alone;
* every ``training`` flag is false, set directly: a user's own ``eval`` may merge weights in place;
* backward hooks are left out: they belong to training and would alter or observe a gradient that is not theirs.

Everything mutable that the modules own, in lists, dicts and sets too, has its own replica, and whatever refers to it from
there (bound methods, partials, closures, weak references) refers to the replica. A reference from any other object leads to
the original; :func:`leaked` tells when a forward pass took one.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from relume.errors import ModelError

__all__ = ["leaked", "replicate", "unwrap"]

_CONTAINERS = (dict, OrderedDict, defaultdict, list, deque, set)


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``, which share its weights."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrap(model.module)
    return _uncompiled(model)


def _uncompiled(module: nn.Module) -> nn.Module:
    while not isinstance(module, torch.jit.ScriptModule) and isinstance(inner := module._modules.get("_orig_mod"), nn.Module):
        module = inner
    return module


def replicate(model: nn.Module) -> nn.Module:
    """A replica of ``model`` in evaluation mode that shares its weights; modules are named as in ``unwrap(model)``.

    Raises:
        ModelError: the model has lazy parameters that no forward pass has given a shape.
    """
    original = unwrap(model)
    memo: dict[int, Any] = {}
    owned: list[tuple[Any, Any]] = []
    _collect(original, memo, owned)
    for replica, value in owned:
        _fill(replica, value, memo)
    for module in original.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            memo[id(module)].__dict__["training"] = False
    result: nn.Module = memo[id(original)]
    return result


def leaked(model: nn.Module, nodes: Iterable[Node]) -> str | None:
    """The name of a parameter of the original that ``nodes`` of its replica's graph lead to, if any."""
    names: dict[Tensor, str] = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):  # which run as they are
            names.update((p, f"{prefix}.{key}".lstrip(".")) for key, p in module._parameters.items() if p is not None)
    used = (getattr(node, "variable", None) for node in nodes)
    return next((names[p] for p in used if p in names), None)


# --- First everything owned gets an empty replica, then each is filled -----------------------------------------------------


def _collect(value: Any, memo: dict[int, Any], owned: list[tuple[Any, Any]]) -> None:
    """Give everything mutable that ``value`` owns a replica in ``memo``; those still to be filled go to ``owned``."""
    if id(value) in memo:
        return
    if isinstance(value, nn.Module):
        _collect_module(value, memo, owned)
    elif isinstance(value, Tensor):
        memo[id(value)] = _alias(value) if isinstance(value, nn.Parameter) else _carry(value, value.detach().clone())
    elif type(value) in _CONTAINERS:
        memo[id(value)] = _empty(value)
        owned.append((memo[id(value)], value))
        for item in list(value.items()) if isinstance(value, dict) else list(value):
            _collect(item, memo, owned)
    elif isinstance(value, tuple | frozenset):
        for item in value:
            _collect(item, memo, owned)


def _collect_module(module: nn.Module, memo: dict[int, Any], owned: list[tuple[Any, Any]]) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        # not made of Python objects: a copy of the whole, weights included, is the only private one
        memo[id(module)] = copy.deepcopy(module).eval() if getattr(module, "training", False) else module
    elif (inner := _uncompiled(module)) is not module:
        _collect(inner, memo, owned)
        memo[id(module)] = memo[id(inner)]
    else:
        # some modules, FX graphs among them, make a new class in their own __new__
        memo[id(module)] = object.__new__(type(module))
        owned.append((memo[id(module)], module))
        for value in list(vars(module).values()):
            _collect(value, memo, owned)


def _empty(container: Any) -> Any:
    match container:
        case defaultdict():
            return defaultdict(container.default_factory)
        case deque():
            return deque(maxlen=container.maxlen)
        case _:
            return type(container)()


def _alias(parameter: nn.Parameter) -> Tensor:
    if torch.nn.parameter.is_lazy(parameter):
        raise ModelError("the model has lazy parameters without a shape; run it once on an example before explaining it")
    data = parameter.detach()
    if data.is_inference():  # made under inference_mode, it cannot be saved for a backward pass
        data = data.clone()
    return _carry(parameter, torch.Tensor._make_subclass(type(parameter), data, False))


def _carry(tensor: Tensor, replica: Tensor) -> Tensor:
    """``replica`` with the attributes that somebody hung on ``tensor``."""
    replica.__dict__.update(tensor.__dict__)
    return replica


def _fill(replica: Any, value: Any, memo: dict[int, Any]) -> None:
    if isinstance(value, nn.Module):
        for name, attribute in list(vars(value).items()):
            replica.__dict__[name] = _exchange(attribute, memo)
        replica.__dict__.update(_backward_hooks=OrderedDict(), _backward_pre_hooks=OrderedDict(), _compiled_call_impl=None)
    elif isinstance(value, dict):
        replica.update((_exchange(key, memo), _exchange(item, memo)) for key, item in list(value.items()))
    else:
        (replica.update if isinstance(value, set) else replica.extend)([_exchange(item, memo) for item in list(value)])


# --- What refers to something owned refers to its replica ------------------------------------------------------------------


def _exchange(value: Any, memo: dict[int, Any]) -> Any:
    """The replica of ``value``, or ``value`` with what it refers to exchanged; itself where it refers to nothing owned."""
    if id(value) in memo:
        return memo[id(value)]
    exchanged = value
    if isinstance(value, tuple | frozenset):
        items = [_exchange(item, memo) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            exchanged = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    elif isinstance(value, types.MethodType):
        exchanged = types.MethodType(_exchange(value.__func__, memo), _exchange(value.__self__, memo))
    elif isinstance(value, functools.partial):
        keywords = {key: _exchange(item, memo) for key, item in value.keywords.items()}
        exchanged = functools.partial(_exchange(value.func, memo), *_exchange(value.args, memo), **keywords)
    elif isinstance(value, types.FunctionType):
        exchanged = _exchange_function(value, memo)
    elif type(value) is weakref.ref and id(value()) in memo:
        exchanged = weakref.ref(memo[id(value())])
    return exchanged


def _exchange_function(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    """The function over the replicas of what its closure and defaults hold; itself where they hold nothing owned."""
    memo[id(function)] = function  # it may refer to itself
    closure = tuple(_exchange_cell(cell, memo) for cell in function.__closure__ or ())
    defaults = _exchange(function.__defaults__, memo)
    kept = all(new is old for new, old in zip(closure, function.__closure__ or (), strict=True))
    if not kept or defaults is not function.__defaults__:
        new = types.FunctionType(function.__code__, function.__globals__, function.__name__, defaults, closure)
        new.__kwdefaults__ = function.__kwdefaults__
        new.__dict__.update(function.__dict__)
        memo[id(function)] = new
    result: types.FunctionType = memo[id(function)]
    return result


def _exchange_cell(cell: types.CellType, memo: dict[int, Any]) -> types.CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # a variable that was never assigned
        return cell
    new = _exchange(content, memo)
    return cell if new is content else types.CellType(new)
