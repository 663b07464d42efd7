"""Arrays of NumPy, .npy and .npz; the number of their axes tells what they are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from relume.errors import ImageError
from relume.pictures.formats.base import check_finite, computable, range_of
from relume.pictures.recording import Recording, RecordingKind

__all__ = ["ArrayGrid", "read_array"]

_KINDS: dict[int, RecordingKind] = {2: "signal", 3: "bands", 4: "volume"}
_AXES = "(places), (channels, places), (channels, rows, columns) or (channels, slices, rows, columns)"


@dataclass(frozen=True, slots=True)
class ArrayGrid:
    """The cells of an array, which lie nowhere in the world: maps are written as arrays of the same shape."""

    suffix: ClassVar[str] = ".npy"

    def write(self, values: NDArray[np.float32]) -> bytes:
        """Return a file of ``values`` ``(C, *spatial)``."""
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(values, np.float32))
        return file.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: there is nothing to tell."""
        return asdict(self)


def read_array(path: Path) -> Recording:
    """Read an array: a signal, bands or a volume, by the number of its axes; channels come first.

    Raises:
        ImageError: there is not one array of finite real numbers, or its axes are none of these.
    """
    values = _array(path)
    if values.dtype.kind not in "buif":
        kinds = {"c": "complex numbers", "O": "Python objects", "M": "dates", "m": "durations", "U": "text", "S": "bytes"}
        raise ImageError(f"it holds {kinds.get(values.dtype.kind, str(values.dtype))}; save an array of real numbers")
    values = computable(values)
    _check_axes(values.shape)
    check_finite(values)
    values = values[None] if values.ndim == 1 else values
    return Recording(values, _KINDS[values.ndim], limits=range_of(values) if values.ndim == 3 else None, grid=ArrayGrid())


def _array(path: Path) -> NDArray[Any]:
    """Read the only array of a file."""
    try:
        with path.open("rb") as file:  # which NumPy would leave open where it raises an error
            start = file.read(6)
            if start != b"\x93NUMPY" and start[:2] != b"PK":
                raise ImageError("it is no file of NumPy, though its name says so; write it with numpy.save")
            file.seek(0)
            content = np.load(file, allow_pickle=False)
            only = content if isinstance(content, np.ndarray) else _only(content)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ImageError("it holds Python objects, which may run code as they are read; save numbers") from None
        raise
    if not isinstance(only, np.ndarray):  # the bytes of another file
        raise ImageError("it holds no array of NumPy; save one with numpy.save")
    return only


def _only(archive: Mapping[str, Any]) -> Any:
    """Return the only array of an archive."""
    if len(archive) != 1:
        names = ", ".join(archive) or "none"
        raise ImageError(f"it holds {len(archive)} arrays, {names}; save the one that is meant with numpy.save")
    return next(iter(archive.values()))


def _check_axes(shape: tuple[int, ...]) -> None:
    """Refuse axes that are no recording's, or may be meant in another order.

    Two axes are a signal of several channels, or a grey picture. A signal is at least four times as long as it has channels.
    """
    if not 1 <= len(shape) <= 4 or 0 in shape:
        raise ImageError(f"its shape is {shape}; save it as {_AXES}")
    first, last = shape[0], shape[-1]
    if len(shape) == 2 and last < 4 * first:
        raise ImageError(
            f"its shape {shape} may be that of a grey picture or of a signal; save a picture as (1, {first}, {last}); "
            "a signal is at least four times as long as it has channels"
        )
    if len(shape) > 2 and last <= 4 < first:
        raise ImageError(f"its shape is {shape}, and channels come first; save it by numpy.moveaxis(values, -1, 0)")
