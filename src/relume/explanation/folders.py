"""Folders of results: one for each photo, so that no two photos and no two runs share one."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from relume.errors import OutputError
from relume.explanation.result import Explanation, Kinds, sheet
from relume.explanation.storage import written
from relume.pages.folder import recover, write_folder
from relume.pages.owner import prefix
from relume.pictures.figure import figure_bytes

__all__ = ["ResultFolders", "target_files", "write_targets"]

_LONGEST = 200  # bytes of a folder's name: file systems take 255, and a number may follow

#: The errors by which a folder that another run has taken meanwhile is known.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class ResultFolders:
    """The folders in ``output``, one for each photo, named after it and numbered where the name is another's.

    A photo that was explained before keeps its folder, which its new results replace. A folder of another photo, of the same
    name in any case of letters, or of anything else that is there is never taken; an empty one is.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from relume.explanation.folders import ResultFolders
        >>> with TemporaryDirectory() as output:
        ...     folders = ResultFolders(Path(output))
        ...     print(folders.of(Path("a/dog.jpg")).name, folders.of(Path("b/dog.jpg")).name)
        dog dog-2
    """

    def __init__(self, output: Path) -> None:
        """Look at what is in ``output``, and finish what killed runs left in it and in its folders.

        Raises:
            OutputError: the folder cannot be listed.
        """
        with suppress(OutputError):  # the write into the folder raises it again
            recover(output)
        try:
            entries = sorted(output.iterdir()) if output.is_dir() else []
        except OSError as error:
            raise OutputError(f"cannot see what is in {str(output)!r}: {error.strerror}; name another folder") from error
        self._output = output
        self._taken: set[str] = set()
        self._owner = functools.cache(_owner)  # each folder is read once, however many photos have its name
        self._there: defaultdict[str, list[Path]] = defaultdict(list)  # by name, and by name without a number
        for entry in entries:
            with suppress(OutputError):
                recover(entry)
            for name in {entry.name.casefold(), _unnumbered(entry.name.casefold())}:
                self._there[name].append(entry)

    def of(self, photo: Path) -> Path:
        """Return the folder of a photo, which no other photo of this run gets."""
        stem, own = _shortened(photo.stem.strip(".") or "photo"), os.path.realpath(photo)
        for entry in self._there[stem.casefold()]:
            if entry.name.casefold() not in self._taken and self._owner(entry) == own:
                return self._take(entry.name)
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return self._take(next(name for name in names if name.casefold() not in self._taken and self._is_free(name)))

    def write(self, photo: Path, files: Mapping[str, bytes]) -> Path:
        """Write the results of a photo, as :func:`target_files` makes them, into its folder, all or nothing, and return that.

        Raises:
            OutputError: the folder cannot be written to; nothing was left behind.
        """
        folder, is_new = self.of(photo), not self._output.exists()
        if self._owner(folder) == os.path.realpath(photo):
            return write_targets(folder, files)
        mark = f"{prefix()}claim"
        folder = self._claim(photo, folder, mark)
        try:
            return write_targets(folder, files)
        finally:
            (folder / mark).rmdir()
            with suppress(OSError):  # they are not empty if all went well
                folder.rmdir()
                if is_new:
                    self._output.rmdir()

    def _claim(self, photo: Path, folder: Path, mark: str) -> Path:
        """Make the folder of a photo with a folder ``mark`` in it; or the next one, if another run has made it meanwhile."""
        made = self._output / f"{prefix()}{secrets.token_hex(4)}"
        try:
            (made / mark).mkdir(parents=True)
            while not _moved(made, folder):
                folder = self.of(photo)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            raise OutputError(f"cannot write results to {str(folder)!r}: {error.strerror}; name a writable folder") from error
        return folder

    def _take(self, name: str) -> Path:
        self._taken.add(name.casefold())
        return self._output / name

    def _is_free(self, name: str) -> bool:
        same = [entry for entry in self._there[name.casefold()] if entry.name.casefold() == name.casefold()]
        return all(map(_is_empty, {*same, self._output / name}))


def _moved(made: Path, folder: Path) -> bool:
    """Move a folder to the place of an empty one or none, which succeeds for one run only; return False for all others."""
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _unnumbered(name: str) -> str:
    return re.sub(r"-\d+$", "", name)


def _shortened(name: str) -> str:
    """Return a name that is short enough for a file system, which counts bytes."""
    content = os.fsencode(name)
    return name if len(content) <= _LONGEST else content[:_LONGEST].decode(errors="ignore")


def _is_empty(folder: Path) -> bool:
    """Tell whether nothing is there, or a folder with nothing in it."""
    try:
        return not os.path.lexists(folder) or not any(folder.iterdir())
    except OSError:  # a file, or a folder that may not be read
        return False


def _owner(folder: Path) -> str | None:
    """Return the real path of the photo that all results in a folder are of; None if they are of several, or unreadable."""
    owners = set()
    for facts in folder.glob("*/explanation.json"):
        try:
            owners.add(json.loads(facts.read_bytes())["source"]["path"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    return owners.pop() if len(owners) == 1 else None


# --- The files of one photo ----------------------------------------------------------------------------------------------


def target_files(explanations: Sequence[Explanation], *, kind: Kinds = None, size: int | None = None) -> dict[str, bytes]:
    """Return the files of one photo explained for several targets: a folder for each target, and ``overview.png``.

    Args:
        explanations: the explanation of the photo for each target.
        kind: the kind of picture, for all methods or by method; the one that suits each map if None.
        size: the longest side of the pictures in pixels, the photo's own if None.
    """
    files: dict[str, bytes] = {}
    for e in explanations:
        files |= {f"{_slug(e)}/{name}": content for name, content in e.files(kind=kind, size=size, figure=False).items()}
    return files | {"overview.png": figure_bytes(sheet(explanations, kind=kind))}


def write_targets(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files of one photo into ``folder``, all or nothing; those of an earlier run for the same targets go.

    Raises:
        OutputError: the folder cannot be written to; nothing was left behind.
    """
    recover(folder)  # before what is there is looked at
    slugs = {Path(name).parts[0] for name in files if len(Path(name).parts) > 1}
    # pictures of an earlier run by other methods would stand beside facts that are not theirs
    stale = {f"{slug}/{name}" for slug in slugs for name in written(folder / slug)}
    return write_folder(folder, files, stale=stale - files.keys())


def _slug(e: Explanation) -> str:
    """Name the folder of a target: ``243-bull-mastiff``, ``243-bull-mastiff-not-281-tabby``, ``layer4-channel-7``."""
    if e.target is None:
        return _plain(e.unit or "score")
    slug = _class_slug(e, int(e.target[0]))
    return slug if e.versus is None else f"{slug}-not-{_class_slug(e, int(e.versus[0]))}"


def _class_slug(e: Explanation, index: int) -> str:
    name = _plain(e.name(index).partition(",")[0])
    return str(index) if name in ("", str(index)) else f"{index}-{name}"


def _plain(text: str) -> str:
    """Return ``text`` in lower case, with a dash for all that is neither letter nor digit."""
    return re.sub("-+", "-", "".join(c if c.isalnum() else "-" for c in text.casefold()))[:60].strip("-")
