"""A pen that draws smooth shapes on a canvas, placed, scaled, turned and mirrored, and marks which thing they belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

__all__ = ["Color", "Pen", "Points", "hsv", "mixed"]

Color: TypeAlias = tuple[int, int, int]
Array: TypeAlias = NDArray[np.float64]
Points: TypeAlias = Sequence[tuple[float, float]] | Array

_CIRCLE = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 28, endpoint=False)), np.sin(t)], axis=1)

# Catmull-Rom: the weights of four neighbouring points along the curve between the middle two
_T = np.linspace(0, 1, 6, endpoint=False)[:, None]
_SPLINE = 0.5 * np.hstack([-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, -(_T**2) + _T**3])


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Make a colour of hue (in turns, any number), saturation and value in [0, 1]."""
    k = [(n + hue % 1 * 6) % 6 for n in (5, 3, 1)]
    red, green, blue = (round(255 * value * (1 - saturation * max(0, min(n, 4 - n, 1)))) for n in k)
    return red, green, blue


def mixed(a: Color, b: Color, share: float) -> Color:
    """Mix ``share`` of ``b`` with the rest of ``a``."""
    red, green, blue = (round(x + share * (y - x)) for x, y in zip(a, b, strict=True))
    return red, green, blue


def turned(angle: float) -> Array:
    """Make the matrix that turns row vectors by ``angle`` radians, clockwise where y points down."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


@dataclass(frozen=True, slots=True, eq=False)
class Pen:
    """A pen with coordinates of its own, placed on the canvas by ``axes`` ``(2, 2)`` and ``centre`` ``(2,)``.

    The canvas is RGBA. Its alpha channel holds no opacity but ``owner``, the number of the thing drawn last at that pixel. So
    one drawing gives the picture and the masks, with every occlusion in them.
    """

    draw: ImageDraw.ImageDraw
    owner: int
    centre: Array
    axes: Array

    def part(self, x: float, y: float, size: float = 1.0, turn: float = 0.0) -> Pen:
        """Return a pen whose origin is at ``(x, y)`` of this one, and whose unit is ``size`` of this one's."""
        return replace(self, centre=self.centre + np.array([x, y]) @ self.axes, axes=size * turned(turn) @ self.axes)

    def fill(self, points: Points, color: Color) -> None:
        """Fill a polygon."""
        placed = np.asarray(points, dtype=float) @ self.axes + self.centre
        self.draw.polygon(placed.ravel().tolist(), (*color, self.owner))

    def blob(self, points: Points, color: Color) -> None:
        """Fill a closed smooth curve through ``points``."""
        around = np.asarray(points, dtype=float)
        self.fill(_spline(np.concatenate([around[-1:], around, around[:2]])), color)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color, turn: float = 0.0) -> None:
        """Fill an ellipse about ``(x, y)``, turned by ``turn`` radians."""
        ring = _CIRCLE * (rx, ry)
        self.fill((ring @ turned(turn) if turn else ring) + (x, y), color)

    def stroke(self, points: Points, width: float, color: Color, tip: float | None = None) -> None:
        """Draw a smooth open line through ``points`` with round ends, from ``width`` to ``tip`` wide."""
        line = np.asarray(points, dtype=float)
        line = _spline(np.concatenate([2 * line[:1] - line[1:2], line, 2 * line[-1:] - line[-2:-1]]), line[-1:])
        along = np.gradient(line, axis=0)
        radius = np.linspace(width, width if tip is None else tip, len(line)) / 2
        across = along[:, ::-1] * (-1, 1) * (radius / (np.hypot(along[:, 0], along[:, 1]) + 1e-9))[:, None]
        self.fill(np.concatenate([line + across, (line - across)[::-1]]), color)
        for end in (0, -1):
            self.fill(line[end] + radius[end] * _CIRCLE[::3], color)


def _spline(points: Array, *more: Array) -> Array:
    """Sample the Catmull-Rom spline from the second of ``points`` to the last but one, six times for each, then ``more``."""
    four = np.stack([points[i : len(points) - 3 + i] for i in range(4)], axis=1)
    return np.concatenate([np.einsum("tk,nkc->ntc", _SPLINE, four).reshape(-1, 2), *more])
