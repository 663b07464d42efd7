"""GeoTIFF of any bands by rasterio; maps are written with the same georeference."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from relume.errors import ImageError
from relume.pictures.formats.base import check_finite, computable, needing, range_of
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from rasterio import DatasetReader

__all__ = ["GeoGrid", "is_geotiff", "opened_raster", "read_bands", "read_geotiff"]

logging.getLogger("rasterio").addHandler(logging.NullHandler())  # or GDAL's errors would be printed as well

_SAMPLES, _BITS, _EXTRA, _NUMBERS = 277, 258, 338, 339  # tags of TIFF: bands, bits of each, alpha, kind of number
_PLACES = (33550, 34264, 34735)  # tags of GeoTIFF: scale, affine and coordinate reference system


@dataclass(frozen=True, slots=True)
class GeoGrid:
    """The place of pixels on the Earth as GeoTIFF tells it.

    Attributes:
        crs: the coordinate reference system as WKT; empty if unknown.
        transform: from column and row of a pixel's upper left corner to coordinates, ``(a, b, c, d, e, f)``:
            ``x = a * column + b * row + c`` and ``y = d * column + e * row + f``.
        bands: the description of each band of the file, which a map of as many bands has too.
    """

    crs: str
    transform: tuple[float, ...]
    bands: tuple[str, ...] = ()
    suffix: ClassVar[str] = ".tif"

    @needing("geo")
    def write(self, values: NDArray[np.float32]) -> bytes:
        """Return a file of ``values`` ``(C, *spatial)``."""
        from rasterio.io import MemoryFile
        from rasterio.transform import Affine

        count, height, width = values.shape
        options = {"compress": "deflate", "predictor": 3, "bigtiff": "if_safer", "crs": self.crs or None}
        shape = {"count": count, "height": height, "width": width, "dtype": "float32"}
        with warnings.catch_warnings(), MemoryFile() as file:
            warnings.simplefilter("ignore")  # that a picture without georeference has none
            with file.open(driver="GTiff", transform=Affine(*self.transform), **shape, **options) as dataset:
                dataset.write(values.astype(np.float32))
                if len(self.bands) == count:
                    dataset.descriptions = self.bands
            content: bytes = file.read()
        return content

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def is_geotiff(path: Path) -> bool:
    """Tell whether a file is a TIFF with a place on the Earth, or of numbers or bands that a photo does not have."""
    if path.suffix.lower() not in (".tif", ".tiff") or not path.is_file():
        return False
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            head = file.read(8)
            tags = ImageFileDirectory_v2(head + file.read(8) if head[2:3] == b"+" else head)
            file.seek(tags.next)
            tags.load(file)
            samples, extra = tags.get(_SAMPLES, 1), tags.get(_EXTRA, ())
            is_photo = samples in (1, 3, 4) or (samples == 2 and extra in ((1,), (2,)))
            deep = max(tags.get(_BITS, (1,))) > 16 or not {1, 4}.issuperset(tags.get(_NUMBERS, (1,)))
            return not is_photo or deep or any(tag in tags for tag in _PLACES)
    except Exception:  # noqa: BLE001 - a damaged directory leads Pillow to exceptions of any type; reading it says so
        return False


@contextmanager
def opened_raster(path: Path) -> Iterator[DatasetReader]:
    """Open a TIFF; an error while its pixels are read inside becomes a sentence.

    Raises:
        ImageError: it is damaged or cut short, or holds complex numbers.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(path.absolute(), driver="GTiff") as dataset:
            if any(dtype.startswith("complex") for dtype in dataset.dtypes):
                raise ImageError("it holds complex numbers; save their magnitude")
            yield dataset
    except RasterioIOError:
        raise ImageError("it is no TIFF, or is damaged or cut short; copy it again") from None


def read_bands(dataset: DatasetReader, size: tuple[int, int] | None = None, **options: Any) -> NDArray[Any]:
    """Read all bands but transparency, ``(C, H, W)``, means of pixels where ``size`` is smaller; NaN where it is nodata.

    Options are those of rasterio's ``read``.

    Raises:
        ImageError: some values are infinite.
    """
    from rasterio.enums import Resampling

    shown = _shown(dataset)
    if size is not None:
        options |= {"out_shape": (len(shown), *size), "resampling": Resampling.average}
    masked = dataset.read(shown, masked=True, **options)
    values = computable(masked.data)
    hidden = np.ma.getmaskarray(masked) | np.isnan(values)
    check_finite(values[~hidden])
    return np.where(hidden, np.float32("nan"), values.astype(np.float32)) if hidden.any() else values


def _shown(dataset: DatasetReader) -> list[int]:
    """Return the numbers of all bands but transparency."""
    from rasterio.enums import ColorInterp

    return [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind != ColorInterp.alpha]


def read_geotiff(path: Path) -> Recording:
    """Read all bands of a TIFF but its transparency; what it marks as nodata is NaN.

    Raises:
        ImageError: it is damaged or cut short, holds complex or infinite values, or nothing but nodata.
    """
    with opened_raster(path) as dataset:
        values = read_bands(dataset)
        notes = _nodata_note(values)
        crs, transform = dataset.crs, tuple(map(float, dataset.transform[:6]))
        ends = range_of(values, dataset.dtypes[0])  # nodata makes numbers of bytes
        bands = tuple(dataset.descriptions[i - 1] or "" for i in _shown(dataset))
        if dataset.gcps[0]:
            notes += ("its ground control points are not kept in maps",)
        if any(scale != 1 or offset for scale, offset in zip(dataset.scales, dataset.offsets, strict=True)):
            notes += ("its values are as they are stored, without their scale and offset",)
    a, b, _, d, e, _ = transform
    if not a * e - b * d or not all(map(math.isfinite, transform)):
        raise ImageError(f"its transform {transform} is singular, so its pixels have no place; write that of the scene into it")
    grid = GeoGrid(crs.to_wkt() if crs else "", transform, bands if any(bands) else ())
    steps = math.hypot(b, e), math.hypot(a, d)
    return Recording(values, "bands", steps, _unit(crs), limits=ends, grid=grid, notes=notes)


def _nodata_note(values: NDArray[Any]) -> tuple[str, ...]:
    """Return the note on values that are nodata.

    Raises:
        ImageError: all are.
    """
    count = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    if count == values.size:
        raise ImageError("it holds nothing but nodata; give another scene")
    return (f"{max(100 * count / values.size, 0.1):.1f} % of its values are nodata",) if count else ()


def _unit(crs: Any) -> str:
    """Return the unit of the distance between pixels."""
    if not crs:
        return ""
    return "°" if crs.is_geographic else {"metre": "m"}.get(crs.linear_units, crs.linear_units)
