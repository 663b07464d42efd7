"""The private names of a tensor in torch: its version, its base, its memory, and the clone that copies only when written to.

Read in torch 2.13; ``tests/engine/test_torch_names.py`` says when one of them changes.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["is_view", "lazy_copy", "memory_key", "version"]


def version(tensor: Tensor | None) -> int:
    """Count how often a tensor was written to, as torch does; 0 for an inference tensor, whose writes nobody counts."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version


def is_view(tensor: Tensor) -> bool:
    """Tell whether a tensor is a view in autograd's sense: a write into it changes what it is a view of."""
    return tensor._is_view()


def lazy_copy(tensor: Tensor) -> Tensor:
    """Clone a tensor, copying memory only when one of the two is written to, where torch can do so."""
    try:
        return torch._lazy_clone(tensor)
    except (AttributeError, RuntimeError):  # not for memory that is not torch's own
        return tensor.clone()


def memory_key(storage: torch.UntypedStorage) -> int:
    """Name the memory of a storage; views of it have the same name while it is held."""
    return int(storage._cdata)
