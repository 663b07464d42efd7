"""Copies of what holds a state: tensors and NumPy arrays, which share memory as the originals do, and random states."""

from __future__ import annotations

import array
import copy
import io
import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from relume.engine.tensor_state import memory_key

__all__ = ["Held", "copies", "copy_of_state"]

Array: TypeAlias = "np.ndarray[Any, Any]"
Held: TypeAlias = "Tensor | Array"

_RANDOM = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)


def copies(held: Sequence[Held]) -> list[Held]:
    """Copy each, detached; a read-only array that shares memory with none of the others stays itself.

    What ``torch.from_numpy`` made is not seen to share memory.
    """
    memories = [_memory(each) for each in held]
    sharing: dict[int, int] = {}
    for _, key in memories:
        sharing[key] = sharing.get(key, 0) + 1
    made: dict[int, Any] = {}
    result: list[Held] = []
    for each, (memory, key) in zip(held, memories, strict=True):
        if memory is None or sharing[key] == 1:
            result.append(_alone(each))
            continue
        if key not in made:  # as bytes, and all of it
            made[key] = bytearray(memory.tobytes("A")) if isinstance(memory, np.ndarray) else _cloned(memory)
        result.append(_over(made[key], each, memory))
    return result


def _memory(each: Held) -> tuple[torch.UntypedStorage | Array | None, int]:
    """Find the memory that a tensor or array lies in, and what it is told by; None if it can only be copied alone."""
    root: Any = each
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    if isinstance(each, np.ndarray) and (type(each) is not np.ndarray or each.dtype.hasobject):
        return None, id(each)
    if isinstance(root, Tensor):
        plain = type(root) is Tensor and root.layout == torch.strided and not root.is_quantized
        if not plain or root.is_conj() or root.is_neg() or root.is_meta:
            return None, id(each)
        storage = root.untyped_storage()
        return storage, memory_key(storage)
    whole = isinstance(root, np.ndarray) and (root.flags.c_contiguous or root.flags.f_contiguous)
    return (root, id(root)) if whole else (None, id(each))


def _alone(each: Held) -> Held:
    if isinstance(each, np.ndarray):
        return each.copy() if each.flags.writeable else each
    return (each.detach() if each.requires_grad else each).clone()


def _cloned(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    copied: torch.UntypedStorage = storage.clone()  # type: ignore[no-untyped-call]
    return copied


def _over(copied: Any, each: Held, memory: Any) -> Held:
    """Make the same view of the memory's copy as ``each`` is of the memory."""
    if isinstance(each, Tensor):
        view = torch.empty(0, dtype=each.dtype, device=each.device)
        return view.set_(copied, each.storage_offset(), each.shape, each.stride())
    if isinstance(memory, np.ndarray):
        begins = memory.ctypes.data
    else:
        begins, copied = memory.data_ptr(), torch.empty(0, dtype=torch.uint8).set_(copied).numpy()
    offset = each.ctypes.data - begins
    made = np.ndarray(each.shape, each.dtype, copied, offset, each.strides)
    made.flags.writeable = each.flags.writeable
    return made


def copy_of_state(value: Any) -> Any:
    """Copy a random state, or what is no more than its bytes; None for anything else."""
    if type(value) in (bytearray, array.array):
        return value[:]
    if type(value) in (io.BytesIO, io.StringIO) and not value.closed:
        copied = type(value)(value.getvalue())
        copied.seek(value.tell())
        return copied
    if isinstance(value, torch.Generator):
        return value.clone_state()
    return copy.deepcopy(value) if isinstance(value, _RANDOM) and not isinstance(value, random.SystemRandom) else None
