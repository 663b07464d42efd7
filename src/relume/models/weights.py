"""Checkpoints: read without executing anything in them, and load with the keys that do not fit named."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relume.errors import ModelError

__all__ = ["load_weights", "read_state"]

# Bytes that are no checkpoint are opcodes to an unpickler, which then fails in any of these ways.
_UNREADABLE = (
    SafetensorError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors by name in ``path``: safetensors by its suffix, else a torch checkpoint read with ``weights_only=True``.

    Raises:
        ModelError: the file is missing, damaged, or holds something else than named tensors.
    """
    if not path.is_file():
        raise ModelError(f"there is no weights file {str(path)!r}; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{str(path)!r} is not a checkpoint of plain tensors, or is damaged; save the network's state_dict() "
            "(nothing else in it is executed)"
        ) from error
    except _UNREADABLE as error:
        kind = "safetensors file" if path.suffix == ".safetensors" else "torch checkpoint"
        raise ModelError(f"the weights file {str(path)!r} cannot be read: it is no {kind}, or is damaged") from error
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ModelError(f"{str(path)!r} holds no named tensors at its top level; save the network's state_dict()")
    return dict(state)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """Load ``state`` into ``model``, every key and shape fitting; other dtypes are cast.

    Raises:
        ModelError: keys are missing, left over, of another shape or no floats; the message names them.
    """
    wanted = model.state_dict()
    # BatchNorm's batch counter is absent from old checkpoints and has no effect in evaluation mode
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in wanted]
    misfits = [
        f"{k} {tuple(state[k].shape)} for {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    integers = [k for k in wanted if k in state and wanted[k].is_floating_point() and not state[k].is_floating_point()]
    if missing or extra or misfits or integers:
        found = (
            ("missing", missing),
            ("not in the network", extra),
            ("of another shape", misfits),
            ("with integers for floats", integers),
        )
        raise ModelError(
            f"the weights in {str(path)!r} do not fit {name}: "
            + "; ".join(f"{len(keys)} {what} ({_few(keys)})" for what, keys in found if keys)
        )
    model.load_state_dict(state, strict=False)


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
