"""Which process a temporary folder belongs to, and whether it is gone."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["is_gone", "prefix"]

_NAME = re.compile(r"\.relume-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>[0-9a-f]+)-\w+")
_PROC, _WINDOWS = Path("/proc/self/stat").exists(), os.name == "nt"
_UNKNOWN = "0"  # the start of a process, where the system does not tell


def prefix() -> str:
    """Return how the name of a temporary folder of this process begins."""
    pid = os.getpid()
    return f".relume-{_host()}-{pid}-{_start(pid) or _UNKNOWN}-"


def is_gone(name: str) -> bool:
    """Tell whether the process that a folder's name names has ended; False where that cannot be known.

    A process is known by its number and the moment it began. Another host or container, whose numbers mean others, is never
    judged.
    """
    found = _NAME.fullmatch(name)
    if found is None or found["host"] != _host():
        return False
    pid, start = int(found["pid"]), found["start"]
    if _PROC:
        return start not in (_UNKNOWN, _start(pid))
    if _WINDOWS:  # where os.kill would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _start(pid: int) -> str | None:
    """Return when a process began, in hexadecimal: the boot and its ticks; None if it has ended, or there is no ``/proc``."""
    try:
        # the name of the program, in brackets, may hold anything
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return None if state in "ZX" else f"{boot}{int(fields[18]):x}"  # a zombie writes nothing more
    except (OSError, ValueError, IndexError):
        return None


@functools.cache
def _host() -> str:
    """Return a mark of the machine, and of the container on it, within which a process is known by its number."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
