"""The table of formats, reading a file of any of them, and the grids that a saved explanation tells of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

from relume.pictures.decoding import decoding, regular_file
from relume.pictures.formats.base import Format
from relume.pictures.photo import Photo, load_photo
from relume.pictures.recording import Grid, Recording
from relume.registry import Registry

__all__ = ["FORMATS", "format_of", "grid_of", "read"]

_HERE = "relume.pictures.formats"

#: The formats of recordings by name. ``FORMATS["nrrd"] = my_format`` adds one.
FORMATS: Registry[Format] = Registry(
    "format",
    "relume.formats",
    {
        "nifti": Format((".nii", ".nii.gz"), "a volume of NIfTI", f"{_HERE}.nifti:read_nifti", "medical"),
        "dicom": Format(
            (".dcm", ".dicom"),
            "a series of DICOM in a folder, or a file of it",
            f"{_HERE}.dicom:read_dicom",
            "medical",
            f"{_HERE}.dicom:is_dicom",
        ),
        "geotiff": Format(
            (".tif", ".tiff"),
            "bands with a place on the Earth, or of any number",
            f"{_HERE}.geotiff:read_geotiff",
            "geo",
            f"{_HERE}.geotiff:is_geotiff",
        ),
        "arrays": Format((".npy", ".npz"), "an array of NumPy", f"{_HERE}.arrays:read_array"),
        "video": Format((".mp4", ".mov", ".avi", ".mkv", ".webm"), "a clip", f"{_HERE}.video:read_video", "video"),
    },
)

#: The class of each grid, by the suffix of the files that it writes.
_GRIDS = {".tif": f"{_HERE}.geotiff:GeoGrid", ".nii.gz": f"{_HERE}.nifti:NiftiGrid", ".npy": f"{_HERE}.arrays:ArrayGrid"}


def format_of(path: str | Path) -> str | None:
    """Return the name in :data:`FORMATS` of the format that a file or folder is of; None for all others, such as photos.

    Example:
        >>> from relume.pictures import format_of
        >>> format_of("brain.nii.gz"), format_of("dog.jpg")
        ('nifti', None)
    """
    return next((name for name in FORMATS.names() if FORMATS[name].is_of(Path(path))), None)


def read(path: str | Path) -> Photo | Recording:
    """Read a file: a recording if it is of one of :data:`FORMATS`, and a photo if not.

    Raises:
        ImageError: the file is missing, damaged or not what its name says, its library is not installed, or its values cannot
            be used.

    Example:
        >>> import numpy as np
        >>> from relume.pictures import read
        >>> np.save("scan.npy", np.zeros((1, 20, 64, 64), np.float32))
        >>> recording = read("scan.npy")
        >>> recording.kind, recording.size
        ('volume', (20, 64, 64))
    """
    path, name = Path(path), repr(str(path))
    key = format_of(path)
    if key is None:
        return load_photo(path)
    if not path.is_dir():
        regular_file(path, name).close()
    with decoding(name):
        return FORMATS[key].read(path)


def grid_of(facts: Mapping[str, Any]) -> Grid | None:
    """Make a grid again of what its :meth:`~relume.pictures.recording.Grid.as_dict` told, and its suffix as ``format``.

    Returns:
        None if the grid is of a format that is not part of relume.

    Raises:
        TypeError: these are other facts.

    Example:
        >>> from relume.pictures import grid_of
        >>> grid_of({"format": ".npy"})
        ArrayGrid()
    """
    others = {name: _frozen(value) for name, value in facts.items() if name != "format"}
    grid = _GRIDS.get(str(facts["format"]))
    return None if grid is None else cast("Grid", resolve_name(grid)(**others))


def _frozen(value: Any) -> Any:
    """Make tuples of the lists that JSON has in their place."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
