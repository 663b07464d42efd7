"""The modules, attributes and forward hooks of a network, remembered so that a later change is noticed.

They are looked at whenever a prepared network is called, so that must be cheap: all plain values of a module are compared at
once, as dictionaries. And the network must not be kept alive: whatever may refer to it is held weakly.
"""

from __future__ import annotations

import enum
import functools
import types
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import starmap
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from relume.engine.module_state import children_of, tensors_of
from relume.engine.tensor_state import version
from relume.engine.wrappers import PARALLEL, inside

__all__ = ["Fingerprint"]

#: Tells whether something is what it was.
Unchanged: TypeAlias = Callable[[Any], bool]

#: What every module has; forward hooks and modules are looked at, tensors elsewhere, and the rest changes nothing in a replica.
_EVERY = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")

_PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    type,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    np.generic,
    enum.Enum,
    range,
    slice,
)
_CODE = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.ModuleType,
    functools.partial,
    torch.utils.hooks.RemovableHandle,
    weakref.ref,
)
#: A container nested deeper than this, or in itself, and an array of more bytes, are not looked into.
_DEEPEST, _MOST_BYTES = 6, 4096


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """The modules of a network as they were.

    Attributes:
        parts: each module, with what hangs on its parameters and buffers as attributes of theirs.
        unwatched: the attributes of which only an exchange is noticed, or nothing, as a forward pass writes them itself.
    """

    parts: tuple[_Part, ...]
    unwatched: tuple[str, ...]

    @classmethod
    def of(cls, network: nn.Module, written: Collection[str] = ()) -> Fingerprint:
        """Look at ``network`` as it is now, except for the attributes that are ``written`` by its forward pass."""
        parts: dict[nn.Module, _Part] = {}
        unwatched = list(written)
        waiting = [("", network)]
        while waiting:
            prefix, module = waiting.pop()
            if module in parts or isinstance(module, torch.jit.ScriptModule):
                continue
            look = _Look(prefix, unwatched)
            # a wrapper's hooks are the network's, its attributes its own business, and it is not in the names
            wraps = inside(module) is not None or (type(module) in PARALLEL and not prefix)
            parts[module] = _Part.of(module, look, vars(module).keys() - _EVERY if wraps else (), written)
            unwatched += map(look.name, _slots(type(module)))
            waiting += [
                (prefix if wraps else look.name(key), child) for key, child in children_of(module).items() if child is not None
            ]
            waiting += look.modules
        return cls(tuple(parts.values()), tuple(sorted(set(unwatched))))

    def changed(self) -> list[str]:
        """Name what is not as it was, in modules that are still there."""
        return [name for part in self.parts for name in part.changed()]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One module as it was."""

    prefix: str
    module: weakref.ref[nn.Module]
    kind: type
    children: tuple[tuple[str, weakref.ref[nn.Module] | None], ...]
    plain: dict[str, Any]
    others: dict[str, Unchanged]
    hooks: tuple[tuple[str, Unchanged | None], ...]
    hung: dict[str, Unchanged]
    free: frozenset[str]
    count: int

    @classmethod
    def of(cls, module: nn.Module, look: _Look, ignored: Collection[str], written: Collection[str]) -> _Part:
        state = vars(module)
        children = tuple((key, None if child is None else weakref.ref(child)) for key, child in children_of(module).items())
        within = look.prefix and f"{look.prefix}."
        free = frozenset(name.removeprefix(within) for name in written if name.startswith(within))
        free |= frozenset(ignored)
        own = {key: value for key, value in state.items() if key not in _EVERY and key not in free}
        plain = {key: value for key, value in own.items() if _is_plain(value)}
        others = {key: look(key, value) for key, value in own.items() if key not in plain}
        hooks = tuple((key, look(key, state[key]) if state[key] else None) for key in _HOOKS if key not in free)
        hung = {key: look(key, value) for key, value in _hung(module).items() if key not in free}
        count = len(state.keys() - free)
        return cls(look.prefix, weakref.ref(module), type(module), children, plain, others, hooks, hung, free, count)

    def changed(self) -> Iterator[str]:
        module = self.module()
        if module is None or self._same(module):
            return
        state = vars(module)
        children = {key: None if child is None else child() for key, child in self.children}
        now = children_of(module)
        names = [key for key in {**children, **now} if children.get(key) is not now.get(key)]
        names += [key for key in state if key not in {*_EVERY, *self.free, *self.plain, *self.others}]
        names += [key for key, value in self.plain.items() if key not in state or not _one(value)(state[key])]
        names += [key for key, unchanged in self.others.items() if key not in state or not unchanged(state[key])]
        names += [
            key for key, unchanged in self.hooks if (bool(state[key]) if unchanged is None else not unchanged(state[key]))
        ]
        hung = _hung(module)
        names += [key for key in {**self.hung, **hung} if key not in self.free and not self._hangs(hung, key)]
        yield from (f"{self.prefix}.{key}".lstrip(".") for key in names or ["__class__"])

    def _same(self, module: nn.Module) -> bool:
        state, children = vars(module), children_of(module)
        if type(module) is not self.kind or len(children) != len(self.children):
            return False
        if len(state) - (len(self.free & state.keys()) if self.free else 0) != self.count:
            return False
        hung = _hung(module)
        try:
            plain = self.plain.items() <= state.items()
        except (RuntimeError, TypeError, ValueError):  # a tensor or an array in place of a number
            return False
        return (
            plain
            and all(children.get(key) is (None if child is None else child()) for key, child in self.children)
            and all(not state[key] if unchanged is None else unchanged(state[key]) for key, unchanged in self.hooks)
            and all(unchanged(state.get(key)) for key, unchanged in self.others.items())
            and all(key in self.free or self._hangs(hung, key) for key in {**self.hung, **hung})
        )

    def _hangs(self, hung: dict[str, Any], key: str) -> bool:
        return key in self.hung and key in hung and self.hung[key](hung[key])


def _hung(module: nn.Module) -> dict[str, Any]:
    """Return the attributes that hang on the parameters and buffers of ``module``."""
    tensors = [(key, tensor) for _, key, tensor in tensors_of(module) if tensor.__dict__]
    return {f"{key}.{name}": value for key, tensor in tensors for name, value in _attributes(tensor).items()}


def _attributes(tensor: Tensor) -> dict[str, Any]:
    """Return what hangs on ``tensor``, without the marks that torch.compile puts on weights (torch 2.13)."""
    return {name: value for name, value in tensor.__dict__.items() if not name.startswith("_dynamo")}


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


class _Bare:
    """An object that has a dictionary of attributes and nothing else."""


# --- Single values -----------------------------------------------------------------------------------------------------------


class _Look:
    """Looks at the attributes of one module.

    Attributes:
        prefix: the name of the module.
        modules: those that an attribute holds without registering them.
    """

    def __init__(self, prefix: str, unwatched: list[str]) -> None:
        self.prefix, self.modules = prefix, list[tuple[str, nn.Module]]()
        self._unwatched = unwatched

    def name(self, key: str) -> str:
        """Return what the network calls the attribute ``key``."""
        return f"{self.prefix}.{key}".lstrip(".")

    def __call__(self, key: str, value: Any, depth: int = 0) -> Unchanged:
        """Remember ``value``, the attribute ``key`` or a part of it."""
        if _is_plain(value):
            return _one(value)
        if isinstance(value, Tensor):
            return self._tensor(key, value, depth)
        if isinstance(value, nn.Module):
            self.modules.append((self.name(key), value))
            return _identity(value)
        if depth < _DEEPEST and isinstance(value, dict | list | tuple | deque | set | frozenset):
            return self._container(key, value, depth)
        return self._object(key, value, depth)

    def _tensor(self, key: str, value: Tensor, depth: int) -> Unchanged:
        same = _tensor(value)
        if depth >= _DEEPEST:
            return same
        attributes = self._container(key, _attributes(value), depth)
        return lambda now: same(now) and attributes(_attributes(now))

    def _object(self, key: str, value: Any, depth: int) -> Unchanged:
        """Remember an object; one that cannot be looked into is told by its identity alone, and noted."""
        identity = _identity(value)
        if isinstance(value, np.ndarray) and value.nbytes <= _MOST_BYTES and not value.dtype.hasobject:
            content = value.tobytes()
            return lambda now: identity(now) and now.tobytes() == content
        state = getattr(value, "__dict__", None)
        whole = type(value).__basicsize__ <= _Bare.__basicsize__  # none of its state is hidden in C, or in slots
        if type(state) is dict and whole and _is_data(state) and not isinstance(value, _CODE):
            content_of = self(key, state, depth)
            return lambda now: identity(now) and content_of(vars(now))
        if not isinstance(value, _CODE):
            self._unwatched.append(self.name(key))
        return identity

    def _container(self, key: str, value: Any, depth: int) -> Unchanged:
        kind, size = type(value), len(value)
        if isinstance(value, set | frozenset):
            members = [_identity(member) for member in value if not _is_plain(member)]
            plain = {member for member in value if _is_plain(member)}
            return lambda now: (
                type(now) is kind and len(now) == size and plain <= now and all(any(map(m, now)) for m in members)
            )
        if isinstance(value, dict):
            keys, items = self._container(key, list(value), depth), self._container(key, list(value.values()), depth)
            return lambda now: type(now) is kind and keys(list(now)) and items(list(now.values()))
        if all(map(_is_plain, value)):
            content = list(value)
            return lambda now: type(now) is kind and len(now) == size and _safely_equal(list(now), content)
        each = [self(key, item, depth + 1) for item in value]
        return lambda now: type(now) is kind and len(now) == size and all(starmap(_call, zip(each, now, strict=True)))


def _call(unchanged: Unchanged, now: Any) -> bool:
    return unchanged(now)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (type(value) in (tuple, torch.Size) and all(map(_is_plain, value)))


def _is_data(state: dict[str, Any]) -> bool:
    """Tell whether an object holds plain values alone, or containers of such, as a configuration does."""
    return all(
        _is_plain(value)
        or (isinstance(value, dict) and _is_data(value))
        or (isinstance(value, list | tuple | set | frozenset) and all(map(_is_plain, value)))
        for value in state.values()
    )


def _one(value: Any) -> Unchanged:
    return lambda now: now is value or _safely_equal(now, value)


def _safely_equal(now: Any, value: Any) -> bool:
    try:
        return bool(now == value)
    except (RuntimeError, TypeError, ValueError):  # a tensor or an array in place of a number
        return False


def _tensor(value: Tensor) -> Unchanged:
    identity, place = _identity(value), _place(value)
    return lambda now: identity(now) and _place(now) == place


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr() if tensor.layout is torch.strided else 0, version(tensor)


def _identity(value: Any) -> Unchanged:
    try:
        reference = weakref.ref(value)
    except TypeError:  # of a type without weak references
        return lambda now: now is value
    return lambda now: now is reference()
