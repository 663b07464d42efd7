"""NIfTI volumes, .nii and .nii.gz, by nibabel; maps are written with the same affine, so that they lie on the scan."""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relume.errors import ImageError
from relume.pictures.formats.base import check_finite, needing
from relume.pictures.recording import Recording

__all__ = ["Affine", "NiftiGrid", "check_affine", "read_nifti"]

#: Four rows of four numbers: from the numbers of a voxel to millimetres to the right, to the front and up.
Affine: TypeAlias = tuple[tuple[float, ...], ...]

_MM = {"meter": 1000.0, "micron": 0.001}
_LONGEST = 32767  # voxels along an axis of NIfTI-1
_MOST_PACKED = 1032  # bytes that gzip makes one of


@dataclass(frozen=True, slots=True)
class NiftiGrid:
    """The place of voxels in the world as NIfTI tells it.

    Attributes:
        spacing: the distance of voxels along each axis, in ``unit``.
        sform: the affine of the header's sform, if it has one.
        sform_code: the space that it leads to.
        qform: the affine of the header's qform, if it has one.
        qform_code: the space that it leads to.
        unit: the unit of length in NIfTI's words.
    """

    spacing: tuple[float, ...]
    sform: Affine | None
    sform_code: int
    qform: Affine | None = None
    qform_code: int = 0
    unit: str = "mm"
    suffix: ClassVar[str] = ".nii.gz"

    @classmethod
    def scanner(cls, affine: NDArray[np.float64]) -> Self:
        """Make a grid of an affine to the millimetres of a scanner; a sheared one is no qform."""
        steps = affine[:3, :3]
        lengths = np.sqrt((steps**2).sum(0))
        sheared = np.abs(np.triu((steps / lengths).T @ (steps / lengths), 1)).max() > 1e-4
        form = _plain(affine)
        return cls(tuple(lengths.tolist()), form, 1, None if sheared else form, 0 if sheared else 1)

    @needing("medical")
    def write(self, values: NDArray[np.float32]) -> bytes:
        """Return a file of ``values`` ``(C, *spatial)``, with the channels last, as NIfTI has them."""
        from nibabel.nifti1 import Nifti1Image
        from nibabel.nifti2 import Nifti2Image

        voxels = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
        kind: Any = Nifti1Image if max(voxels.shape) <= _LONGEST else Nifti2Image
        image = kind(voxels.astype(np.float32), None)
        image.header.set_xyzt_units(self.unit)
        image.header.set_zooms(self.spacing + (1.0,) * (voxels.ndim - 3))
        image.set_qform(self.qform, self.qform_code)
        image.set_sform(self.sform, self.sform_code)
        return gzip.compress(image.to_bytes(), 6, mtime=0)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def read_nifti(path: Path) -> Recording:
    """Read a volume in the order of its file's own axes; a fourth axis is taken for channels.

    Raises:
        ImageError: it is no NIfTI file, is cut short, has no three axes, a singular affine, or values that are not finite.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    with _silent():
        try:
            image = nibabel.load(path)
        except ImageFileError:
            raise ImageError("its header is not that of NIfTI; it may be of another format, or cut short") from None
        if not isinstance(image, nibabel.Nifti1Image):
            raise ImageError(f"it holds {type(image).__name__}, not NIfTI; convert it by nibabel.save")
        if image.get_data_dtype().kind not in "buif":
            raise ImageError(f"its voxels are {image.get_data_dtype()}, not real numbers; convert it to one number a channel")
        values, notes = _channels_first(_voxels(image, path))
        header, affine = image.header, image.affine
    check_affine(affine)
    check_finite(values)
    sform, sform_code = header.get_sform(coded=True)
    qform, qform_code = header.get_qform(coded=True)
    unit = header.get_xyzt_units()[0]
    zooms = tuple(float(zoom) for zoom in header.get_zooms()[:3])
    grid = NiftiGrid(zooms, _plain(sform), int(sform_code), _plain(qform), int(qform_code), unit)
    steps = np.sqrt((affine[:3, :3] ** 2).sum(0)) * _MM.get(unit, 1.0)
    spacing = tuple(float(f"{step:.7g}") for step in steps)  # the header has single precision
    return Recording(values, "volume", spacing, "mm", grid=grid, notes=notes)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep nibabel from printing what it thinks of a header."""
    logger = logging.getLogger("nibabel.global")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _voxels(image: Any, path: Path) -> NDArray[np.float32]:
    """Read the voxels, scaled by the slope and intercept of the header."""
    most = path.stat().st_size * (_MOST_PACKED if path.suffix.lower() == ".gz" else 1)
    try:
        if math.prod(image.shape) * image.get_data_dtype().itemsize <= most:  # or memory would be filled for nothing
            voxels: NDArray[np.float32] = image.get_fdata(dtype=np.float32, caching="unchanged")
            return voxels
    except (OSError, EOFError, ValueError, zlib.error):
        pass
    size = " × ".join(map(str, image.shape))
    raise ImageError(f"its voxels are damaged or cut short, there should be {size}; copy it again")


def _channels_first(voxels: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return voxels ``(C, D, H, W)``, and the note on what their fourth axis is taken for."""
    shape = voxels.shape
    if len(shape) == 5 and shape[3] == 1:  # a vector in each voxel, which NIfTI puts after time
        voxels = voxels[:, :, :, 0]
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim == 3:
        return voxels[None], ()
    if voxels.ndim != 4:
        raise ImageError(f"a volume has three axes, and a fourth for its channels; its shape is {shape}; save one volume of it")
    return np.moveaxis(voxels, -1, 0), (f"its fourth axis is taken for {voxels.shape[-1]} channels, not for times",)


def check_affine(affine: NDArray[np.float64]) -> None:
    """Refuse an affine by which voxels have no place or no size.

    Raises:
        ImageError: it is singular or not finite.
    """
    steps = np.asarray(affine, np.float64)[:3, :3]
    lengths = np.sqrt((steps**2).sum(0))
    if not np.isfinite(affine).all() or not lengths.all() or abs(np.linalg.det(steps / lengths)) < 1e-6:
        rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in steps)
        raise ImageError(f"its affine ({rows}) is singular, so its voxels have no place; write that of the scanner into it")


def _plain(affine: NDArray[np.float64] | None) -> Affine | None:
    return None if affine is None else tuple(tuple(float(value) for value in row) for row in affine)
