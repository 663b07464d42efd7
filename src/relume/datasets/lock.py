"""The lock of a run's folder: no two processes do the same parts at once."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from relume.datasets.storage import Storage, storage_of
from relume.errors import InputError, OutputError, UnreachableError
from relume.pages.owner import is_gone, is_here, prefix

__all__ = ["locked"]

#: A process of another machine is taken to have ended after so many seconds without a sign of it.
SILENCE = 600

#: Seconds from one sign to the next.
SIGN = 60

#: The locks that this process holds now. One that it could not remove, since the server went away, is not among them.
_HELD: set[str] = set()

_LOCK = re.compile(r"\.relume-[0-9a-f]+-(?P<pid>\d+)-[0-9a-f]+-lock_(?P<number>\d+)_(?P<count>\d+)_\w+")


@contextmanager
def locked(place: str | Path | Storage, shard: tuple[int, int]) -> Iterator[Callable[[], None]]:
    """Hold the lock of one shard of a run, and give a function that shows that this process goes on: call it often.

    A lock is a file whose name says which process holds it, so one that was killed on this machine holds none.

    Args:
        place: the place of the run, which is made if there is none.
        shard: the number of the shard, from 1 on, and how many there are.

    Raises:
        InputError: another process does some of the same parts.
        OutputError: the place cannot be written to.

    Example:
        >>> from relume.datasets.lock import locked
        >>> from relume.datasets.storage import storage_of
        >>> with locked("memory://locks", (1, 2)), locked("memory://locks", (2, 2)):
        ...     len(storage_of("memory://locks").names())
        2
    """
    storage = storage_of(place)
    is_new = not storage.exists()
    lock, last = f"{prefix()}lock_{shard[0]}_{shard[1]}_{secrets.token_hex(4)}", time.monotonic()

    def still_there() -> None:
        nonlocal last
        if time.monotonic() - last > SIGN:
            last = time.monotonic()
            with suppress(OSError, UnreachableError):  # whatever is wrong there shows when a part is written
                storage.touch(lock)

    _HELD.add(lock)
    try:
        _touch(storage, lock)
        _refuse_others(storage, lock, shard)
        yield still_there
    finally:
        _HELD.discard(lock)
        with suppress(OSError, UnreachableError):
            storage.remove(lock)
            if is_new:
                storage.remove()  # which only works if nothing was written


def _touch(storage: Storage, lock: str) -> None:
    try:
        storage.touch(lock)
    except OSError as error:
        raise OutputError(
            f"cannot write a run to {str(storage)!r}: {error.strerror or error}; name a folder that can be written to"
        ) from error


def _refuse_others(storage: Storage, own: str, shard: tuple[int, int]) -> None:
    """Refuse to go on beside a process that holds a lock of some of the same parts."""
    for name in storage.names():
        parts = _LOCK.fullmatch(name)
        if parts is None or name == own:
            continue
        if _has_ended(storage, name, own):
            storage.remove(name)
            continue
        number, count = int(parts["number"]), int(parts["count"])
        if count == shard[1] and number != shard[0]:
            continue
        raise InputError(
            f"process {parts['pid']} {'' if is_here(name) else 'of another machine '}writes to {str(storage)!r} too"
            f"{f' (shard {number}/{count})' if count > 1 else ''}; wait until it ends, divide the work into shards, such as "
            f"1/2 and 2/2, or remove {name!r} there if you know that it has ended"
        )


def _has_ended(storage: Storage, lock: str, own: str) -> bool:
    """Tell whether the process of a lock has ended; one of another machine by the time of its last sign."""
    if is_gone(lock) or (lock.startswith(prefix()) and lock not in _HELD):
        return True
    try:
        return not is_here(lock) and storage.touched(lock) < storage.touched(own) - SILENCE
    except FileNotFoundError:
        return True
