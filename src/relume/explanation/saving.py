"""Many explanations as files: a folder for each photo, which no other photo shares, and in it one for each target."""

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
from relume.explanation import storage
from relume.explanation.drawing import Kinds
from relume.explanation.result import Explanation
from relume.explanation.sheet import sheet
from relume.pages.folder import recover, write_folder
from relume.pages.owner import prefix
from relume.pictures.figure import figure_bytes
from relume.pictures.formats.table import FORMATS

__all__ = ["OVERVIEW", "ResultFolders", "address", "folder_files", "save_all", "target_folders", "write_targets"]

#: The name of the figure of all targets of a photo.
OVERVIEW = "overview.png"

_LONGEST = 200  # bytes of a folder's name: file systems take 255, and a number may follow

#: The errors by which a folder that another run has made meanwhile is known.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


# --- Targets --------------------------------------------------------------------------------------------------------------


def save_all(explanations: Sequence[Explanation], folder: str | Path, *, kind: Kinds = None, size: int | None = None) -> Path:
    """Write the explanations of one photo, all or nothing: a folder for each target, and a figure of all of them.

    Args:
        explanations: of one image each, for different targets, by the same methods.
        folder: where they go; results of the same targets there are replaced.
        kind: the kind of picture, for all methods or by method; the one that suits each map if None.
        size: the longest side of the pictures, the photo's own if None.

    Raises:
        OutputError: the folder cannot be written to; it is as it was.

    Example:
        >>> import tempfile
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> from relume.explanation.saving import save_all
        >>> network, scene = relume.open_model("demo"), draw_scene(0, ["cat", "dog"]).picture
        >>> explanations = [network.explain(scene, target, ["gradcam"]) for target in ("cat", "dog")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in save_all(explanations, folder).iterdir())
        ['4-cat', '6-dog', 'overview.png']
    """
    return write_targets(Path(folder), folder_files(explanations, kind=kind, size=size))


def folder_files(explanations: Sequence[Explanation], *, kind: Kinds = None, size: int | None = None) -> dict[str, bytes]:
    """Return the files that :func:`save_all` writes, by their paths in the folder."""
    files = {
        f"{target}/{name}": content
        for target, e in zip(target_folders(explanations), explanations, strict=True)
        for name, content in e.files(kind=kind, size=size, without=["figure"]).items()
    }
    return files | {OVERVIEW: figure_bytes(sheet(explanations, kind=kind))}


def write_targets(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files of one photo, all or nothing; those of earlier results for the same targets go.

    Raises:
        OutputError: the folder cannot be written to; it is as it was.
    """
    recover(folder)  # before what is there is looked at
    targets = {Path(name).parts[0] for name in files if len(Path(name).parts) > 1}
    # pictures by other methods do not belong to the new facts
    stale = {f"{target}/{name}" for target in targets for name in storage.written(folder / target)}
    return write_folder(folder, files, stale=stale - files.keys())


def target_folders(explanations: Sequence[Explanation]) -> list[str]:
    """Name the folder of each target: ``243-bull-mastiff``, ``243-bull-mastiff-not-281-tabby``, ``layer4-channel-7``.

    Two targets of one name, such as two references of an embedding, get ``cosine-with-the-reference`` and the same with ``-2``.
    """
    folders: list[str] = []
    for e in explanations:
        name = _target_folder(e)
        numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        folders.append(next(each for each in numbered if each not in folders))
    return folders


def _target_folder(e: Explanation) -> str:
    if e.description is not None or e.target is None:
        return _plain(e.description[0] if e.description else "score")
    name = _class_folder(e, int(e.target[0]))
    return name if e.versus is None else f"{name}-not-{_class_folder(e, int(e.versus[0]))}"


def _class_folder(e: Explanation, index: int) -> str:
    name = _plain(e.name(index).partition(",")[0])
    return str(index) if name in ("", str(index)) else f"{index}-{name}"


def _plain(text: str) -> str:
    return re.sub("-+", "-", "".join(c if c.isalnum() else "-" for c in text.casefold()))[:60].strip("-")


# --- Photos ---------------------------------------------------------------------------------------------------------------


def address(photo: Path) -> str:
    """Return the name that a photo has in the record of its results: its absolute path, links followed."""
    return os.path.realpath(photo)


class ResultFolders:
    """Folders in ``output``, one for each photo, named after it and numbered where the name is another's.

    A photo that was explained before keeps its folder, which its new results replace. A folder of another photo, of the same
    name in any case of letters, or of anything else that is there is never taken; an empty one is.
    """

    def __init__(self, output: Path) -> None:
        """Look at what is in ``output``, and finish what killed runs left in it and in its folders.

        Raises:
            OutputError: what is there cannot be listed.
        """
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
        """Return the folder of a photo, which no other photo of this run gets. Call this right before it is written."""
        stem, own = _shortened(_stem(photo).strip(".") or "photo"), address(photo)
        for entry in self._there[stem.casefold()]:
            if entry.name.casefold() not in self._taken and self._owner(entry) == own:
                return self._take(entry.name)
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return self._take(next(name for name in names if name.casefold() not in self._taken and self._is_free(name)))

    def write(self, photo: Path, files: Mapping[str, bytes]) -> Path:
        """Write the files of a photo, as :func:`folder_files` makes them, into its folder, all or nothing, and return that.

        Raises:
            OutputError: the folder cannot be written to; nothing was left behind.
        """
        folder, is_new = self.of(photo), not self._output.exists()
        if self._owner(folder) == address(photo):
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


def _stem(photo: Path) -> str:
    """Return the name of a file without its ending, which may have two parts, and all of a folder's name."""
    endings = (suffix for each in FORMATS.values() for suffix in each.suffixes if photo.name.lower().endswith(suffix))
    return photo.name if photo.is_dir() else photo.name.removesuffix(photo.name[-len(next(endings, photo.suffix)) :] or " ")


def _shortened(name: str) -> str:
    """Return a name that is short enough for a file system, which counts bytes."""
    content = os.fsencode(name)
    return name if len(content) <= _LONGEST else content[:_LONGEST].decode(errors="ignore")


def _is_empty(folder: Path) -> bool:
    """Tell whether nothing is at this path, or a folder with nothing in it."""
    try:
        return not os.path.lexists(folder) or not any(folder.iterdir())
    except OSError:  # a file, or a folder that may not be read
        return False


def _owner(folder: Path) -> str | None:
    """Return the address of the photo that all results in a folder are of; None where they are not of one, or unreadable."""
    owners = set()
    for facts in itertools.chain(folder.glob("*/explanation.json"), folder.glob("*/tiles.json")):
        try:
            owners.add(json.loads(facts.read_bytes())["provenance"]["path"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
    return owners.pop() if len(owners) == 1 else None
