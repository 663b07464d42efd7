"""Pictures whose files lie elsewhere: in object storage, or in other files, such as tars and tables."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from relume.datasets.storage import is_url, storage_of
from relume.errors import ImageError
from relume.models.photos import picture_suffixes, read_photo
from relume.pictures import FORMATS, read
from relume.pictures.photo import Photo, load_photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["bytes_at", "is_picture", "place_in", "read_content", "read_picture"]

_PLACE_IN = re.compile(r"(?P<file>.+)#(?P<member>.+)@(?P<start>\d+)\+(?P<size>\d+)")


def is_picture(name: str) -> bool:
    """Tell whether the name of a file is that of a picture that Pillow reads, or of a recording."""
    return Path(f"_{name}").suffix.lower() in picture_suffixes() or _is_recording(name)


def _is_recording(name: str) -> bool:
    """Tell whether the name of a file is that of a recording, or of what may be one or a photo."""
    return any(name.lower().endswith(FORMATS[key].suffixes) for key in FORMATS.names())


def place_in(file: str, member: str, start: int, size: int) -> str:
    """Write down where in another file, such as a tar, a file lies.

    Example:
        >>> from relume.datasets.contents import place_in
        >>> place_in("s3://bucket/0.tar", "7.seg.png", 1536, 420)
        's3://bucket/0.tar#7.seg.png@1536+420'
    """
    return f"{file}#{member}@{start}+{size}"


def bytes_at(place: str) -> bytes | None:
    """Read a file by its URL or by what :func:`place_in` wrote; None of a path, which other functions read.

    Raises:
        ImageError: there is none, or it cannot be read.
        UnreachableError: its place does not answer.
    """
    inside = _PLACE_IN.fullmatch(place)
    if inside is None and not is_url(place):
        return None
    try:
        if inside is None:
            return storage_of(place).read()
        return storage_of(inside["file"]).read("", int(inside["start"]), int(inside["size"]))
    except OSError as error:
        raise ImageError(f"{place!r} cannot be read: {error.strerror or first_line(error)}; check the address") from error


def read_picture(place: str) -> Photo | Recording:
    """Read a picture by its path, its URL or its place in another file.

    Raises:
        ImageError: it cannot be read or used.
        UnreachableError: its place does not answer.
    """
    content = bytes_at(place)
    return read_photo(place) if content is None else read_content(place, content)


def read_content(name: str, content: bytes) -> Photo | Recording:
    """Read a picture from the content of its file; libraries of recordings read it from a file of its own.

    Raises:
        ImageError: it cannot be read or used.
    """
    if not _is_recording(name):
        return load_photo(name, content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(name).name)
        path.write_bytes(content)
        try:
            return read(path)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), name)) from error
