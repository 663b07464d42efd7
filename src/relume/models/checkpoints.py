"""Checkpoints: files of weights, read without executing anything in them, and loaded only where every key fits."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relume.errors import ModelError

__all__ = ["Checkpoint", "archive_kind", "check_file", "load_weights", "read_checkpoint"]

#: The names under which training scripts keep the moving average of the weights, which they evaluate with.
EMA = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")

#: The names under which they keep the weights themselves; tried in this order, after the moving average.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net")

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


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The named tensors of a file.

    Attributes:
        path: the file.
        tensors: the tensors by name.
        notes: where in the file they were found, in words.
    """

    path: Path
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()

    def load_into(self, model: nn.Module, name: str) -> tuple[str, ...]:
        """Load the tensors into ``model``, which errors call ``name``, and return notes of where they were found.

        Raises:
            ModelError: the tensors do not fit.
        """
        return self.notes + load_weights(model, self.tensors, name, self.path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``path``: safetensors by its suffix, else a torch checkpoint read with ``weights_only=True``.

    Raises:
        ModelError: the file is missing, unreadable, damaged, or holds something else than named tensors.
    """
    check_file(path, "weights file")
    if (kind := archive_kind(path)) != "checkpoint":
        archive = "a TorchScript archive" if kind == "torchscript" else "an exported program"
        raise ModelError(f"{str(path)!r} is {archive}, a network with its weights; give it as the model itself")
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(path, load_file(path))
        # the arguments of a training script, which many keep beside the weights: a bag of attributes without a code of its own
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{str(path)!r} is not a checkpoint of plain tensors, or is damaged; save the network's state_dict() "
            "(nothing else in it is executed)"
        ) from error
    except _UNREADABLE as error:
        format_ = "safetensors file" if path.suffix == ".safetensors" else "torch checkpoint"
        raise ModelError(f"the weights file {str(path)!r} cannot be read: it is no {format_}, or is damaged") from error
    tensors, notes = _unwrapped(content)
    if tensors is None:
        known = ", ".join(repr(key) for key in (*WRAPPERS[:3], *EMA[:2]))
        raise ModelError(f"{str(path)!r} holds no named tensors, neither at its top level nor under {known}; save state_dict()")
    return Checkpoint(path, dict(tensors), notes)


def check_file(path: Path, kind: str) -> None:
    """Refuse a path that is no file with something in it; ``kind`` is the word for the file, such as "weights file".

    Raises:
        ModelError: nothing is there, it is a folder or a pipe, it may not be read, or it is empty.
    """
    name = f"the {kind} {str(path)!r}"
    try:
        if path.is_dir():
            hint = f"; it may be a network of transformers: --model hf:{path}" if (path / "config.json").is_file() else ""
            raise ModelError(f"{name} is a folder; name a file in it{hint}")
        if path.exists() and not path.is_file():
            raise ModelError(f"{name} is a pipe or a device; name a file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise ModelError(f"there is no {kind} {str(path)!r}; check the path") from None
    except PermissionError:
        raise ModelError(f"{name} cannot be read: you have no permission to; change its permissions, or copy it") from None
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}; check the path") from error
    if empty:
        raise ModelError(f"{name} is empty; it may have been cut short: copy or download it again")


def archive_kind(path: Path) -> Literal["torchscript", "exported", "checkpoint"]:
    """Tell by the content of a file if it is a TorchScript archive, an exported program, or else a checkpoint."""
    if not zipfile.is_zipfile(path):
        return "checkpoint"
    try:
        with zipfile.ZipFile(path) as archive:
            # everything lies in one folder, which is named after the file
            inside = {name.partition("/")[2] for name in archive.namelist()} | set(archive.namelist())
    except zipfile.BadZipFile:
        return "checkpoint"
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return "torchscript"
    if "archive_format" in inside or "serialized_exported_program.json" in inside:
        return "exported"
    return "checkpoint"


def _unwrapped(content: Any, depth: int = 2) -> tuple[Mapping[str, Tensor] | None, tuple[str, ...]]:
    """Find the named tensors in what a training script saved, and say where they were."""
    if not isinstance(content, Mapping) or not content or depth < 0:
        return None, ()
    if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return content, ()
    for key in (*EMA, *WRAPPERS):
        tensors, notes = _unwrapped(content.get(key), depth - 1)
        if tensors is not None:
            beside = next((other for other in WRAPPERS if _unwrapped(content.get(other), depth - 1)[0] is not None), None)
            if key not in EMA:
                note = f"read the weights under {key!r}"
            elif beside is None:
                note = f"used the EMA weights under {key!r}"
            else:
                note = f"used the EMA weights under {key!r}, and not those under {beside!r}"
            return tensors, (note, *notes)
    return None, ()


def load_weights(model: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> tuple[str, ...]:
    """Load ``state`` into ``model``, where every key and shape fits; other floating-point types are cast.

    A prefix that all keys share is removed if they fit without it, and a note of it returned.

    Raises:
        ModelError: keys are missing, left over, of another shape or no floats; the message names them.
    """
    wanted = model.state_dict()
    state, notes = _without_prefix(state, wanted)
    missing, extra = _difference(state, wanted)
    misfits = [
        f"{k} {tuple(state[k].shape)} for {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    integers = [k for k in wanted if k in state and wanted[k].is_floating_point() and not state[k].is_floating_point()]
    if missing or extra or misfits or integers:
        misfits_by_kind = {
            "missing": missing,
            "not in the network": extra,
            "of another shape": misfits,
            "with integers for floats": integers,
        }
        raise ModelError(
            f"the weights in {str(path)!r} do not fit {name}: "
            + "; ".join(f"{len(keys)} {kind} ({_few(keys)})" for kind, keys in misfits_by_kind.items() if keys)
        )
    model.load_state_dict(state, strict=False)
    return notes


def _without_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Remove the prefix that keeps all keys of ``state`` from fitting, if they then fit, and return a note of it.

    torch's ``AveragedModel`` counts its steps in ``n_averaged`` beside the network in ``module``.
    """
    stripped = {key: tensor for key, tensor in state.items() if key != "n_averaged" or key in wanted}
    removed = ""
    while stripped and any(_difference(stripped, wanted)):
        first = next(iter(stripped)).partition(".")[0] + "."
        if not all(key.startswith(first) for key in stripped):
            return state, ()
        stripped = {key.removeprefix(first): tensor for key, tensor in stripped.items()}
        removed += first
    return (stripped, (f"removed the prefix {removed!r}",)) if removed else (state, ())


def _difference(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """List the keys that ``state`` lacks, and those that are too many."""
    # BatchNorm's batch counter is absent from old checkpoints and has no effect in evaluation mode
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    return missing, [k for k in state if k not in wanted]


def _few(keys: Sequence[str]) -> str:
    """Write the first keys of a list."""
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
