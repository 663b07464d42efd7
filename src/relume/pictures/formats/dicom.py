"""DICOM by pydicom: a folder with the slices of a series, or one file; maps are NIfTI, which viewers lay over the series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.errors import ImageError
from relume.pictures.decoding import decoding
from relume.pictures.formats.arrays import ArrayGrid
from relume.pictures.formats.base import check_finite, range_of
from relume.pictures.formats.nifti import NiftiGrid, check_affine
from relume.pictures.recording import Recording
from relume.text import printable

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

__all__ = ["is_dicom", "read_dicom"]

#: Position of the first voxel of a slice, and the steps from row to row and from column to column: ``(3, 3)``.
Place: TypeAlias = NDArray[np.float64]

#: From millimetres to the left, to the back and up, as in DICOM, to those to the right, to the front and up, as in NIfTI.
_RIGHT_FRONT_UP = np.diag([-1.0, -1.0, 1.0, 1.0])
#: By which part of the usual distance those of slices may differ, since positions are written with few digits.
_UNEVEN = 0.05
#: By how many millimetres the steps of two slices may differ.
_SAME = 1e-3


def is_dicom(path: Path) -> bool:
    """Tell whether ``path`` is a file of DICOM, or a folder that holds one."""
    try:
        return any(map(_is_file, path.iterdir())) if path.is_dir() else _is_file(path)
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    """Tell whether a file is one of DICOM, which need not have a suffix."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or suffix in filter(None, Image.registered_extensions()) or not path.is_file():
        return False  # a folder of photos is not read twice
    if suffix in (".dcm", ".dicom"):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> Recording:
    """Read the slices of one series as a volume; a file of one picture as its bands, one of frames in time as video.

    The slices are in the order of their positions along the normal of their plane, and their values rescaled as the files say.

    Raises:
        ImageError: a file is damaged or cannot be decoded; there are several series; or a slice is missing, doubled, or of
            another size or direction than the others.
    """
    if not path.is_dir():
        return _file(path)
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    headers = {file: header for file in files if _is_file(file) and (header := _image(file)) is not None}
    if not headers:
        raise ImageError("none of the DICOM files in it has pixels; name a folder with the slices of a series")
    _check_series([*headers.values()])
    if len(headers) == 1:
        return _file(*headers)
    if any(_frames(header) > 1 for header in headers.values()):
        raise ImageError(f"it holds {len(headers)} files, and one with several frames is a recording by itself; name one file")
    places = [_place(header, 0) for header in headers.values()]
    others = len(files) - len(headers)
    notes = tuple(dict.fromkeys(note for header in headers.values() for note in _meanings(header)))
    if others:
        notes += (f"{others} {'file' if others == 1 else 'files'} without pictures of DICOM left out",)
    return _volume([*map(_slice, headers)], places, notes)


def _file(path: Path) -> Recording:
    """Read one file: a volume or video of its frames, or its only picture."""
    dataset = _header(path, pixels=True)
    frames, values = _frames(dataset), _pixels(dataset)
    notes = _meanings(dataset)
    if "PerFrameFunctionalGroupsSequence" in dataset and frames > 1:
        return _volume([*values], [_place(dataset, frame) for frame in range(frames)], notes)
    channels = np.moveaxis(values, -1, 0)
    steps = tuple(map(float, _fact(dataset, 0, "PixelMeasuresSequence", "PixelSpacing", dataset.get("ImagerPixelSpacing", ()))))
    if frames > 1:
        time = float(dataset.get("FrameTime") or 0) / 1000
        if not time:
            raise ImageError(
                f"its {frames} frames have neither positions nor a time between them; save them as a series of files"
            )
        return Recording(channels, "video", (time, 1.0, 1.0), "s", limits=range_of(channels), grid=ArrayGrid(), notes=notes)
    picture = channels[:, 0]
    return Recording(picture, "bands", steps, "mm" if steps else "", limits=range_of(picture), grid=ArrayGrid(), notes=notes)


def _meanings(dataset: Dataset) -> tuple[str, ...]:
    """Note in which ways values are other than a viewer shows them."""
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    meanings = {
        "its low values are white (MONOCHROME1), and are as they are stored": inverted,
        "its table of values (ModalityLUTSequence) is not applied": "ModalityLUTSequence" in dataset,
    }
    return tuple(note for note, applies in meanings.items() if applies)


# --- Facts and pixels of a file ------------------------------------------------------------------------------------------


def _header(file: Path, *, pixels: bool = False) -> Dataset:
    """Read what a file says of its pixels, or these too."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except InvalidDicomError:
        raise ImageError("it is no DICOM file, though its name says so; copy it again, or take it away") from None


def _image(file: Path) -> Dataset | None:
    """Read what one of several files says of its pixels; None for a report or the like, which has none.

    Raises:
        ImageError: it should have some, by its class, or ends before that.
    """
    with decoding(repr(file.name)):
        header = _header(file)
        kind = header.file_meta.get("MediaStorageSOPClassUID")
        if "Rows" in header:
            return header
        if kind is None or not len(header) or kind.name.endswith("Image Storage"):
            raise ImageError("it has no pixels; it may be cut short, copy it again")
        return None


def _slice(file: Path) -> NDArray[Any]:
    """Decode the pixels ``(rows, columns, channels)`` of one of several files."""
    with decoding(repr(file.name)):
        pixels: NDArray[Any] = _pixels(_header(file, pixels=True))[0]
    return pixels


def _fact(dataset: Dataset, frame: int, group: str, name: str, default: Any = None) -> Any:
    """Return a fact of a frame: of its own group of facts, of that of all frames, or of the file."""
    groups = [*dataset.get("PerFrameFunctionalGroupsSequence", ())[frame : frame + 1]]
    groups += dataset.get("SharedFunctionalGroupsSequence", ())
    parts = [part for one in groups for part in one.get(group, ())]
    values = (part.get(name) for part in (*parts, dataset))
    return next((value for value in values if value is not None), default)


def _frames(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _place(dataset: Dataset, frame: int) -> Place:
    """Return where the first voxel of a slice lies, and the steps from row to row and from column to column, in millimetres."""
    position = _fact(dataset, frame, "PlanePositionSequence", "ImagePositionPatient")
    directions = _fact(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = _fact(dataset, frame, "PixelMeasuresSequence", "PixelSpacing")
    if position is None or directions is None or spacing is None:
        raise ImageError("a slice has no position, orientation or spacing in its file; name a single picture as a file")
    along_row, along_column = np.asarray(directions, np.float64).reshape(2, 3)
    return np.stack([np.asarray(position, np.float64), float(spacing[0]) * along_column, float(spacing[1]) * along_row])


def _pixels(dataset: Dataset) -> NDArray[Any]:
    """Decode the pixels ``(frames, rows, columns, channels)``, rescaled as the file says."""
    from pydicom.pixels.utils import pixel_array

    if "PixelData" not in dataset:
        raise ImageError("it has no pixels; it may be cut short, copy it again")
    _check_decoder(dataset.file_meta.TransferSyntaxUID)
    channels = int(dataset.get("SamplesPerPixel") or 1)
    values = pixel_array(dataset).reshape(_frames(dataset), int(dataset.Rows), int(dataset.Columns), channels)
    if channels > 1:
        return values
    slope, shift = (
        [float(_fact(dataset, i, "PixelValueTransformationSequence", fact, default)) for i in range(len(values))]
        for fact, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    rescaled: NDArray[Any] = values * np.reshape(slope, (-1, 1, 1, 1)) + np.reshape(shift, (-1, 1, 1, 1))
    check_finite(rescaled)
    return rescaled.astype(np.float32)


def _check_decoder(syntax: UID) -> None:
    """Refuse a compression that no installed library decodes."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageError(f"nothing decodes {syntax.name}; save it without compression, by gdcmconv --raw") from None
    if not decoder.is_available:
        needed = " or ".join(text.partition(" - requires ")[2] for text in decoder.missing_dependencies)
        raise ImageError(f"its pixels are {syntax.name}; to decode them, install {needed}, or save it without compression")


# --- Slices --------------------------------------------------------------------------------------------------------------


def _check_series(headers: Sequence[Dataset]) -> None:
    """Refuse slices of several series, or of several sizes."""
    counts = Counter((str(h.get("SeriesInstanceUID")), str(h.get("SeriesDescription", ""))) for h in headers)
    if len({uid for uid, _ in counts}) > 1:
        series = "; ".join(f"{uid} {text!r}, {count} files" for (uid, text), count in counts.items())
        raise ImageError(f"it holds {len(counts)} series, {printable(series)}; put each into a folder of its own")
    sizes = Counter((int(h.Rows), int(h.Columns), int(h.get("SamplesPerPixel") or 1)) for h in headers)
    if len(sizes) > 1:
        words = ", ".join(f"{count} of {rows} × {columns} × {channels}" for (rows, columns, channels), count in sizes.items())
        raise ImageError(f"its slices are of several sizes, {words}; keep those of one size")


def _volume(slices: Sequence[NDArray[Any]], places: Sequence[Place], notes: tuple[str, ...] = ()) -> Recording:
    """Stack slices ``(rows, columns, channels)`` in the order of their positions."""
    origins, down, across = np.swapaxes(np.stack(places), 0, 1)
    if np.abs(down - down[0]).max() > _SAME or np.abs(across - across[0]).max() > _SAME:
        raise ImageError(
            "its slices lie in planes of several directions or spacings; keep those of one, without the localisers"
        )
    normal = np.cross(across[0], down[0])
    normal /= np.linalg.norm(normal)
    depths = origins @ normal
    order = np.argsort(depths, kind="stable")
    _check_depths(depths[order])
    origins = origins[order]
    steps = np.diff(origins, axis=0)
    step = steps.mean(0)
    if np.linalg.norm(steps - step, axis=1).max() > _UNEVEN * np.linalg.norm(step):
        raise ImageError("its slices are shifted against each other, not in one row; resample them onto one grid")
    affine = np.eye(4)
    affine[:3] = np.stack([step, down[0], across[0], origins[0]], axis=1)
    affine = _RIGHT_FRONT_UP @ affine
    check_affine(affine)
    values = np.moveaxis(np.stack([slices[i] for i in order]), -1, 0)
    spacing = (float(np.diff(depths[order]).mean()), *(float(np.linalg.norm(side[0])) for side in (down, across)))
    return Recording(values, "volume", spacing, "mm", limits=range_of(values), grid=NiftiGrid.scanner(affine), notes=notes)


def _check_depths(depths: NDArray[np.float64]) -> None:
    """Refuse slices that are doubled, missing or at uneven distances; ``depths`` are their positions in order."""
    steps = np.diff(depths)
    doubled = int((steps <= _UNEVEN * steps.max()).sum())
    if doubled:
        raise ImageError(
            f"{doubled} of its {len(depths)} slices {'lies' if doubled == 1 else 'lie'} where another one does; "
            "keep one copy, time or echo of each"
        )
    usual = float(np.median(steps))
    widest = int(steps.argmax())
    if steps[widest] > 1.5 * usual:
        raise ImageError(
            f"a slice is missing between those at {depths[widest]:.2f} and {depths[widest + 1]:.2f} mm, "
            f"where the others are {usual:.2f} mm apart; copy the series again"
        )
    if np.abs(steps - usual).max() > _UNEVEN * usual:
        raise ImageError(f"its slices are {steps.min():.2f} to {steps.max():.2f} mm apart; resample them to even distances")
