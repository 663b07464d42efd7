"""Torch's elementwise operations, by their names and by those of their nodes in a graph."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.autograd.graph import Node

__all__ = ["AFFINE", "IDENTITIES", "REARRANGING", "is_elementwise", "made_by", "name_of", "operation_of"]

#: Operations that hand values on.
IDENTITIES = frozenset(
    {"_lazy_clone", "_to_copy", "_unsafe_view", "alias", "clone", "detach", "expand", "lift_fresh", "permute", "view"}
)
#: Operations that do no more than scale, shift and add up.
AFFINE = IDENTITIES | {"add", "div", "mul", "neg", "rsub", "sub"}
#: Operations whose results have the origin of what they rearrange, but are no function of it place by place.
REARRANGING = frozenset(
    {"as_strided", "cat", "index", "index_put", "masked_scatter", "masked_select", "select", "slice", "squeeze", "stack"}
    | {"t", "transpose", "unsqueeze"}
)
# elementwise, though torch does not mark them so
_UNMARKED = IDENTITIES | {"_prelu_kernel", "fill", "hardswish", "log_sigmoid_forward"}


@functools.cache
def name_of(function: Any) -> str:
    """Return the name of an operation, the same for all its overloads and in place."""
    return str(function.overloadpacket.__name__).removesuffix("_")


@functools.cache
def is_elementwise(function: Any) -> bool:
    """Tell whether each place of the result depends on that place of the operands alone."""
    name, overload = name_of(function), function._overloadname
    tags = {*function.tags, *getattr(getattr(torch.ops.aten, name, None), overload, function).tags}  # in place, it has none
    return (torch.Tag.pointwise in tags or name in _UNMARKED) and torch.Tag.nondeterministic_seeded not in tags


@functools.cache
def operation_of(name: str) -> str | None:
    """Find the elementwise operation whose nodes have this name, such as "MulBackward0"; None if there is none."""
    words = name.rpartition("Backward")[0]
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in words).removeprefix("_")
    for candidate in (snake, f"_{snake}", snake.replace("_", ""), f"{snake}_forward") if snake else ():
        packet = getattr(torch.ops.aten, candidate, None)
        if packet is not None and any(is_elementwise(getattr(packet, overload)) for overload in packet.overloads()):
            return candidate
    return None


def made_by(node: Node, function: Any) -> bool:
    """Tell whether a node belongs to the operation, and not to a function that somebody wrote around it."""
    return node.name().rpartition("Backward")[0].lower() == name_of(function).replace("_", "").removesuffix("forward")
