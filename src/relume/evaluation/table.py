"""Estimates as a table and as a figure."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from relume.measures.localisation import Column
from relume.measures.statistics import Estimate
from relume.pictures.palette import COLOURS, INK, LINE, SERIES, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Rows", "figure", "markdown"]

#: Estimates by row and by column.
Rows = Mapping[str, Mapping[str, Estimate]]


def markdown(rows: Rows, columns: Mapping[str, Column]) -> str:
    """Write a table in Markdown: a line for each row, the estimates of ``columns``, with arrows to what is better."""
    lines = [["", *map(str, columns.values())], ["---"] * (len(columns) + 1)]
    lines += [[name, *(str(estimates[key]) for key in columns)] for name, estimates in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def figure(rows: Rows, groups: Mapping[str, Mapping[str, Column]], methods: Sequence[str], caption: str) -> Figure:
    """Draw the estimates with their intervals: a panel for each column, a band for each group, ``methods`` in colour."""
    from matplotlib.figure import Figure

    colours = dict(zip(methods, itertools.cycle(SERIES), strict=False))
    wide, tall = max(map(len, groups.values())), 0.22 * len(rows) + 0.75  # panels, inches
    sheet = Figure(figsize=(2.6 * wide + 2.0, tall * len(groups) + 0.75), dpi=150, facecolor="white", layout="constrained")
    bands = sheet.subfigures(len(groups), 1, squeeze=False).ravel()
    for band, (group, columns) in zip(bands, groups.items(), strict=True):
        band.suptitle(group, x=0.01, ha="left", fontsize=10.5, fontweight="bold", color=INK)
        panels = band.subplots(1, wide, sharey=True, squeeze=False)[0]
        for panel in panels[len(columns) :]:
            panel.set_visible(False)
        for panel, (key, column) in zip(panels, columns.items(), strict=False):
            _panel(panel, {name: estimates[key] for name, estimates in rows.items()}, column, colours)
    sheet.supxlabel("\n".join(textwrap.wrap(caption, 150)), fontsize=8, color=SOFT)
    return sheet


def _panel(axes: Axes, estimates: Mapping[str, Estimate], column: Column, colours: Mapping[str, str]) -> None:
    """Draw one column: a dot with its interval for each row, from the top down."""
    for place, (name, e) in enumerate(estimates.items()):
        color = colours.get(name, COLOURS["edge"][0])
        axes.axhline(place, color=LINE, linewidth=0.8, zorder=0)
        if e.count:
            axes.plot([e.low, e.high], [place, place], color=color, linewidth=2.5, solid_capstyle="round", alpha=0.5)
            axes.plot(e.mean, place, "o", color=color, markersize=4.5)
    axes.set_title(f"{column.title}  {'better →' if column.better == 'high' else '← better'}", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(estimates)), list(estimates), fontsize=8)
    axes.set_ylim(len(estimates) - 0.4, -0.6)
    axes.tick_params(length=0, labelsize=8, colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
