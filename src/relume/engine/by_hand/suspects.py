"""Suspects: the nodes that may be part of a rectifier written by hand, which is all that a graph alone tells."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from relume.engine.by_hand.operations import elementwise_operation
from relume.engine.by_hand.steps import Value
from relume.engine.rectifiers import is_of_torchvision, rectifier_of
from relume.engine.saved_tensors import Saved

__all__ = ["is_known", "remember", "suspects"]

# nodes that may rectify alone, beside a constant or by a mask
_ALONE = frozenset(
    {"Copysign", "Fmin", "Hypot", "IndexPut", "LogSigmoid", "Logaddexp", "MaskedFill", "MaskedScatter", "Minimum", "Where"}
)
# nodes that rearrange values; the tape tells whether two do so alike
_VIEWS = frozenset({f"{view}Backward0" for view in ("Select", "Slice", "Squeeze", "T", "Transpose", "Unsqueeze")})
# operations that turn what grows like an exponential into what grows like its input: log(1 + exp(x))
_FLATTENING = frozenset({"acosh", "asinh", "log", "log10", "log1p", "log2"})
# what they and products keep of their constants
_CONSTANTS = ("self", "other", "weight", "tensor1", "tensor2")


def suspects(nodes: Iterable[Node], begin: Node) -> Iterator[Node]:
    """Find the nodes that may end a rectifier written by hand, by their names and places.

    Args:
        nodes: the nodes of a graph, producers before consumers.
        begin: the node of the input; weights, which have no part in it, may have nodes too.
    """
    origins: dict[Value, Value] = {}
    bends: dict[Value, int] = {}
    behind = {begin}
    for node in nodes:
        name = node.name()
        if _is_greatest_of_stack(node, name):
            yield node
        operation = elementwise_operation(name)
        edges = [(source, i) for source, i in node.next_functions if source in behind]
        if edges:
            behind.add(node)
        begins = {origins.get(edge, edge) for edge in edges}
        if len(edges) == 1 and name in _VIEWS:
            origins[node, 0], bends[node, 0] = begins.pop(), bends.get(edges[0], 0)
            continue
        if operation is None or len(begins) != 1:
            if name in ("IndexPutBackward0", "MaskedScatterBackward0") and not _writes_regions(node):
                yield node
            continue
        before = max(bends.get(edge, 0) for edge in edges)
        joins, bent = len(edges) > 1, not operation.affine
        product = joins and operation.name in ("mul", "div")
        origins[node, 0], bends[node, 0] = begins.pop(), before + (bent or product)
        if rectifier_of(name, Saved(node)) is not None:
            continue
        if (joins and (before or bent)) or (before and operation.name in _FLATTENING) or _may_rectify_alone(node, name):
            yield node


def _writes_regions(node: Node) -> bool:
    """Tell whether what a node writes was pooled from regions of a map, as torchvision does for each scale."""
    source = node.next_functions[1][0]
    return source is not None and is_of_torchvision(source.name())


def _is_greatest_of_stack(node: Node, name: str) -> bool:
    """Tell whether a node takes the greatest of a value and of a constant stacked on it."""
    if not name.startswith(("AmaxBackward", "MaxBackward")):
        return False
    source = node.next_functions[0][0]
    return source is not None and source.name() == "StackBackward0" and any(s is None for s, _ in source.next_functions)


def _may_rectify_alone(node: Node, name: str) -> bool:
    """Tell whether a node may be a rectifier beside a constant, or by a mask."""
    kind = name.rpartition("Backward")[0]
    if kind in _ALONE:
        return True
    if kind in ("Clamp", "ClampMax"):
        saved = Saved(node)
        return getattr(saved, "_saved_min", None) is None and bool((torch.as_tensor(saved._saved_max) == 0).all())
    if kind not in ("Mul", "Lerp", "Addcmul") or all(source is not None for source, _ in node.next_functions):
        return False
    saved, shape = Saved(node), tuple(node._input_metadata[0].shape)
    constants = [getattr(saved, f"_saved_{constant}", None) for constant in _CONSTANTS]
    return any(isinstance(c, Tensor) and c.numel() > 1 and tuple(c.shape) == shape for c in constants)


_KNOWN: dict[int, weakref.ref[Any]] = {}  # by id, since a network may compare and hash itself in its own way


def is_known(model: Any) -> bool:
    """Tell whether suspects were found in a network before."""
    reference = _KNOWN.get(id(model))
    return reference is not None and reference() is model


def remember(model: Any) -> None:
    """Note that suspects were found in a network, so that it runs on a tape from the start, if it can be held weakly."""
    key = id(model)
    with suppress(TypeError):
        _KNOWN[key] = weakref.ref(model, lambda _: _KNOWN.pop(key, None))
