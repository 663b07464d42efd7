"""The lock of a run's folder: no two processes do the same parts at once."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from relume.errors import InputError, OutputError
from relume.pages.owner import is_gone, is_here, prefix

__all__ = ["locked"]

#: A process of another machine is taken to have ended after so many seconds without a sign of it.
SILENCE = 600

_LOCK = re.compile(r"\.relume-[0-9a-f]+-(?P<pid>\d+)-[0-9a-f]+-lock_(?P<number>\d+)_(?P<count>\d+)_\w+")


@contextmanager
def locked(folder: Path, shard: tuple[int, int]) -> Iterator[Callable[[], None]]:
    """Hold the lock of one shard of a run, and give a function that shows that this process goes on: call it often.

    A lock is a file whose name says which process holds it, so one that was killed holds none.

    Args:
        folder: the folder of the run, which is made if there is none.
        shard: the number of the shard, from 1 on, and how many there are.

    Raises:
        InputError: another process does some of the same parts.
        OutputError: the folder cannot be written to.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from relume.datasets.lock import locked
        >>> with TemporaryDirectory() as folder, locked(Path(folder), (1, 2)), locked(Path(folder), (2, 2)):
        ...     len([*Path(folder).iterdir()])
        2
    """
    is_new = not folder.exists()
    lock = folder / f"{prefix()}lock_{shard[0]}_{shard[1]}_{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise OutputError(
            f"cannot write a run to {str(folder)!r}: {error.strerror or error}; name a folder that can be written to"
        ) from error
    try:
        _refuse_others(folder, lock, shard)
        yield functools.partial(_touch, lock)
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
            if is_new:
                folder.rmdir()  # which only works if nothing was written


def _touch(lock: Path) -> None:
    with suppress(OSError):  # whatever is wrong there shows when a part is written
        lock.touch()


def _refuse_others(folder: Path, own: Path, shard: tuple[int, int]) -> None:
    """Refuse to go on beside a process that holds a lock of some of the same parts."""
    for path in folder.iterdir():
        parts = _LOCK.fullmatch(path.name)
        if parts is None or path == own:
            continue
        if _has_ended(path, own):
            path.unlink(missing_ok=True)
            continue
        number, count = int(parts["number"]), int(parts["count"])
        if count == shard[1] and number != shard[0]:
            continue
        raise InputError(
            f"process {parts['pid']} {'' if is_here(path.name) else 'of another machine '}writes to {str(folder)!r} too"
            f"{f' (shard {number}/{count})' if count > 1 else ''}; wait until it ends, divide the work into shards, such as "
            f"1/2 and 2/2, or remove {path.name!r} there if you know that it has ended"
        )


def _has_ended(lock: Path, own: Path) -> bool:
    """Tell whether the process of a lock has ended; one of another machine by the time of its last sign."""
    if is_gone(lock.name):
        return True
    try:
        return not is_here(lock.name) and lock.stat().st_mtime < own.stat().st_mtime - SILENCE
    except FileNotFoundError:
        return True
