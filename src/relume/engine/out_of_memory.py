"""Errors that say that memory ran out."""

import torch

__all__ = ["out_of_memory"]

# What errors of no class of their own say.
_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "std::bad_alloc",
)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` says that memory ran out, of a device or of the machine, and nothing else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
