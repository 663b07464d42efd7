"""Activations: how the probabilities of a network follow from its scores.

A network is asked what its scores are, or its autograd graph is; the values of a batch never decide.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from relume.errors import InputError

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Quantity",
    "Resolved",
    "activated",
    "check_activation",
    "how_to_name",
    "last_activation",
    "resolve_activation",
]

#: ``softmax``: one class is true; ``sigmoid``: each class may be; ``none``: the scores are taken as they are.
Resolved: TypeAlias = Literal["softmax", "sigmoid", "none"]

#: ``auto``: what the network is known for, else what its graph shows, else ``none``.
Activation: TypeAlias = Literal["auto", "softmax", "sigmoid", "none"]

#: The number that a class is shown with.
Quantity: TypeAlias = Literal["probability", "score"]

ACTIVATIONS: tuple[Activation, ...] = ("auto", "softmax", "sigmoid", "none")

_ENDS = {"SoftmaxBackward0": "softmax", "LogSoftmaxBackward0": "log-softmax", "SigmoidBackward0": "sigmoid"}

#: Operations that move values and neither change nor mix them, without their numbers. They keep the order of the axes.
_MOVES = frozenset({
    "Alias", "Clone", "Expand", "Index", "IndexSelect", "ReshapeAlias", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze",
    "ToCopy", "Unbind", "UnsafeView", "Unsqueeze", "View",
})  # fmt: skip
#: These do not.
_TURNS = frozenset({"Permute", "T", "Transpose"})


def check_activation(activation: object) -> None:
    """Refuse what is no activation.

    Raises:
        InputError: it is none of :data:`ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise InputError(f"activation is {', '.join(map(repr, ACTIVATIONS[:-1]))} or {ACTIVATIONS[-1]!r}; got {activation!r}")


def how_to_name(option: str, classes: int) -> str:
    """Say how the scores of so many ``classes`` can be named; ``option`` is how an activation is given, ``--activation {}``."""
    softmax, sigmoid = option.format("softmax"), option.format("sigmoid")
    if classes < 2:
        return f"a score, not a probability: {sigmoid} makes it one, if the network answers yes or no"
    return f"scores, not probabilities: {softmax} (one class is true) or {sigmoid} (each may be) says what they are"


def activated(scores: Tensor, activation: Resolved) -> Tensor:
    """Apply ``activation`` to scores ``(..., classes)``: softmax over the classes, sigmoid, or nothing."""
    if activation == "softmax":
        return scores.softmax(-1)
    return scores.sigmoid() if activation == "sigmoid" else scores


def resolve_activation(activation: Activation, scores: Tensor) -> tuple[Resolved, bool | None]:
    """Decide how probabilities follow from ``scores``, and whether they are probabilities already.

    Args:
        activation: what the user or the source of the network says.
        scores: as the network returned them, with their graph, ``(N, classes)``; of any other shape they are no class scores.

    Returns:
        The activation that is left to apply; and True if the graph shows that one ran already, None if nothing tells what the
        scores are, else False.

    Raises:
        InputError: the graph shows another activation than the one that was given.
    """
    if scores.ndim != 2:
        return "none", None
    last = last_activation(scores)
    if activation in ("softmax", "sigmoid") and last is not None and activation != last.removeprefix("log-"):
        raise InputError(
            f"activation={activation!r} was given, and the network ends in a {last}; "
            f"give {last.removeprefix('log-')!r}, or leave it out"
        )
    if last in ("softmax", "sigmoid"):
        return "none", True
    if activation == "auto":
        return ("none", None) if last is None else ("softmax", False)
    # the softmax of one score is 1 whatever the score
    return ("none" if activation == "softmax" and scores.shape[1] < 2 else activation), False


def last_activation(scores: Tensor) -> str | None:
    """Find in the graph of ``scores`` ``(N, classes)`` the softmax, log-softmax or sigmoid that made them all, if one did."""
    node, turned = scores.grad_fn, False
    while node is not None and (end := _ENDS.get(node.name())) is None:
        kind = node.name().rstrip("0123456789").removesuffix("Backward")
        if kind not in _MOVES | _TURNS:
            return None
        turned = turned or kind in _TURNS
        node = node.next_functions[0][0]
    if node is None:
        return None
    return end if end == "sigmoid" or (not turned and _over_classes(node, scores.shape)) else None


def _over_classes(node: Node, shape: torch.Size) -> bool:
    """Tell whether a softmax ran over the classes of scores of this ``shape``, of which none was left out afterwards."""
    # read in torch 2.13: the metadata is of what the operation returned, and a dimension counted from the end is unsigned
    of = tuple(node._input_metadata[0].shape)
    dim: int = node._saved_dim  # type: ignore[attr-defined]
    dim = dim - 2**64 + len(of) if dim >= 2**63 else dim
    classes = shape[-1]
    return classes > 1 and of[dim] == classes and all(size == 1 for size in of[dim + 1 :])
