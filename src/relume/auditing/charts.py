"""Charts of an audit, drawn once: by matplotlib on the axes of a figure, or as an SVG element of a page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from relume.auditing.drawing import ROLES, Chart, number
from relume.pages.html import inline_svg
from relume.pictures.palette import CURVES, LINE, SOFT

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

__all__ = ["chart_svg", "draw_chart", "legend_svg"]


def draw_chart(axes: Axes, chart: Chart, size: float = 7) -> None:
    """Draw a chart on ``axes``, its text of ``size`` points."""
    axes.set(xlim=(0, chart.curves[0].x[-1]), ylim=(chart.low, chart.high), yticks=chart.ticks)
    axes.set_yticks(chart.ticks, [f"{tick:g}".replace("-", "−") for tick in chart.ticks])
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=size, colors=SOFT, length=0, pad=3)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    last = chart.curves[0].x[-1]
    for name, (value, place) in _apart(chart.lines, 0.11 * (chart.high - chart.low)).items():
        axes.axhline(value, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        words = f"{name}\n{number(value)}"
        axes.annotate(words, (last, place), (8, 0), textcoords="offset points", fontsize=size, color=SOFT, va="center")
    for curve in chart.curves:
        axes.plot(curve.x, curve.y, **CURVES[curve.role], label=ROLES[curve.role], clip_on=False)
        if len(chart.curves) == 1:
            axes.fill_between(curve.x, chart.low, curve.y, color=CURVES[curve.role]["color"], alpha=0.08, linewidth=0)
    if chart.marks:
        marks, curve = list(chart.marks), chart.curves[0]
        axes.plot(marks, curve.y[marks], "o", color=CURVES[curve.role]["color"], markersize=4.5, clip_on=False)
        axes.set_xticks(marks)
    else:
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(textwrap.fill(chart.x, 44), fontsize=size, color=SOFT, labelpad=3)
    axes.set_ylabel(chart.y, fontsize=size, color=SOFT, labelpad=3)


def _apart(lines: Mapping[str, float], least: float) -> dict[str, tuple[float, float]]:
    """Return each line with the height of its name, such that two names do not meet."""
    placed: dict[str, tuple[float, float]] = {}
    below = np.inf
    for name, value in sorted(lines.items(), key=lambda line: -line[1]):
        below = min(value, below - 2 * least)
        placed[name] = value, below
    return placed


def chart_svg(chart: Chart, tiles: int = 0) -> Markup:
    """Draw a chart as an element of a page; a point is a pixel.

    Args:
        chart: what is drawn.
        tiles: how many pictures stand above it, the first and last of which above the ends of its curves; 0 if none.
    """
    from matplotlib.figure import Figure

    width, height = (1.6 * tiles, 2.1) if tiles else (3.6, 2.3)
    left, right = (1 / (2 * tiles), 1 - 1 / (2 * tiles)) if tiles else (0.15, 0.97)
    sheet = Figure(figsize=(width, height))
    axes = sheet.add_axes((left, 0.5 / height, right - left, 1 - 0.62 / height))
    draw_chart(axes, chart, 8)
    return inline_svg(sheet, f"{chart.title}: {chart.y} over {chart.x}")


def legend_svg(chart: Chart) -> Markup:
    """Draw the legend of a chart's curves as an element of a page."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **CURVES[curve.role], label=ROLES[curve.role]) for curve in reversed(chart.curves)]
    sheet = Figure(figsize=(1.45 * len(lines), 0.24))
    sheet.legend(
        handles=lines, ncols=len(lines), loc="center left", fontsize=9, frameon=False, labelcolor=SOFT, handlelength=2.4,
        borderpad=0, borderaxespad=0, columnspacing=1.5,
    )  # fmt: skip
    return inline_svg(sheet, "")
