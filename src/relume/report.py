"""Write a folder of results, all or nothing."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from relume.errors import OutputError

__all__ = ["check_writable", "write_folder"]


def write_folder(directory: Path, files: Mapping[str, bytes], *, stale: Iterable[str] = ()) -> Path:
    """Write ``files``, by relative path, into ``directory``, replacing those there; ``stale`` ones go; all others stay.

    Everything is written beside its place first and then moved in; a failure on the way puts back what was there.

    Raises:
        OutputError: something could not be written; the directory is as it was.
    """
    try:
        with ExitStack() as fresh:
            fresh.callback(_remove_empty, directory, _nearest(directory))
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".relume-", dir=directory) as name, ExitStack() as undo:
                _put(directory, Path(name), files, stale, undo)
                undo.pop_all()
            fresh.pop_all()
    except OSError as error:
        raise OutputError(
            f"cannot write results to {str(directory)!r}: {error.strerror or error}; name a writable folder"
        ) from error
    return directory


def _put(directory: Path, aside: Path, files: Mapping[str, bytes], stale: Iterable[str], undo: ExitStack) -> None:
    """Write ``files`` aside, move what is in their place out of the way and them in; ``undo`` learns how to go back."""
    new, old = aside / "new", aside / "old"
    for path, content in files.items():
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        (new / path).write_bytes(content)
    for path in (*files, *stale):
        place = directory / path
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{path!r} there is a folder")
        if place.exists():
            (old / path).parent.mkdir(parents=True, exist_ok=True)
            place.replace(old / path)
            undo.callback((old / path).replace, place)
            undo.callback(place.parent.mkdir, parents=True, exist_ok=True)  # undone first: it may be gone by then
    for path in files:
        place = directory / path
        undo.callback(_remove_empty, place.parent, directory)
        place.parent.mkdir(parents=True, exist_ok=True)
        (new / path).replace(place)
        undo.callback(place.unlink, missing_ok=True)


def check_writable(directory: Path) -> None:
    """Whether results can go to ``directory``, made or not yet, before any work is done for them.

    Raises:
        OutputError: it is not a folder, or not one that may be written to.
    """
    nearest = _nearest(directory)
    if not nearest.is_dir():
        raise OutputError(f"cannot write results to {str(directory)!r}: {str(nearest)!r} is not a folder; name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write results to {str(directory)!r}: {str(nearest)!r} is not writable; name another folder")


def _nearest(directory: Path) -> Path:
    """The directory itself or the nearest one above it that exists."""
    return next(p for p in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(p))


def _remove_empty(folder: Path, stop: Path) -> None:
    """Remove ``folder`` and those above it, as far as they are empty, up to ``stop``; what others put there stays."""
    folder, stop = folder.absolute(), stop.absolute()
    while folder != stop and not (folder.is_dir() and any(folder.iterdir())):
        if folder.is_dir():
            folder.rmdir()
        folder = folder.parent
