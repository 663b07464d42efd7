"""What checks show of a map, as plain data: pictures side by side, and charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.measures.similarity import Values
from relume.pictures import kinds
from relume.pictures.scale import scale_of
from relume.text import decimal

__all__ = ["PROJECTIONS", "ROLES", "Chart", "Curve", "Role", "Strip", "Tile", "heat", "number", "plane", "similarity"]

#: How values of other than two spatial axes are drawn, by the number of their axes.
PROJECTIONS: Mapping[int, str] = MappingProxyType(
    {1: "maps are drawn as bands", 3: "maps are drawn as their highest values along the first axis"}
)

#: The most columns that the band of a signal has.
COLUMNS = 512

#: Whose curve it is: the map's own, or one of those it is measured against; a key of :data:`relume.pictures.palette.CURVES`.
Role: TypeAlias = Literal["method", "random", "edges"]

#: The name of each role in a legend.
ROLES: Mapping[Role, str] = MappingProxyType({"method": "the map's order", "random": "random order", "edges": "order of edges"})


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A picture under its ``name``, with a ``note`` below.

    Example:
        >>> from PIL import Image
        >>> from relume.auditing import Tile
        >>> Tile("cat", "the class explained", Image.new("RGB", (8, 8))).name
        'cat'
    """

    name: str
    note: str
    picture: Image.Image


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Pictures side by side, and the words for the scale that they are drawn at.

    Example:
        >>> from PIL import Image
        >>> from relume.auditing import Strip, Tile
        >>> tiles = [Tile(name, "", Image.new("RGB", (8, 8))) for name in ("cat", "dog")]
        >>> len(Strip(tiles, "each at its own scale").tiles)
        2
    """

    tiles: Sequence[Tile]
    scale: str


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A curve ``y`` over ``x``; NaN where there is a gap.

    Example:
        >>> import numpy as np
        >>> from relume.auditing import Curve
        >>> Curve("method", np.array([0, 0.5, 1]), np.array([0.9, np.nan, 0.1])).role
        'method'
    """

    role: Role
    x: Values
    y: Values


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """Curves over one axis.

    Attributes:
        title: what it shows.
        x, y: the titles of both axes.
        curves: the curves; all begin and end at the same ``x``.
        low, high: the ends of the axis of ``y``.
        lines: the heights of horizontal lines, by name.
        marks: the ``x`` above which the tiles of the strip before it stand, one for each; none if it belongs to no strip.

    Example:
        >>> import numpy as np
        >>> from relume.auditing import Chart, Curve
        >>> curve = Curve("method", np.array([0, 1]), np.array([0.9, 0.1]))
        >>> Chart("Deletion", "share of pixels removed", "probability", [curve]).ticks
        [0, 0.5, 1]
    """

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    low: float = 0.0
    high: float = 1.0
    lines: Mapping[str, float] = field(default_factory=dict)
    marks: Sequence[int] = ()

    @property
    def ticks(self) -> list[float]:
        """Return the values beside the axis of ``y``: halves up to 1; ends and middle of an axis that ends elsewhere."""
        if self.high != 1:
            return [self.low, (self.low + self.high) / 2, self.high]
        return [tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= self.low]


def number(value: float) -> str:
    """Return a measure as it is read: two digits, with a minus sign that is one."""
    return "undefined" if math.isnan(value) else decimal(value)


def similarity(value: float, values: Values) -> str:
    """Return the similarity of a map of these ``values``; or say that the map shows nothing."""
    if not np.isfinite(values).all():
        return "no map"
    return number(value) if values.any() else "empty"


def plane(values: NDArray[Any]) -> NDArray[Any]:
    """Return what is drawn of values ``(*spatial)``, ``(H, W)``: :data:`PROJECTIONS` of those with one axis, or with three.

    A column of the band of a long signal has the highest of several values.
    """
    if values.ndim == 1:
        columns = min(len(values), COLUMNS)
        band = np.maximum.reduceat(values, np.arange(columns) * len(values) // columns)
        return band[None].repeat(max(1, columns // 4), axis=0)
    highest: NDArray[Any] = values.max(axis=tuple(range(values.ndim - 2)))
    return highest


def heat(values: Values, full: float | None = None) -> Image.Image:
    """Draw the :func:`plane` of saliency at its own scale, or with ``full`` at full strength; grey where there is no map."""
    small = plane(values).astype(np.float32)
    if not np.isfinite(values).all():
        return Image.new("RGB", small.shape[::-1], (128, 128, 128))
    return kinds.absolute(small, scale_of(small) if full is None else full)
