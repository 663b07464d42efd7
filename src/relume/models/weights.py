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
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"the weights file {str(path)!r} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{str(path)!r} holds no named tensors at its top level; save the network's state_dict()")
    return dict(state)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """Load ``state`` into ``model``, every key and shape fitting; other dtypes are cast.

    Raises:
        ModelError: keys are missing, left over, or of another shape; the message names them.
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
    if missing or extra or misfits:
        found = (("missing", missing), ("not in the network", extra), ("of another shape", misfits))
        raise ModelError(
            f"the weights in {str(path)!r} do not fit {name}: "
            + "; ".join(f"{len(keys)} {what} ({_few(keys)})" for what, keys in found if keys)
        )
    model.load_state_dict(state, strict=False)


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
