"""References to what has a replica, made to lead to the replica."""

from __future__ import annotations

import functools
import gc
import operator
import types
import weakref
from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["IMMUTABLE", "PLAIN", "exchange_all"]

# A network holds thousands of objects, and each call meets them all: those that own nothing are told by their type.
PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size})
IMMUTABLE = (tuple, frozenset)


def exchange_all(values: Iterable[Any], memo: dict[int, Any]) -> list[Any]:
    """Exchange each of ``values`` as ``memo`` says, which has replicas by the ids of what they stand for."""
    return [v if type(v) in PLAIN else memo[id(v)] if id(v) in memo else _exchange(v, memo) for v in values]


def _exchange(value: Any, memo: dict[int, Any]) -> Any:
    """Return the replica of ``value``, or ``value`` with its references exchanged; itself where it refers to nothing owned."""
    if id(value) in memo:
        return memo[id(value)]
    exchanged = value
    if type(value) in _WEAK:
        exchanged = _exchange_weak(value, memo)
    elif isinstance(value, (*IMMUTABLE, types.MappingProxyType)):
        exchanged = _exchange_items(value, memo)
    elif isinstance(value, types.MethodType):
        exchanged = types.MethodType(_exchange(value.__func__, memo), _exchange(value.__self__, memo))
    elif isinstance(value, functools.partial):
        keywords = {key: _exchange(item, memo) for key, item in value.keywords.items()}
        exchanged = functools.partial(_exchange(value.func, memo), *_exchange(value.args, memo), **keywords)
    elif isinstance(value, types.FunctionType):
        exchanged = _exchange_function(value, memo)
    elif isinstance(value, types.BuiltinMethodType) and id(value.__self__) in memo:
        exchanged = getattr(memo[id(value.__self__)], value.__name__)
    elif isinstance(value, functools._lru_cache_wrapper):
        function = _exchange(value.__wrapped__, memo)
        exchanged = value if function is value.__wrapped__ else functools.lru_cache(**value.cache_parameters())(function)
    return exchanged


def _exchange_items(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, types.MappingProxyType):
        (mapping,) = gc.get_referents(value)
        own = _exchange(mapping, memo)
        memo[id(value)] = value if own is mapping else types.MappingProxyType(own)
        return memo[id(value)]
    items = exchange_all(value, memo)
    if not any(map(operator.is_not, items, value)):
        return value
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


_WEAK = (weakref.ref, weakref.WeakMethod, *weakref.ProxyTypes)


def _exchange_weak(reference: Any, memo: dict[int, Any]) -> Any:
    if type(reference) in weakref.ProxyTypes:  # it claims to be what it refers to, which may be gone
        try:
            return weakref.proxy(memo[id(reference.__str__.__self__)])
        except (KeyError, ReferenceError):
            return reference
    referred = reference()
    if isinstance(reference, weakref.WeakMethod):
        known = referred is not None and id(referred.__self__) in memo
        return weakref.WeakMethod(_exchange(referred, memo)) if known else reference
    return weakref.ref(memo[id(referred)]) if id(referred) in memo else reference


def _exchange_function(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    """Return the function over the replicas of what its closure and defaults hold; itself where they hold nothing owned."""
    cells = [(cell, types.CellType()) for cell in function.__closure__ or ()]
    new = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, tuple(c for _, c in cells))
    memo[id(function)] = new  # before its cells are filled: it may refer to itself
    same = True
    for cell, new_cell in cells:
        try:
            content = cell.cell_contents
        except ValueError:  # a variable that was never assigned
            continue
        new_cell.cell_contents = _exchange(content, memo)
        same = same and (content is function or new_cell.cell_contents is content)
    new.__defaults__ = _exchange(function.__defaults__, memo)
    given = function.__kwdefaults__ or {}
    new.__kwdefaults__ = {key: _exchange(value, memo) for key, value in given.items()}
    same = same and new.__defaults__ is function.__defaults__ and all(new.__kwdefaults__[k] is given[k] for k in given)
    new.__dict__.update(function.__dict__)
    memo[id(function)] = function if same else new
    return function if same else new
