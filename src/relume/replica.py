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
the original; :class:`Guard` stops a forward pass that follows one before it reads or writes anything there.
"""

from __future__ import annotations

import copy
import functools
import operator
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relume.errors import ModelError

__all__ = ["Guard", "modules_of", "replicate", "training_node", "unwrap"]

#: Operations of a graph that may be fixed as in training: what they are called, the position and name of the argument that says
#: so, and what it is if it is not given.
_TRAINING = {
    "aten.batch_norm.default": (5, "training", False),
    "aten.dropout.default": (2, "train", False),
    "aten.feature_dropout.default": (2, "train", False),
    "aten.native_dropout.default": (2, "train", True),
    "aten._native_batch_norm_legit.default": (5, "training", False),
    "aten._native_batch_norm_legit_functional.default": (5, "training", False),
    "torch.nn.functional.dropout": (2, "training", True),
    "torch.nn.functional.dropout2d": (2, "training", True),
    "torch.nn.functional.batch_norm": (5, "training", False),
}


def training_node(graph: torch.fx.Graph) -> str | None:
    """The name of an operation that a graph runs as in training whatever mode its module is in, if there is one."""
    for node in graph.nodes:
        function = f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', '')}"
        found = _TRAINING.get(str(node.target)) or _TRAINING.get(function)
        if found is not None:
            position, name, default = found
            if node.args[position] if len(node.args) > position else node.kwargs.get(name, default):
                return str(node.name)
    return None


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``, which share its weights."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrap(model.module)
    return _uncompiled(model)


def _uncompiled(module: nn.Module) -> nn.Module:
    while not isinstance(module, torch.jit.ScriptModule) and isinstance(inner := module._modules.get("_orig_mod"), nn.Module):
        module = inner
    return module


def modules_of(model: nn.Module) -> dict[nn.Module, str]:
    """``model`` and every module registered in it, each once, with its name: as ``named_modules``, in a tenth of the time."""
    found: dict[nn.Module, str] = {}
    stack: list[tuple[nn.Module | None, str]] = [(model, "")]
    while stack:
        module, name = stack.pop()
        if module is not None and module not in found:
            found[module] = name
            prefix = f"{name}." if name else ""
            stack.extend([(child, prefix + key) for key, child in module._modules.items()][::-1])
    return found


def replicate(model: nn.Module) -> nn.Module:
    """A replica of ``model`` in evaluation mode that shares its weights; modules are named as in ``unwrap(model)``.

    Raises:
        ModelError: the model has lazy parameters that no forward pass has given a shape, or is a graph made in training mode.
    """
    original = unwrap(model)
    modules = modules_of(original)
    for part in modules:
        if isinstance(part, torch.fx.GraphModule) and (name := training_node(part.graph)):
            raise ModelError(
                f"the graph of this model runs {name!r} as in training, whatever mode it is in; "
                "trace or export it after model.eval()"
            )
    memo: dict[int, Any] = {}
    owned: list[Owned] = []
    _collect([original], memo, owned)
    for replica, state in owned:
        _fill(replica, state, memo)
    for module in modules:
        if not isinstance(module, torch.jit.ScriptModule):
            memo[id(module)].__dict__["training"] = False
    result: nn.Module = memo[id(original)]
    return result


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
                for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                    if tensor is not None:
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

#: A replica still empty, and what its original held when it was met, which is held with it: an id means something no longer.
Owned: TypeAlias = "tuple[Any, Any]"

# A network holds thousands of objects, and each call meets them all: those that own nothing are told by their type.
_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size})
_CONTAINERS = frozenset({dict, OrderedDict, list, set})
_MUTABLE, _IMMUTABLE = (dict, list, deque, set), (tuple, frozenset)


def _collect(values: Iterable[Any], memo: dict[int, Any], owned: list[Owned]) -> None:
    """Give everything mutable that ``values`` own a replica in ``memo``; those still to be filled go to ``owned``."""
    for value in values:
        kind = type(value)
        if kind in _PLAIN or id(value) in memo:
            continue
        if kind in _CONTAINERS and not value:  # hooks, as a rule
            memo[id(value)] = kind()
        elif isinstance(value, nn.Module):
            _collect_module(value, memo, owned)
        elif isinstance(value, Tensor):
            memo[id(value)] = _tensor(value)
        elif isinstance(value, _MUTABLE) and (empty := _empty(value)) is not None:
            memo[id(value)] = empty
            state = dict(value.items()) if isinstance(value, dict) else list(value)
            owned.append((empty, state))
            _collect(state, memo, owned)
            if isinstance(state, dict):
                _collect(state.values(), memo, owned)
        elif isinstance(value, _IMMUTABLE) and not _PLAIN.issuperset(map(type, value)):
            _collect(value, memo, owned)


def _collect_module(module: nn.Module, memo: dict[int, Any], owned: list[Owned]) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        # not made of Python objects: a copy of the whole, weights included, is the only private one
        memo[id(module)] = copy.deepcopy(module).eval() if getattr(module, "training", False) else module
    elif (inner := _uncompiled(module)) is not module:
        _collect([inner], memo, owned)
        memo[id(module)] = memo[id(inner)]
    else:
        # some modules, FX graphs among them, make a new class in their own __new__
        memo[id(module)] = object.__new__(type(module))
        state = vars(module).copy()
        owned.append((memo[id(module)], state))
        _collect(state.values(), memo, owned)


def _empty(container: Any) -> Any:
    """A new container of the same kind, without its items; None if it refuses to be emptied, being immutable."""
    if type(container) in _CONTAINERS:
        return type(container)()
    try:
        empty = copy.copy(container)
        empty.clear()
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError):
        return None
    return empty


def _tensor(tensor: Tensor) -> Tensor:
    """A parameter that needs no gradient, over the same memory, or a copy; with the attributes that somebody hung on it."""
    if torch.nn.parameter.is_lazy(tensor):
        raise ModelError("the model has lazy parameters without a shape; run it once on an example before explaining it")
    if not isinstance(tensor, nn.Parameter):
        replica = (tensor.detach() if tensor.requires_grad else tensor).clone()
    else:  # one made under inference_mode cannot be saved for a backward pass
        data = tensor.detach().clone() if tensor.is_inference() else tensor
        replica = torch.Tensor._make_subclass(type(tensor), data, False)  # detached
    if tensor.__dict__:
        vars(replica).update(tensor.__dict__)
    return replica


def _fill(replica: Any, state: Any, memo: dict[int, Any]) -> None:
    exchanged = _exchange_all(state.values() if isinstance(state, dict) else state, memo)
    if isinstance(replica, nn.Module):
        vars(replica).update(zip(state, exchanged, strict=True))
        vars(replica).update(_backward_hooks=OrderedDict(), _backward_pre_hooks=OrderedDict(), _compiled_call_impl=None)
    elif isinstance(replica, dict):
        for key, item in zip(_exchange_all(state, memo), exchanged, strict=True):
            replica[key] = item
    else:
        (replica.update if isinstance(replica, set) else replica.extend)(exchanged)


# --- What refers to something owned refers to its replica ------------------------------------------------------------------


def _exchange_all(values: Iterable[Any], memo: dict[int, Any]) -> list[Any]:
    return [v if type(v) in _PLAIN else memo[id(v)] if id(v) in memo else _exchange(v, memo) for v in values]


def _exchange(value: Any, memo: dict[int, Any]) -> Any:
    """The replica of ``value``, or ``value`` with what it refers to exchanged; itself where it refers to nothing owned."""
    if id(value) in memo:
        return memo[id(value)]
    exchanged = value
    if isinstance(value, _IMMUTABLE):
        items = _exchange_all(value, memo)
        if any(map(operator.is_not, items, value)):
            exchanged = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    elif isinstance(value, types.MethodType):
        exchanged = types.MethodType(_exchange(value.__func__, memo), _exchange(value.__self__, memo))
    elif isinstance(value, functools.partial):
        keywords = {key: _exchange(item, memo) for key, item in value.keywords.items()}
        exchanged = functools.partial(_exchange(value.func, memo), *_exchange(value.args, memo), **keywords)
    elif isinstance(value, types.FunctionType):
        exchanged = _exchange_function(value, memo)
    elif isinstance(value, types.BuiltinMethodType) and id(value.__self__) in memo:
        exchanged = getattr(memo[id(value.__self__)], value.__name__)
    elif isinstance(value, weakref.WeakMethod) and (method := value()) is not None:
        exchanged = weakref.WeakMethod(_exchange(method, memo)) if id(method.__self__) in memo else value
    elif type(value) is weakref.ref and id(value()) in memo:
        exchanged = weakref.ref(memo[id(value())])
    return exchanged


def _exchange_function(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    """The function over the replicas of what its closure and defaults hold; itself where they hold nothing owned."""
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
