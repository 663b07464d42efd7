"""What the machine is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import torch

__all__ = ["machine"]

CPUINFO = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, str | int | float | bool]:
    """Describe the processor, the device, and how many threads compute."""
    info = CPUINFO.read_text() if CPUINFO.is_file() else ""
    fields = dict(line.replace("\t", "").split(": ", 1) for line in info.splitlines() if ": " in line)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "avx512_bf16": "avx512_bf16" in fields.get("flags", "").split(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
