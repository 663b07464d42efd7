"""A private replica of a network: the same weights, in evaluation mode, and nothing that reaches back into the original.

relume promises that a model is never changed, not even for the time of a call and not in the eyes of another thread. Yet
a network in training mode is to run as in evaluation mode, and a layer's output can only be had by a hook on its module. So
each call runs a replica, new module objects over the same storage. In it

* parameters are aliases that need no gradient, so no weight gradient exists to be computed;
* buffers and other tensors are copies, so a forward pass that updates them leaves the original's alone;
* every ``training`` flag is false, set directly: a user's own ``eval`` may merge weights in place;
* backward hooks are left out: they belong to training and would alter or observe a gradient that is not theirs.

Everything mutable that the modules own has its own replica: containers, arrays, random states, and plain objects of the
packages that the modules come from. Whatever refers to it from there (bound methods, partials, closures, weak references)
refers to the replica. A reference from any other object leads to the original; :class:`Guard` stops a forward pass that
follows one before it reads or writes anything there.
"""

from __future__ import annotations

import copy
import functools
import gc
import types
import warnings
import weakref
from collections import ChainMap, OrderedDict, UserDict, UserList, deque
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relume.engine.copies import Held, copies, copy_of_state
from relume.engine.module_state import FORWARD_HOOKS, alias, children_of, tensors_of
from relume.engine.recorded_graphs import traced_in_training, training_node
from relume.engine.references import IMMUTABLE, PLAIN, exchange_all
from relume.engine.wrappers import PARALLEL, inside, modules_of, unwrap
from relume.errors import ModelError

__all__ = ["Guard", "replicate", "warn_of_writing"]


def replicate(model: nn.Module) -> nn.Module:
    """Make a replica of ``model`` in evaluation mode that shares its weights; modules are named as in ``unwrap(model)``.

    Hooks of wrappers are hooks of the network inside.

    Raises:
        ModelError: the model has lazy parameters that no forward pass has given a shape, is a graph made in training mode, or
            has a wrapper whose hooks cannot go with it.
    """
    original = unwrap(model)
    modules = modules_of(original)
    inside_script: set[nn.Module] = set()
    for part in modules:
        name = training_node(part.graph) if isinstance(part, torch.fx.GraphModule) else None
        if isinstance(part, torch.jit.ScriptModule) and part not in inside_script:
            name = traced_in_training(part)
            inside_script.update(part.modules())
        if name:
            raise ModelError(
                f"the graph of this model runs {name!r} as in training, whatever mode it is in; "
                "trace or export it after model.eval()"
            )
    collection = _Collection(modules)
    collection.add([model])
    memo = collection.fill()
    for module in modules:
        if not isinstance(module, torch.jit.ScriptModule):
            memo[id(module)].__dict__["training"] = False
    result: nn.Module = memo[id(original)]
    if collection.shared:
        _SHARED[result] = collection.shared
    return result


_SHARED: weakref.WeakKeyDictionary[nn.Module, list[tuple[Any, dict[str, Any]]]] = weakref.WeakKeyDictionary()


def warn_of_writing(replica: nn.Module) -> None:
    """Say if a forward pass of ``replica`` has written to attributes of objects that it shares with the caller's network."""
    for shared, before in _SHARED.pop(replica, ()):
        after = vars(shared)
        changed = [name for name in {**before, **after} if before.get(name, _SHARED) is not after.get(name, _SHARED)]
        if changed:
            warnings.warn(
                f"the forward pass wrote {changed[0]!r} of a {type(shared).__name__} that the network holds; relume cannot "
                "copy such an object, so yours has changed: explain a copy.deepcopy of the network",
                stacklevel=2,
            )


class Guard(TorchFunctionMode):
    """Around a replica's forward pass: an operation on a parameter or buffer of the original is an error.

    Modules of the original would do in training mode what an explanation must not: drop units at random, normalise by the
    batch, update statistics.
    """

    def __init__(self, original: nn.Module) -> None:
        """Guard the tensors of ``original``; those of TorchScript modules, which run as they are, excepted."""
        super().__init__()
        self._names: dict[int, str] = {}
        self._held: list[Tensor] = []  # an id means something while its object lives
        for prefix, module in original.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                for _, name, tensor in tensors_of(module):
                    self._names[id(tensor)] = f"{prefix}.{name}".lstrip(".")
                    self._held.append(tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` unless one of its arguments is guarded."""
        for value in (*args, *(kwargs or {}).values()):
            if id(value) in self._names:
                raise ModelError(
                    f"the model reaches {self._names[id(value)]!r} through an object that relume cannot follow, "
                    "and in training mode its own modules may not run; call model.eval() before explaining it"
                )
        return func(*args, **(kwargs or {}))


# --- First everything owned gets an empty replica, then each is filled -----------------------------------------------------

_WEAK_MAPPINGS = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_CONTAINERS = frozenset({dict, OrderedDict, list, set, weakref.WeakSet, *_WEAK_MAPPINGS})
_MUTABLE = (dict, list, deque, set)
_HOLDERS = frozenset({UserDict, UserList, ChainMap})
#: What is exchanged, or is no state of a network's.
_REFERRING = (types.FunctionType, types.MethodType, types.ModuleType, functools.partial, functools._lru_cache_wrapper)


class _Collection:
    """Replicas of everything mutable that some objects own, empty until they are filled."""

    def __init__(self, modules: Collection[nn.Module]) -> None:
        """Follow plain objects of the packages that ``modules`` come from, torch's excepted."""
        self._memo: dict[int, Any] = {}
        # what each held when it was met is held with it: an id means something no longer
        self._owned: list[tuple[Any, Any]] = []
        self._held: list[Held] = []
        self._attributes: list[tuple[Any, dict[str, Any]]] = []
        self._wrappers: list[tuple[nn.Module, nn.Module]] = []
        self.shared: list[tuple[Any, dict[str, Any]]] = []  # what has no replica, with its attributes
        self._modules = modules
        self._packages = {_package(type(module)) for module in modules} - {"torch"}

    def add(self, values: Iterable[Any]) -> None:
        """Give everything mutable that ``values`` own a replica."""
        memo = self._memo
        for value in values:
            kind = type(value)
            if kind in PLAIN or id(value) in memo:
                continue
            if kind in _CONTAINERS and not value:  # hooks, as a rule
                memo[id(value)] = kind()
            elif kind in weakref.ProxyTypes:
                continue  # they claim to be what they refer to
            elif isinstance(value, nn.Module):
                self._add_module(value)
            elif isinstance(value, Tensor | np.ndarray):
                self._add_memory(value)
            elif kind in _CONTAINERS or isinstance(value, _MUTABLE):
                self._add_container(value)
            elif isinstance(value, IMMUTABLE):
                if not PLAIN.issuperset(map(type, value)):
                    self.add(value)
            else:
                self._add_other(value)

    def _add_memory(self, value: Held) -> None:
        """Add a parameter, or have a tensor or array copied when all that may share memory with it are known."""
        if isinstance(value, Tensor) and torch.nn.parameter.is_lazy(value):
            raise ModelError("the model has lazy parameters without a shape; run it once on an example before explaining it")
        if isinstance(value, nn.Parameter):
            self._memo[id(value)] = _parameter(value)
        else:
            self._memo[id(value)] = value
            self._held.append(value)
        if isinstance(value, Tensor):
            self._add_attributes(value)
        elif value.dtype == object:
            self.add(value.flat)

    def _add_attributes(self, value: Any) -> None:
        """Add what somebody hung on a tensor, or on a container."""
        if state := getattr(value, "__dict__", None):
            self.add(state.values())
            self._attributes.append((value, state.copy()))

    def _add_other(self, value: Any) -> None:
        if (copied := copy_of_state(value)) is not None:
            self._memo[id(value)] = copied
        elif type(value) is types.MappingProxyType:
            self.add(gc.get_referents(value))
        elif type(value) in _HOLDERS or _package(type(value)) in self._packages or type(value) is types.SimpleNamespace:
            self._add_object(value)
        if id(value) not in self._memo and type(value) not in _REFERRING and hasattr(value, "__dict__"):
            self.shared.append((value, vars(value).copy()))

    def _add_container(self, container: Any) -> None:
        if (empty := _empty(container)) is None:
            return
        self._memo[id(container)] = empty
        if isinstance(container, dict | _WEAK_MAPPINGS[0] | _WEAK_MAPPINGS[1]):
            state: Any = dict(container.items())
            if not isinstance(container, weakref.WeakKeyDictionary):  # whose keys, if they are owned, are owned by others
                self.add(state)
            if not isinstance(container, weakref.WeakValueDictionary):
                self.add(state.values())
        else:
            state = list(container)
            if not isinstance(container, weakref.WeakSet):
                self.add(state)
        self._owned.append((empty, state))
        if isinstance(container, _MUTABLE):  # those of weak containers are what they consist of
            self._add_attributes(container)

    def _add_module(self, module: nn.Module) -> None:
        whole = type(module) in PARALLEL and module not in self._modules
        inner = children_of(module)["module"] if whole else inside(module)
        if isinstance(module, torch.jit.ScriptModule):
            # not made of Python objects: a copy of the whole is the only private one, and gets the weights back
            replica = copy.deepcopy(module).eval()
            weights = dict(module.named_parameters(remove_duplicate=False))
            for name, copied in replica.named_parameters(remove_duplicate=False):
                if not weights[name].is_inference():
                    copied.data = weights[name].data
            parts = dict(replica.named_modules(remove_duplicate=False))
            self._memo |= {id(part): parts[name] for name, part in module.named_modules(remove_duplicate=False)}
        elif inner is not None:
            self.add([inner])
            self._memo[id(module)] = self._memo[id(inner)]
            if any(getattr(module, hooks) for hooks in FORWARD_HOOKS):
                self._check(module, inner)
                self.add([getattr(module, hooks) for hooks in FORWARD_HOOKS])
                self._wrappers.append((module, inner))
        else:
            self._add_object(module)

    def _check(self, wrapper: nn.Module, inner: nn.Module) -> None:
        """Refuse hooks that would be called where the wrapper is not, or not at all."""
        elsewhere = any(inner in children_of(module).values() for module in self._modules if module is not wrapper)
        if elsewhere or isinstance(self._memo[id(inner)], torch.jit.ScriptModule):
            raise ModelError(
                f"the {type(wrapper).__name__} around {type(inner).__name__} has forward hooks, which cannot go with "
                "what is inside; register them on a module of the network"
            )

    def _add_object(self, value: Any) -> None:
        """Add a module, or an object that is no more than its attributes."""
        kind = type(value)
        traits = _traits(kind)
        state = vars(value).copy() if hasattr(value, "__dict__") else {}
        for name, slot in traits.slots.items():
            try:
                state[name] = slot.__get__(value)
            except AttributeError:  # never assigned
                continue
        if not isinstance(value, nn.Module) and kind not in _HOLDERS and not (traits.plain and state):
            return
        # some modules, FX graphs among them, make a new class in their own __new__
        replica = object.__new__(kind) if kind is not types.SimpleNamespace else kind()
        self._memo[id(value)] = replica
        self._owned.append((replica, state))
        self.add(state.values())

    def fill(self) -> dict[int, Any]:
        """Fill the replicas, and return them by the ids of what they stand for."""
        memo = self._memo
        memo |= {id(original): copied for original, copied in zip(self._held, copies(self._held), strict=True)}
        for replica, state in self._owned:
            _fill(replica, state, memo)
        for held in self._held:
            if isinstance(held, np.ndarray) and held.dtype == object and held.ndim and memo[id(held)] is not held:
                for index in np.ndindex(held.shape):
                    (memo[id(held)][index],) = exchange_all([held[index]], memo)
        for original, state in self._attributes:
            vars(memo[id(original)]).update(zip(state, exchange_all(state.values(), memo), strict=True))
        for wrapper, inner in self._wrappers:  # from the inside out
            held = vars(memo[id(inner)])
            for hooks in FORWARD_HOOKS:
                outer = memo[id(getattr(wrapper, hooks))]
                first, then = (outer, held[hooks]) if "_pre_" in hooks else (held[hooks], outer)
                held[hooks] = OrderedDict([*first.items(), *then.items()])
        return memo


class _Traits(NamedTuple):
    """The traits of a class whose objects are replicated.

    Attributes:
        slots: attributes that do not lie in ``__dict__``.
        cached: methods whose cache would keep every object that they were called on.
        plain: an object is no more than its attributes: nothing else is to be copied, and nothing happens when it goes.
    """

    slots: dict[str, Any]
    cached: dict[str, Any]
    plain: bool


_KNOWN: weakref.WeakKeyDictionary[type, _Traits] = weakref.WeakKeyDictionary()
_SPECIAL = ("__reduce__", "__reduce_ex__", "__getstate__", "__new__")
_OWN = ("__copy__", "__deepcopy__", "__setstate__", "__del__")


def _traits(kind: type) -> _Traits:
    if kind not in _KNOWN:
        attributes = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
        slots = {name: value for base in kind.__mro__ for name, value in vars(base).items() if _is_slot(name, value)}
        cached = {name: value for name, value in attributes.items() if isinstance(value, functools._lru_cache_wrapper)}
        plain = all(getattr(kind, name, None) is getattr(object, name, None) for name in _SPECIAL)
        plain = plain and not any(hasattr(kind, name) for name in _OWN)
        _KNOWN[kind] = _Traits(slots, cached, plain or kind is types.SimpleNamespace)
    return _KNOWN[kind]


def _is_slot(name: str, value: Any) -> bool:
    return isinstance(value, types.MemberDescriptorType) and not name.startswith("__")


def _package(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _empty(container: Any) -> Any:
    """Make a new container of the same kind, without its items; None if it refuses to be emptied, being immutable."""
    if type(container) in _CONTAINERS:
        return type(container)()
    try:
        empty = copy.copy(container)
        empty.clear()
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError):
        return None
    return empty


def _parameter(parameter: nn.Parameter) -> Tensor:
    """Make a parameter that needs no gradient, over the same memory."""
    # one made under inference_mode cannot be saved for a backward pass
    data = parameter.detach().clone() if parameter.is_inference() else parameter
    return alias(parameter, data)


def _fill(replica: Any, state: Any, memo: dict[int, Any]) -> None:
    exchanged = exchange_all(state.values() if isinstance(state, dict) else state, memo)
    if isinstance(replica, nn.Module):
        _fill_object(replica, dict(zip(state, exchanged, strict=True)))
    elif isinstance(replica, dict | _WEAK_MAPPINGS[0] | _WEAK_MAPPINGS[1]):
        for key, item in zip(exchange_all(state, memo), exchanged, strict=True):
            replica[key] = item
    elif isinstance(replica, set | weakref.WeakSet):
        replica.update(exchanged)
    elif isinstance(replica, list | deque):
        replica.extend(exchanged)
    else:
        _fill_object(replica, dict(zip(state, exchanged, strict=True)))


def _fill_object(replica: Any, state: dict[str, Any]) -> None:
    traits = _traits(type(replica))
    for name in traits.slots.keys() & state.keys():
        traits.slots[name].__set__(replica, state.pop(name))
    if isinstance(replica, nn.Module):
        state |= {"_backward_hooks": OrderedDict(), "_backward_pre_hooks": OrderedDict(), "_compiled_call_impl": None}
    if hasattr(replica, "__dict__"):
        vars(replica).update(state)
        for name, method in traits.cached.items():
            vars(replica).setdefault(name, _cached_anew(replica, method))


def _cached_anew(replica: Any, method: Any) -> Any:
    """Give the method a cache of this replica's own that does not keep it; that of the class would keep every replica."""
    owner = weakref.ref(replica)

    @functools.wraps(method.__wrapped__)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method.__wrapped__(owner(), *args, **kwargs)

    return functools.lru_cache(**method.cache_parameters())(call)
