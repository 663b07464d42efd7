"""The process that a temporary folder belongs to, by the folder's name."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["is_gone", "is_here", "prefix"]

_NAME = re.compile(r"\.relume-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>[0-9a-f]+)-\w+")
_UNKNOWN = "0"  # the start of a process, where the system does not tell


def prefix() -> str:
    """Return the beginning of the names of temporary folders of this process."""
    pid = os.getpid()
    return f".relume-{_host()}-{pid}-{_start(pid) or _UNKNOWN}-"


def is_here(name: str) -> bool:
    """Tell whether the process in the name of a temporary folder is one of this machine and container."""
    parts = _NAME.fullmatch(name)
    return parts is not None and parts["host"] == _host()


def is_gone(name: str) -> bool:
    """Tell whether the process in the name of a temporary folder has ended; False where that cannot be known.

    A process is known by its number and the moment it began. Another host or container, whose numbers mean others, is never
    judged.
    """
    parts = _NAME.fullmatch(name)
    if parts is None or not is_here(name):
        return False
    pid = int(parts["pid"])
    start = _start(pid)
    if start is not None:
        return parts["start"] not in (_UNKNOWN, start)
    if os.name == "nt":  # where os.kill would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, which /proc may hide
        return False
    return False


def _start(pid: int) -> str | None:
    """Return when a process began, in hexadecimal: the boot and its ticks; None where the system does not tell.

    A zombie, which writes nothing more, is told apart from every process that can name a folder.
    """
    try:
        # the name of the program, in brackets, may hold anything
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return "ended" if state in "ZX" else f"{boot}{int(fields[18]):x}"
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
