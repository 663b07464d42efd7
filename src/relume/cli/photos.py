"""The photos of a command: found in folders, and asked about one by one, so that one that fails stops no other."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from relume.cli.common import complain, read_photo
from relume.cli.failures import MemoryLimitError, NetworkError, in_words
from relume.errors import ImageError, NonFiniteError, OutputError, RelumeError
from relume.text import printable

if TYPE_CHECKING:
    from relume.pictures.photo import Photo

__all__ = ["Failures", "Photos", "distinct_names", "each_photo", "pictures_in"]

T = TypeVar("T")

#: The photos that a command is about.
Photos: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="PHOTO",
        help="Picture files, or folders: all files in them and in their folders that end as pictures do, .jpg or .png say.",
        readable=False,
    ),
]

#: Formats that Pillow tells by their suffixes and reads only with another program, or not at all.
_UNREAD = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def pictures_in(photos: Sequence[Path], output: Path) -> list[Path]:
    """List the photos, folders being replaced by the pictures in them and in the folders inside, each photo once.

    Pictures are known by the suffixes of Pillow's formats, and are in natural order: ``2.jpg`` before ``10.jpg``. Hidden files
    and folders, links to folders, and ``output``, where an earlier run wrote pictures, are left out. A folder without pictures,
    or that cannot be read, stays in the list: it fails as a photo does.
    """
    found: dict[str, Path] = {}
    for given in photos:
        for path in _pictures(given, output) if given.is_dir() else [given]:
            found.setdefault(os.path.realpath(path), path)
    return [*found.values()]


def _pictures(folder: Path, output: Path) -> list[Path]:
    from PIL import Image

    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN and name not in _UNREAD}
    found: list[Path] = []
    unread: list[OSError] = []
    for root, folders, files in os.walk(folder, onerror=unread.append):
        inside = Path(root)
        folders[:] = [name for name in folders if name[0] != "." and not _same(inside / name, output)]
        pictures = (inside / name for name in files if name[0] != "." and Path(name).suffix.lower() in suffixes)
        found += [path for path in pictures if _may_be_file(path)]
    found += [Path(error.filename) for error in unread]
    return sorted(found, key=_natural) or [folder]


def _may_be_file(path: Path) -> bool:
    """Whether it is a file, or what it is cannot be known: a link to nothing, which is to fail as a photo does."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _natural(path: Path) -> list[list[tuple[int, str]]]:
    """Make a key by which numbers in names are in the order of numbers."""
    parts = (re.split(r"(\d+)", part.casefold()) for part in path.parts)
    return [[(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces] for pieces in parts]


def distinct_names(photos: Sequence[Path]) -> dict[Path, str]:
    """Name each photo by its file, after its folder if another has the same name."""
    names = Counter(photo.name for photo in set(photos))
    return {photo: printable(photo.name if names[photo.name] == 1 else photo) for photo in photos}


@dataclass(slots=True)
class Failures:
    """The failures of single photos, each said in a line of its own.

    Where nothing was done yet, the error may not be about the photo at all. So the same is tried on drawn pictures: where they
    fail alike, it would be so for every photo. That ends the command, unless the error is one that depends on the photo.

    Attributes:
        attempt: does with a drawn picture what is done with a photo.
        depends: errors that depend on the photo although drawn pictures fail alike.
        done: how many photos were done.
        failed: how many were not.
    """

    attempt: Callable[[Photo], object]
    depends: tuple[type[RelumeError], ...] = ()
    done: int = 0
    failed: int = 0
    _said: set[str] = field(default_factory=set)
    _general: set[str] = field(default_factory=set)
    _last: str = ""

    def add(self, error: Exception, path: Path | None = None) -> str:
        """Say that a photo failed, and give the sentence.

        Raises:
            RelumeError: it is so for every photo.
        """
        told = in_words(error)
        sentence = str(told)
        if not self.done and sentence not in self._said and self._is_general(told):
            self._general.add(sentence)
            if not isinstance(told, (NetworkError, NonFiniteError, *self.depends)):
                raise told
        complain("the same" if sentence == self._last else told, path)
        self._said.add(sentence)
        self.failed, self._last = self.failed + 1, sentence
        return sentence

    def _is_general(self, error: RelumeError) -> bool:
        """Tell whether two pictures that have nothing in common fail too, and one of them just as a photo did."""
        if isinstance(error, ImageError | OutputError | MemoryLimitError):
            return False
        from PIL import Image

        from relume.demo import draw_scene
        from relume.pictures.photo import Photo

        pictures = (draw_scene(0).picture, Image.new("RGB", (256, 256)))
        sentences = [self._attempted(Photo.whole(picture)) for picture in pictures]
        return None not in sentences and str(error) in sentences

    def _attempted(self, photo: Photo) -> str | None:
        """Try a drawn picture, and return what was wrong with it, in words; None if nothing was."""
        try:
            self.attempt(photo)
        except Exception as error:  # noqa: BLE001 - each is compared
            return str(in_words(error))
        return None

    def end(self, total: int, so: str) -> int:
        """Say how many failed ``so``, and return the exit code: 1 if any did, 2 if every photo would have."""
        if self.failed and total > 1:
            complain(f"{self.failed} of {total} {so}")
        general = not self.done and self._said <= self._general
        return 0 if not self.failed else 2 if general else 1


def each_photo(
    photos: Iterable[Path], failures: Failures, ask: Callable[[Photo, Path], T], keep: Callable[[T, Path], None]
) -> None:
    """Ask about one photo after the other and keep each answer; whatever fails for one, all others are done.

    Raises:
        RelumeError: what is wrong would be so for every photo.
    """
    for path in photos:
        try:
            keep(ask(_load(path), path), path)
        except Exception as error:  # noqa: BLE001 - each is said
            failures.add(error, path)
        else:
            failures.done += 1


def _load(path: Path) -> Photo:
    if not path.is_dir():
        return read_photo(path)
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise ImageError(f"the folder {str(path)!r} cannot be read: {error.strerror}; check its permissions") from error
    raise ImageError(f"the folder {str(path)!r} holds no pictures that Pillow reads; name one that does, or the files")
