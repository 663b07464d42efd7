"""Folders of results, which are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from relume.errors import RAISED_BY_NETWORK, OutputError
from relume.pages.owner import is_gone, prefix

__all__ = ["check_writable", "filled", "recover", "write_folder"]

#: The list of what a write replaces and adds, in its temporary folder while files are moved.
PLAN = "plan.json"


def write_folder(directory: Path, files: Mapping[str, bytes], *, stale: Iterable[str] = ()) -> Path:
    """Write ``files``, by relative path, into ``directory``: those of the same names are replaced, ``stale`` ones are removed.

    All other files stay. Everything is written beside its place first and then moved in. A failure on the way puts back what
    was there; where the process is killed on the way, the next write into ``directory`` does: see :func:`recover`.

    Raises:
        OutputError: something could not be written; the directory is as it was.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from relume.pages.folder import write_folder
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = write_folder(Path(name, "results"), {"a.txt": b"1", "sub/b.txt": b"2"})
        ...     sorted(path.name for path in folder.iterdir())
        ['a.txt', 'sub']
    """
    recover(directory)
    try:
        with ExitStack() as fresh:
            fresh.callback(_remove_empty, directory, _nearest(directory))
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=prefix(), dir=directory) as name, ExitStack() as undo:
                _put(directory, Path(name), files, stale, undo)
                undo.pop_all()
            fresh.pop_all()
    except OSError as error:
        raise _refusal(directory, error) from error
    return directory


def _refusal(directory: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write results to {str(directory)!r}: {error.strerror or error}; name a writable folder")


def _put(directory: Path, aside: Path, files: Mapping[str, bytes], stale: Iterable[str], undo: ExitStack) -> None:
    """Write ``files`` into ``aside``, move old files out of their places and new ones in; ``undo`` learns how to go back."""
    new, old = aside / "new", aside / "old"
    for path, content in files.items():
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        (new / path).write_bytes(content)
    paths = [*dict.fromkeys((*files, *stale))]
    for path in paths:
        if (directory / path).is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{path!r} there is a folder")
    replaced = [path for path in paths if os.path.lexists(directory / path)]
    _write_plan(aside, replaced, [path for path in files if path not in {*replaced}])
    undo.callback((aside / PLAN).unlink, missing_ok=True)  # undone last
    for path in replaced:
        place = directory / path
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
    (aside / PLAN).unlink()  # from here on the write is done, and is not taken back


def _write_plan(aside: Path, replaced: Iterable[str], added: Iterable[str]) -> None:
    """Write the plan, whole or not at all."""
    (aside / "unfinished").write_text(json.dumps({"replaced": [*replaced], "added": [*added]}))
    (aside / "unfinished").replace(aside / PLAN)


@contextmanager
def filled(directory: Path) -> Iterator[Path]:
    """Give a temporary folder in ``directory``; the files written there go to their places in ``directory`` at the end.

    An error inside leaves ``directory`` as it was; one while they are moved may leave some there. It is for files too large to
    be held in memory for :func:`write_folder`.

    Raises:
        OutputError: something cannot be written.
    """
    recover(directory)
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=prefix(), dir=directory) as name:
                yield Path(name)
                for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
                    place = directory / path.relative_to(name)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(place)
        finally:
            if is_new:
                _remove_empty(directory, _nearest(directory.parent))
    except OSError as error:
        if any(note.startswith(RAISED_BY_NETWORK) for note in getattr(error, "__notes__", ())):
            raise  # the network's own, and none of the folder
        raise _refusal(directory, error) from error


def recover(directory: Path) -> None:
    """Undo the writes that killed processes left unfinished in ``directory``, and remove their temporary folders.

    A temporary folder stays as long as its process may live. If this is killed itself, it can be repeated.

    Raises:
        OutputError: a file could not be put back.
    """
    try:
        _recover(directory)
    except OSError as error:
        raise _refusal(directory, error) from error


def _recover(directory: Path) -> None:
    for left in sorted(directory.glob(".relume-*")) if directory.is_dir() else ():
        if not is_gone(left.name) or left.is_symlink():
            continue
        aside = directory / f"{prefix()}{secrets.token_hex(4)}"
        try:
            left.rename(aside)  # another process that recovers it at the same time comes too late
        except FileNotFoundError:
            continue
        _take_back(directory, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _take_back(directory: Path, aside: Path) -> None:
    """Undo the plan in ``aside`` as far as it was carried out. Without a plan nothing was moved, or everything was."""
    if not (aside / PLAN).exists():
        return
    try:
        plan = json.loads((aside / PLAN).read_bytes())
    except ValueError:
        raise OSError(f"{str(aside)!r}, left by a killed run, cannot be read: see what is in it and remove it") from None
    for path in plan["added"]:
        if not os.path.lexists(aside / "new" / path):
            (directory / path).unlink(missing_ok=True)
            _remove_empty((directory / path).parent, directory)
    for path in plan["replaced"]:
        if os.path.lexists(aside / "old" / path):
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / "old" / path).replace(directory / path)
    (aside / PLAN).unlink()


def check_writable(directory: Path) -> None:
    """Check that results can be written to ``directory``, which need not exist yet, before any work is done for them.

    Raises:
        OutputError: it is not a folder, or not one that may be written to.
    """
    nearest = _nearest(directory)
    if not nearest.is_dir():
        raise OutputError(f"cannot write results to {str(directory)!r}: {str(nearest)!r} is not a folder; name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write results to {str(directory)!r}: {str(nearest)!r} is not writable; name another folder")


def _nearest(directory: Path) -> Path:
    """Return the directory itself, or the nearest one above it that exists."""
    return next(p for p in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(p))


def _remove_empty(folder: Path, stop: Path) -> None:
    """Remove ``folder`` and those above it, as far as they are empty, up to ``stop``; what others put there stays."""
    folder, stop = folder.absolute(), stop.absolute()
    while folder != stop and not (folder.is_dir() and any(folder.iterdir())):
        if folder.is_dir():
            folder.rmdir()
        folder = folder.parent
