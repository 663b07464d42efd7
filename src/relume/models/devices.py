"""Devices: found by name, and networks moved to them."""

from __future__ import annotations

import re

import torch
from torch import nn

from relume.engine.inputs import model_device
from relume.engine.out_of_memory import out_of_memory
from relume.errors import ModelError

__all__ = ["find_device", "move"]


def find_device(device: str | torch.device = "auto") -> torch.device:
    """Find the device of this name: ``auto`` is CUDA where there is one, else Apple's MPS, else the CPU.

    Raises:
        ModelError: it is no name of a device, or this machine has no such device.

    Example:
        >>> from relume.models.devices import find_device
        >>> find_device("cpu")
        device(type='cpu')
    """
    devices = _devices()
    if device == "auto":
        return torch.device(devices[-1])
    if isinstance(device, torch.device) and device.type not in ("cuda", "mps"):
        return device
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps(:0)?", str(device)):
        raise ModelError(f"a device is auto, cpu, cuda, cuda:NUMBER or mps; got {device!s:.80}, and {_has(devices)}")
    name = {"cuda": "cuda:0", "mps:0": "mps"}.get(str(device), str(device))
    if name not in devices:
        raise ModelError(f"there is no device {str(device)!r} here: {_has(devices)}; name one of these, or auto")
    return torch.device(device)


def _devices() -> list[str]:
    """List the devices of this machine that torch can use, the one to prefer last."""
    devices = ["cpu"]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.cuda.is_available():
        devices += [f"cuda:{number}" for number in reversed(range(torch.cuda.device_count()))]
    return devices


def _has(devices: list[str]) -> str:
    """Say which devices torch sees."""
    return f"torch {torch.__version__} sees {', '.join(devices)}"


def move(model: nn.Module, device: str | torch.device, name: str) -> nn.Module:
    """Move ``model`` to ``device``; with ``auto``, a network that is not on the CPU stays where it is.

    Raises:
        ModelError: there is no such device, or the network does not fit into its memory.
    """
    place, now = find_device(device), model_device(model)
    if now == place or (device == "auto" and (now is None or now.type != "cpu")):
        return model
    try:
        return model.to(place)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ModelError(f"{name} does not fit into the memory of {place}; give another device, such as cpu") from error
