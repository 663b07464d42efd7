"""Graphs that were recorded, by torch.fx or torch.export, and what in them is fixed as in training."""

from __future__ import annotations

import torch

__all__ = ["training_node"]

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
