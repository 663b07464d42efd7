"""Pictures whose files lie in other files, such as tars and tables."""

from __future__ import annotations

import tempfile
from pathlib import Path

from relume.errors import ImageError
from relume.pictures import FORMATS, read
from relume.pictures.photo import Photo, load_photo
from relume.pictures.recording import Recording

__all__ = ["is_recording", "read_content"]


def is_recording(name: str) -> bool:
    """Tell whether the name of a file is that of a recording, or of what may be one or a photo."""
    return any(name.lower().endswith(FORMATS[key].suffixes) for key in FORMATS.names())


def read_content(name: str, content: bytes) -> Photo | Recording:
    """Read a picture from the content of its file; libraries of recordings read it from a file of its own.

    Raises:
        ImageError: it cannot be read or used.
    """
    if not is_recording(name):
        return load_photo(name, content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(name).name)
        path.write_bytes(content)
        try:
            return read(path)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), name)) from error
