"""Whether an error says that memory ran out."""

import torch

__all__ = ["out_of_memory"]

# What errors of no class of their own say.
_SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "std::bad_alloc",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, of a device or of the machine, and nothing else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
