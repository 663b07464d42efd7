"""Torch's operations as formulas need them: which are elementwise, by their names and by those of their nodes in a graph."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Operation", "elementwise_operation", "operation_of"]

_IDENTITIES = frozenset(
    {"_lazy_clone", "_to_copy", "_unsafe_view", "alias", "clone", "detach", "expand", "lift_fresh", "permute", "view"}
)
_AFFINE = _IDENTITIES | {"add", "div", "mul", "neg", "rsub", "sub"}
# elementwise, though torch does not mark them so
_UNMARKED = _IDENTITIES | {"_prelu_kernel", "fill", "hardswish", "log_sigmoid_forward"}
_REARRANGING = frozenset(
    {"as_strided", "index", "index_put", "masked_scatter", "masked_select", "select", "slice", "squeeze"}
    | {"t", "transpose", "unsqueeze"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """An operation of torch.

    Attributes:
        function: runs it.
        name: its name, the same for all its overloads and in place.
        elementwise: each place of the result depends on that place of the operands alone.
        rearranging: the result has the origin of its operands, but is no function of them place by place.
        affine: it does no more than scale, shift and add up.
        identity: it hands values on.
        creating: the result does not depend on the values of the operands.
        writing: it writes into its first operand.
    """

    function: Any
    name: str
    elementwise: bool
    rearranging: bool
    affine: bool
    identity: bool
    creating: bool
    writing: bool


@functools.cache
def operation_of(function: Any) -> Operation:
    """Describe the operation that ``function``, an overload of it, runs."""
    name = str(function.overloadpacket.__name__).removesuffix("_")
    out_of_place = getattr(getattr(torch.ops.aten, name, None), function._overloadname, function)
    tags = {*function.tags, *out_of_place.tags}  # in place, it has not all of them
    marked = torch.Tag.pointwise in tags or name in _UNMARKED
    return Operation(
        function=function,
        name=name,
        elementwise=marked and torch.Tag.nondeterministic_seeded not in tags,
        rearranging=name in _REARRANGING,
        affine=name in _AFFINE,
        identity=name in _IDENTITIES,
        creating=name.endswith("_like") or name.startswith("new_"),
        writing=bool(function._schema.is_mutable),
    )


@functools.cache
def elementwise_operation(node_name: str) -> Operation | None:
    """Find the elementwise operation whose nodes have this name, such as "MulBackward0"; None if there is none."""
    words = node_name.rpartition("Backward")[0]
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in words).removeprefix("_")
    for name in (snake, f"_{snake}", snake.replace("_", ""), f"{snake}_forward") if snake else ():
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            if (operation := operation_of(getattr(packet, overload))).elementwise:
                return operation
    return None
