"""Graphs that were recorded, by torch.fx, torch.export or torch.jit.trace, and what in them is fixed as in training.

A recorded graph has no mode: an operation does what it did when the graph was made. Which operations drop, draw or normalise
by the batch is read from torch's own schemas, whose arguments have the same names everywhere, and not from a list of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["is_runnable", "traced_in_training", "training_node"]

#: What an argument is called that says that something happens in training, and one that says how much is dropped then.
_MODES, _RATES = ("training", "train", "use_input_stats"), ("dropout_p", "dropout", "drop_prob", "p")
#: Functions that draw at random, and normalise by the batch, without an argument that says so.
_ALWAYS = (F.gumbel_softmax, F.fractional_max_pool2d_with_indices, F.fractional_max_pool3d_with_indices)
_UPDATING = "_batch_norm_with_update"
#: An argument that TorchScript finds out as it runs.
_OPEN = object()


# graph modules that an interpreter can run as they run themselves: plain ones, and those of torch.export
_RUNNABLE = (torch.fx.graph.CodeGen, torch.fx.graph._PyTreeCodeGen)


def is_runnable(module: torch.fx.GraphModule) -> bool:
    """Tell whether a graph module can be run node by node."""
    return type(module.graph._codegen) in _RUNNABLE


def training_node(graph: torch.fx.Graph) -> str | None:
    """Name an operation that a graph runs as in training whatever mode its module is in, if there is one."""
    return next((str(node.name) for node in graph.nodes if _trains(node)), None)


def traced_in_training(module: torch.jit.ScriptModule) -> str | None:
    """Name an operation that a TorchScript module runs as in training whatever mode it is in, if there is one.

    A traced module has its modes as constants; a scripted one reads them from itself, and has them in branches.
    """
    try:
        graph = module.inlined_graph
    except (AttributeError, RuntimeError):  # it has no forward
        return None
    return next((node.kind().rpartition(":")[2] for node in _certain(graph.nodes()) if _traced_trains(node)), None)


def _certain(nodes: Iterable[Any]) -> Iterator[Any]:
    """Walk those of TorchScript's nodes that run in any case."""
    for node in nodes:
        yield node
        if node.kind() == "prim::If":
            condition = _constant(node.inputsAt(0))
            taken = [] if condition is _OPEN else [list(node.blocks())[0 if condition else 1]]
        else:
            taken = list(node.blocks())
        for block in taken:
            yield from _certain(block.nodes())


def _constant(value: Any) -> Any:
    return value.toIValue() if value.node().kind() == "prim::Constant" else _OPEN


def _traced_trains(node: Any) -> bool:
    overload = _declared(node.schema()) if node.kind().startswith("aten::") else None
    if overload is None:
        return False
    names = [argument.name for argument in overload._schema.arguments]
    given = dict(zip(names, map(_constant, node.inputs()), strict=False))
    return not any(given.get(name) is _OPEN for name in (*_MODES, "dropout_p")) and _operation_trains(overload, given)


@functools.cache  # there are no more than torch has operations
def _declared(schema: str) -> Any:
    """Find the operation that a schema is of, if torch has it."""
    try:
        parsed = torch._C.parse_schema(schema)
    except RuntimeError:
        return None
    packet = getattr(torch.ops.aten, parsed.name.removeprefix("aten::"), None)
    return getattr(packet, parsed.overload_name or "default", None)


def _trains(node: torch.fx.Node) -> bool:
    if node.op not in ("call_function", "call_method"):
        return False
    overloads = list(_overloads(node))
    if not overloads:
        return node.op == "call_function" and _python_trains(node.target, node.args, node.kwargs)
    fitting = [(overload, given) for overload in overloads if (given := _bound(overload, node.args, node.kwargs)) is not None]
    return any(_operation_trains(overload, given) for overload, given in fitting)


def _overloads(node: torch.fx.Node) -> Iterator[Any]:
    """List the operations of torch that a node may stand for: those of one name have several signatures."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        yield target
        return
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    places = (Tensor,) if isinstance(target, str) else (torch, torch._C._nn, torch._VF, Tensor)
    packet = target
    if not isinstance(target, torch._ops.OpOverloadPacket):
        written_in_python = inspect.isfunction(target)
        known = not written_in_python and any(name and hasattr(place, name) for place in places)
        packet = getattr(torch.ops.aten, name, None) if known else None
    if isinstance(packet, torch._ops.OpOverloadPacket):
        overloads: list[str] = packet.overloads()  # type: ignore[no-untyped-call]
        yield from (getattr(packet, overload) for overload in overloads)


def _bound(overload: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the arguments of a call by name, defaults included; None where they are not those of this signature."""
    declared = overload._schema.arguments
    given = {argument.name: argument.default_value for argument in declared if argument.has_default_value()}
    given |= dict(zip((argument.name for argument in declared), args, strict=False)) | dict(kwargs)
    # signatures of one name differ in where they have their flags
    flags = [(argument.name, str(argument.type) in ("bool", "Optional[bool]")) for argument in declared]
    misplaced = any(isinstance(given.get(name), bool) and not flag for name, flag in flags)
    return None if misplaced or len(args) > len(declared) else given


def _operation_trains(overload: Any, given: Mapping[str, Any]) -> bool:
    if overload._schema.name.rpartition(":")[2].startswith(_UPDATING):
        return True
    draws = torch.Tag.nondeterministic_seeded in overload.tags
    mode = next((name for name in _MODES if name in given), None)
    if "momentum" in given:  # without statistics of the data it takes those of the batch in evaluation too
        return mode is not None and bool(given[mode]) and given.get("running_mean") is not None
    rate = next((name for name in _RATES if name in given and (mode or name == "dropout_p")), None)
    if rate is not None and given[rate] in (0, None):
        return False
    return draws if mode is None else draws and given[mode] in (True, None)


def _python_trains(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if function in _ALWAYS:
        return True
    try:
        call = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return False
    call.apply_defaults()
    given = call.arguments
    mode = next((name for name in _MODES if name in given), None)
    rate = next((name for name in _RATES if name in given), None)
    if mode is None or not given[mode] or (rate is not None and given[rate] == 0):
        return False
    return "running_mean" not in given or given["running_mean"] is not None
