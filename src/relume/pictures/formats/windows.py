"""Pictures of any size, read window by window, and maps written row by row: nothing is ever in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relume.errors import ImageError
from relume.pictures.decoding import decoding
from relume.pictures.formats.base import needing, range_of
from relume.pictures.formats.geotiff import opened_raster, read_bands
from relume.pictures.formats.table import format_of, read
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from rasterio import DatasetReader

__all__ = ["Windowed", "Write", "windowed"]

#: Rows and columns of a window: the first and the one after the last of each.
Window: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

#: Writes rows ``(C, rows, W)`` of a map, from the one of this number on.
Write: TypeAlias = Callable[[int, NDArray[np.float32]], None]


@dataclass(frozen=True, slots=True)
class Windowed:
    """A picture that is read window by window.

    Attributes:
        size: its height and width.
        read: reads a window at its own resolution.
        overview: reads all of it, at most so many pixels a side.
        suffix: the ending of the files that maps are written to.
        written: opens a file for a map of so many channels, and gives a function that writes rows.
    """

    size: tuple[int, int]
    read: Callable[[Window], Photo | Recording]
    overview: Callable[[int], Photo | Recording]
    suffix: str
    written: Callable[[Path, int], AbstractContextManager[Write]]


@contextmanager
def windowed(path: str | Path) -> Iterator[Windowed]:
    """Open a picture to be read window by window: a GeoTIFF from its file, all others from memory.

    Raises:
        ImageError: it cannot be read, or is a signal, a volume or a video.
    """
    path = Path(path)
    if format_of(path) == "geotiff":
        with needing("geo"), opened_raster(path) as dataset:
            yield _raster(dataset)
        return
    whole = read(path)
    if isinstance(whole, Recording) and whole.kind != "bands":
        raise ImageError(f"{str(path)!r} is a {whole.kind}; tiles are cut from photos and pictures of bands")
    yield _photo(whole) if isinstance(whole, Photo) else _bands(whole)


def _photo(photo: Photo) -> Windowed:
    def cut(window: Window) -> Photo:
        (top, bottom), (left, right) = window
        return Photo.whole(photo.picture.crop((left, top, right, bottom)))

    size = photo.picture.height, photo.picture.width
    return Windowed(size, cut, photo.fitted, ".npy", _array(size))


def _bands(bands: Recording) -> Windowed:
    def cut(window: Window) -> Recording:
        return _like(bands, bands.values[:, slice(*window[0]), slice(*window[1])])

    def overview(side: int) -> Recording:
        step = max(1, -(-max(bands.size) // side))
        return _like(bands, bands.values[:, ::step, ::step])

    return Windowed(bands.size, cut, overview, ".npy", _array(bands.size))  # type: ignore[arg-type]


def _like(bands: Recording, values: NDArray[Any]) -> Recording:
    return Recording(values, "bands", shown=bands.shown, limits=bands.limits)


def _array(size: tuple[int, int]) -> Callable[[Path, int], AbstractContextManager[Write]]:
    """Return how maps are written as arrays of NumPy."""

    @contextmanager
    def written(path: Path, channels: int) -> Iterator[Write]:
        values = np.lib.format.open_memmap(path, "w+", np.float32, (channels, *size))

        def write(start: int, rows: NDArray[np.float32]) -> None:
            values[:, start : start + rows.shape[1]] = rows
            values.flush()

        yield write

    return written


def _raster(dataset: DatasetReader) -> Windowed:
    size = dataset.height, dataset.width

    def recording(**options: Any) -> Recording:
        with decoding(repr(dataset.name)):
            values = read_bands(dataset, **options)
        return Recording(values, "bands", limits=range_of(values, dataset.dtypes[0]))

    def overview(side: int) -> Recording:
        factor = min(1.0, side / max(size))
        return recording(size=tuple(max(1, round(factor * length)) for length in size))

    return Windowed(size, lambda window: recording(window=window), overview, ".tif", _geotiff(dataset))


def _geotiff(dataset: DatasetReader) -> Callable[[Path, int], AbstractContextManager[Write]]:
    """Return how maps are written as GeoTIFF in the same place of the world."""

    @contextmanager
    def written(path: Path, channels: int) -> Iterator[Write]:
        import rasterio

        # a strip is a row: rows of any number are written once, as they are done
        layout = {"tiled": False, "blockysize": 1, "compress": "deflate", "predictor": 3, "bigtiff": "if_safer"}
        place = {"crs": dataset.crs, "transform": dataset.transform, "width": dataset.width, "height": dataset.height}
        options = {"driver": "GTiff", "dtype": "float32", "count": channels, "nodata": np.nan, **place, **layout}
        with rasterio.open(path, "w", **options) as file:

            def write(start: int, rows: NDArray[np.float32]) -> None:
                file.write(rows, window=((start, start + rows.shape[1]), (0, dataset.width)))

            yield write

    return written
