"""Photos: found in folders, read, and explained in batches, so that one that fails stops no other."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from relume.errors import ImageError, InputError
from relume.pictures import format_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from relume.pictures.photo import Photo
    from relume.pictures.recording import Recording

__all__ = ["as_input", "find_photos", "in_batches", "natural", "picture_suffixes", "pictures_in", "read_photo"]

P = TypeVar("P")
R = TypeVar("R")
S = TypeVar("S")

#: Formats that Pillow tells by their suffixes and reads only with another program, or not at all.
_UNREAD = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})

_NUMBER = re.compile(r"\d+")


def find_photos(paths: Iterable[str | Path], leave_out: str | Path | None = None) -> list[Path]:
    """List the photos in ``paths``: the files, and in place of each folder the pictures in it and in the folders inside.

    Pictures are known by the suffixes of Pillow's formats, and recordings by :data:`relume.pictures.FORMATS`; a folder that is
    one recording, such as a DICOM series, is listed as it is. They are in natural order: ``2.jpg`` before ``10.jpg``. Each
    is listed once. Hidden files and folders, and links to folders, are left out. A folder without pictures, or that cannot be
    read, stays in the list, so that reading it fails as reading a photo does.

    Args:
        paths: files and folders.
        leave_out: a folder that is not looked into, such as one that results are written to.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> from relume.models.photos import find_photos
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("10.png", "2.png"):
        ...         Image.new("RGB", (8, 8)).save(Path(folder, name))
        ...     print([path.name for path in find_photos([folder])])
        ['2.png', '10.png']
    """
    photos: dict[str, Path] = {}
    for given in map(Path, paths):
        inside = [*pictures_in(given, leave_out)] if given.is_dir() and not format_of(given) else []
        for path in inside or [given]:
            photos.setdefault(os.path.realpath(path), path)
    return [*photos.values()]


def pictures_in(folder: Path, leave_out: str | Path | None = None) -> Iterator[Path]:
    """Yield the pictures and recordings in a folder and in the folders inside, as :func:`find_photos` lists them.

    The names of one folder at a time are held. A folder that cannot be read is yielded in place of what it holds.
    """
    suffixes = picture_suffixes()
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name for entry in entries if entry.name[0] != "."), key=natural)
    except OSError:
        yield folder
        return
    for path in (folder / name for name in names):
        if os.path.isdir(path):  # noqa: PTH112 - a folder that may not be looked at is none, and no error
            if format_of(path):
                yield path
            elif not path.is_symlink() and not _is_same(path, leave_out):
                yield from pictures_in(path, leave_out)
        elif (path.suffix.lower() in suffixes or format_of(path)) and _may_be_file(path):
            yield path


def picture_suffixes() -> set[str]:
    """Return the suffixes, in small letters, of the formats that Pillow reads by itself."""
    from PIL import Image

    known = Image.registered_extensions().items()
    # Pillow before 13 registers an empty suffix once a picture was saved into memory
    return {suffix for suffix, name in known if suffix and name in Image.OPEN and name not in _UNREAD}


def _may_be_file(path: Path) -> bool:
    """Tell whether a path is a file, or cannot be looked at: a link to nothing, which fails when it is read."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _is_same(path: Path, other: str | Path | None) -> bool:
    """Tell whether two paths are the same folder."""
    return other is not None and Path(other).exists() and path.samefile(other)


def natural(path: str) -> tuple[str, str]:
    """Make a key by which paths are in the order of their parts, and numbers in names in the order of numbers."""
    return _NUMBER.sub(_padded, path.casefold().replace(os.sep, "\0")), path


def _padded(number: re.Match[str]) -> str:
    """Write a number such that texts of numbers are in their order, and come before all other text."""
    digits = str(int(number[0]))
    return f"\1{chr(len(digits))}{digits}"


def as_input(photo: str | Path | Image | Photo | Recording) -> Photo | Recording:
    """Make a photo or a recording of a file, or of a picture; one of the two stays as it is.

    Raises:
        ImageError: a file cannot be read or used, or it is none of these.

    Example:
        >>> from PIL import Image
        >>> from relume.models.photos import as_input
        >>> as_input(Image.new("RGB", (60, 40))).box
        (0.0, 0.0, 60.0, 40.0)
    """
    from relume.pictures.formats.table import read
    from relume.pictures.photo import as_photo
    from relume.pictures.recording import Recording

    if isinstance(photo, str | Path):
        return read(photo)
    return photo if isinstance(photo, Recording) else as_photo(photo)


def read_photo(path: str | Path) -> Photo | Recording:
    """Read a photo or a recording that :func:`find_photos` listed.

    Raises:
        ImageError: it cannot be read or used, or is a folder without pictures.
    """
    from relume.pictures.formats.table import read

    path = Path(path)
    if not path.is_dir() or format_of(path):
        return read(path)
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise ImageError(f"the folder {str(path)!r} cannot be read: {error.strerror}; check its permissions") from error
    raise ImageError(
        f"the folder {str(path)!r} holds no pictures that Pillow reads, and no recordings; name another, or the files"
    )


def in_batches(
    photos: Iterable[P], batch_size: int, read: Callable[[P], S], run: Callable[[Sequence[S]], Sequence[R]]
) -> Iterator[tuple[P, R | Exception]]:
    """Read photos and run them in batches; yield each with its result, or with the error that it alone raises, in order.

    A batch that raises an error is run again one by one. A network that takes photos only one by one, as an exported program
    may, gets all later ones so; an :class:`ImageError` is about the photos of one batch, such as their sizes.

    Args:
        photos: the photos, in any form that ``read`` takes.
        batch_size: the number of photos that run together, at most.
        read: reads one photo.
        run: runs photos that were read, and returns a result for each.

    Raises:
        InputError: ``batch_size`` is not positive.
        ValueError: ``run`` returned more or fewer results than photos.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is the number of photos that run at once, from 1 on; got {batch_size}")
    remaining = iter(photos)
    while batch := list(islice(remaining, batch_size)):
        inputs = [_attempt(read, photo) for photo in batch]
        readable = [one for one in inputs if not isinstance(one, Exception)]
        together = _attempt(run, readable) if len(readable) > 1 else None
        results = None
        if together is not None and not isinstance(together, Exception):
            results = iter([result for _, result in zip(readable, together, strict=True)])
        failed = False
        for photo, one in zip(batch, inputs, strict=True):
            if isinstance(one, Exception):
                yield photo, one
            elif results is not None:
                yield photo, next(results)
            else:
                alone = _attempt(run, [one])
                failed = failed or isinstance(alone, Exception)
                yield photo, alone if isinstance(alone, Exception) else alone[0]
        if isinstance(together, Exception) and not isinstance(together, ImageError) and not failed:
            batch_size = 1


def _attempt(function: Callable[[P], R], argument: P) -> R | Exception:
    """Call ``function``, and return its result or its error."""
    try:
        return function(argument)
    except Exception as error:  # noqa: BLE001 - the caller gets it
        return error
