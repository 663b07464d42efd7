"""The page of a calibration: the scores of each method, and the first mosaics with their maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from relume.explanation.calibration import Calibration
from relume.measures.statistics import Estimate
from relume.pages.html import data_uri, document

__all__ = ["CellView", "MapTile", "MosaicView", "calibration_page"]

#: The longest side of a picture on the page.
SIDE = 320


@dataclass(frozen=True, slots=True, eq=False)
class MapTile:
    """A map drawn on its mosaic.

    Attributes:
        title: the name of the map.
        picture: the map on the mosaic.
        mass: the share of it in the right cell; NaN if it is empty.
        right: True if the right cell has the largest share.
    """

    title: str
    picture: Image.Image
    mass: float
    right: bool


@dataclass(frozen=True, slots=True, eq=False)
class CellView:
    """The class of one cell, and its maps.

    Attributes:
        name: the name of the class.
        probability: that of the class in the photograph alone.
        place: the number of the cell, row by row.
        maps: the maps.
    """

    name: str
    probability: float
    place: int
    maps: Sequence[MapTile]


@dataclass(frozen=True, slots=True, eq=False)
class MosaicView:
    """A mosaic, its picture, and its cells."""

    picture: Image.Image
    grid: int
    cells: Sequence[CellView]


def calibration_page(calibration: Calibration, mosaics: Sequence[MosaicView]) -> str:
    """Make the HTML document of a calibration and some of its mosaics."""
    columns = {"mass": "share on the right cell", "heaviest": "heaviest cell right"}
    more = {"focus": "Focus", "dipart": "DiPart", "difull": "DiFull"}
    columns |= {key: name for key, name in more.items() if any(getattr(s, key) for s in calibration.methods.values())}
    chances = {"focus": 0.5} | dict.fromkeys(["mass", "heaviest", "dipart", "difull"], calibration.chance)
    title = f"{calibration.model}: where methods point"
    data = {"c": calibration, "columns": columns, "chances": chances, "mosaics": mosaics, "uri": _uri, "bar": _bar}
    return document("calibration", title, data, scripts=["audit"])


def _uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return data_uri(small, 0)


def _bar(estimate: Estimate) -> tuple[float, float]:
    """Return where the bar of an interval begins and how wide it is, in hundredths; as wide as can be seen, at least."""
    low, high = (estimate.low, estimate.high) if estimate.count > 1 else (estimate.mean, estimate.mean)
    width = max(100 * (high - low), 2.0)
    return min(max(50 * (low + high) - width / 2, 0.0), 100 - width), width
