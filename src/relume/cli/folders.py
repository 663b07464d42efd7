"""Which folder the results of each photo go to, so that no two photos share one."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from relume.errors import OutputError

__all__ = ["ResultFolders", "address"]

_LONGEST = 200  # bytes of a folder's name: file systems take 255, and a number may follow


def address(photo: Path) -> str:
    """Return what a photo is known by in the facts of its results: its absolute path, links followed."""
    return os.path.realpath(photo)


class ResultFolders:
    """The folders in ``output``, one for each photo, named after it and numbered where the name is another's.

    A photo that was explained before keeps its folder, which its new results replace. A folder of another photo, of the same
    name in any case of letters, or of anything else that is there is never taken; an empty one is.
    """

    def __init__(self, output: Path) -> None:
        """Look at what is in ``output``, and finish what killed runs left in it and in its folders.

        Raises:
            OutputError: what is there cannot be listed.
        """
        from relume.pages.folder import recover

        with suppress(OutputError):  # the write into the folder will say it
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
        """Return the folder of a photo; to be asked for right before its results are written."""
        stem, own = _shortened(photo.stem.strip(".") or "photo"), address(photo)
        for entry in self._there[stem.casefold()]:
            if entry.name.casefold() not in self._taken and self._owner(entry) == own:
                return self._take(entry.name)
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return self._take(next(name for name in names if name.casefold() not in self._taken and self._is_free(name)))

    def _take(self, name: str) -> Path:
        self._taken.add(name.casefold())
        return self._output / name

    def _is_free(self, name: str) -> bool:
        same = [entry for entry in self._there[name.casefold()] if entry.name.casefold() == name.casefold()]
        return all(map(_is_empty, {*same, self._output / name}))


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
    """Return the address of the photo that all results in a folder are of; None where they are not of one, or unreadable."""
    owners = set()
    for facts in folder.glob("*/explanation.json"):
        try:
            owners.add(json.loads(facts.read_bytes())["provenance"]["path"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    return owners.pop() if len(owners) == 1 else None
