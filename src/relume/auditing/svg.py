"""A chart as the shapes of an SVG: plain numbers and paths, which a template draws in the colours of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relume.auditing.view import Chart, Role, number
from relume.measures.similarity import Values

__all__ = ["Plot", "plot"]


@dataclass(frozen=True, slots=True)
class Plot:
    """The shapes of a chart, in pixels from the upper left corner.

    Attributes:
        width, height: of the whole.
        frame: left, top, right and bottom of the plane that the curves lie in.
        paths: whose each curve is, and its line.
        area: below the first curve, where the chart has but one.
        across, down: the ticks of both axes, each a place and a label.
        lines: the horizontal lines, each its height, that of its name, and the name.
        dots: where a picture belongs.
    """

    width: float
    height: float
    frame: tuple[float, float, float, float]
    paths: Sequence[tuple[Role, str]]
    area: str
    across: Sequence[tuple[float, str]]
    down: Sequence[tuple[float, str]]
    lines: Sequence[tuple[float, float, str]]
    dots: Sequence[tuple[float, float]]


def plot(chart: Chart, width: float, height: float, margins: tuple[float, float, float, float]) -> Plot:
    """The shapes of ``chart`` within ``margins`` on the left, above, on the right and below."""
    left, top, right, bottom = margins[0], margins[1], width - margins[2], height - margins[3]
    last = float(chart.curves[0].x[-1])

    def xs(values: Values) -> Values:
        return left + (right - left) * values / last

    def ys(values: Values) -> Values:
        return bottom - (bottom - top) * (values - chart.low) / (chart.high - chart.low)

    paths = [(curve.role, _path(xs(curve.x), ys(curve.y))) for curve in chart.curves]
    first, marks = chart.curves[0], list(chart.marks)
    known = np.nan_to_num(first.y, nan=chart.low)
    area = f"{_path(xs(first.x), ys(known))}L{right:.1f} {bottom:.1f}L{left:.1f} {bottom:.1f}Z" if len(paths) == 1 else ""
    ticks = np.array(chart.ticks)
    places = np.array(marks, dtype=np.float64) if marks else np.arange(0, last + 1e-9, 0.25)
    lines, below = [], -np.inf
    for name, value in sorted(chart.lines.items(), key=lambda line: -line[1]):
        at = float(ys(np.array(value)))
        below = max(at, below + 14)  # so that two names do not meet
        lines.append((at, below, f"{name} {number(value)}"))
    return Plot(
        width,
        height,
        (left, top, right, bottom),
        paths,
        area,
        [(float(x), f"{place:g}") for x, place in zip(xs(places), places, strict=True)],
        [(float(y), f"{tick:g}".replace("-", "−")) for y, tick in zip(ys(ticks), ticks, strict=True)],
        lines,
        [(float(x), float(y)) for x, y in zip(xs(first.x)[marks], ys(first.y)[marks], strict=True) if np.isfinite(y)],
    )


def _path(xs: Values, ys: Values) -> str:
    """A line through the points, broken where one is missing."""
    parts, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if np.isfinite(y):
            parts.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L" if np.isfinite(y) else "M"
    return "".join(parts)
