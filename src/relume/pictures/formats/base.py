"""A format of files that hold recordings: how it is recognised, what reads it, and what several formats check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from relume.errors import ImageError

if TYPE_CHECKING:
    from relume.pictures.recording import Recording

__all__ = ["Format", "check_finite", "computable", "needing", "range_of"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files, or of folders of files, that hold recordings.

    Attributes:
        suffixes: the endings of its files, in small letters: ``(".nii", ".nii.gz")``.
        about: what it holds, in a few words.
        reader: a function from a path to a :class:`~relume.pictures.Recording`; or its name, ``package.module:function``,
            imported when first needed, with the library that it needs.
        extra: the extra of relume that installs the library.
        recognises: a function that tells whether a path is of this format, or its name; if None, a file is known by its suffix.

    Example:
        >>> import numpy as np
        >>> from relume.pictures import FORMATS, Format, Recording, read
        >>> def read_text(path):
        ...     return Recording(np.loadtxt(path, np.float32, ndmin=2), "signal")
        >>> FORMATS["text"] = Format((".txt",), "a signal, one line a channel", read_text)
        >>> with open("a.txt", "w") as file:
        ...     _ = file.write("1 2 3")
        >>> read("a.txt").size
        (3,)
        >>> del FORMATS["text"]
    """

    suffixes: tuple[str, ...]
    about: str
    reader: str | Callable[[Path], Recording]
    extra: str = ""
    recognises: str | Callable[[Path], bool] | None = None

    def is_of(self, path: Path) -> bool:
        """Tell whether ``path`` is a file or folder of this format, by its name or by the little that has to be read."""
        if self.recognises is None:
            return path.name.lower().endswith(self.suffixes) and not path.is_dir()
        recognises = resolve_name(self.recognises) if isinstance(self.recognises, str) else self.recognises
        return bool(recognises(path))

    def read(self, path: Path) -> Recording:
        """Read a file or folder of this format.

        Raises:
            ImageError: the library is missing.
        """
        with needing(self.extra):
            reader = resolve_name(self.reader) if isinstance(self.reader, str) else self.reader
            recording: Recording = reader(path)
        return recording


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Turn the lack of a library inside into an error that says what to install.

    Raises:
        ImageError: a library is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        install = f"'relume[{extra}]'" if extra else library
        raise ImageError(f"reading and writing this needs {library}; install it: pip install {install}") from None


def computable(values: NDArray[Any]) -> NDArray[Any]:
    """Return values as bytes or floating-point numbers of this machine: torch computes with few of the others."""
    return values if values.dtype in (np.uint8, np.float32, np.float64) else values.astype(np.float32)


def check_finite(values: NDArray[Any]) -> None:
    """Refuse values of which some are NaN or infinite.

    Raises:
        ImageError: there is one.
    """
    count = values.size - int(np.isfinite(values).sum())
    if count:
        raise ImageError(
            f"{count} of its {values.size} values {'is' if count == 1 else 'are'} NaN or infinite; "
            "replace them, by numpy.nan_to_num for example, and save it again"
        )


def range_of(values: NDArray[Any], dtype: DTypeLike | None = None) -> tuple[float, float] | None:
    """Return black and white of values ``(C, ...)`` that are colours: those of three channels of 8 bits.

    ``dtype`` is that of the file, where the values have another one.
    """
    return (0.0, 255.0) if len(values) == 3 and np.dtype(dtype or values.dtype) == np.uint8 else None
