"""Tensors in nested lists, tuples and dictionaries: torch's own functions, whose module has a private name (torch 2.13)."""

from torch.utils._pytree import tree_iter, tree_leaves, tree_map_only

__all__ = ["tree_iter", "tree_leaves", "tree_map_only"]
