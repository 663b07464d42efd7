"""A figure with its uncertainty, and figures as a table and as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from relume.measures.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Column", "Rows", "figure", "markdown"]


@dataclass(frozen=True, slots=True)
class Column:
    """What a column is called, and what is better in it."""

    title: str
    better: Literal["high", "low"]

    def __str__(self) -> str:
        return f"{self.title} {'↑' if self.better == 'high' else '↓'}"


#: Figures by row and by column.
Rows = Mapping[str, Mapping[str, Estimate]]


def markdown(rows: Rows, columns: Mapping[str, Column]) -> str:
    """A table in Markdown: a line for each row, the figures of ``columns``, the arrow of each saying what is better."""
    lines = [["", *map(str, columns.values())], ["---"] * (len(columns) + 1)]
    lines += [[name, *(str(figures[key]) for key in columns)] for name, figures in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def figure(rows: Rows, groups: Mapping[str, Mapping[str, Column]], named: Sequence[str], caption: str) -> Figure:
    """The figures with their intervals: a panel for each column, a band for each group, ``named`` rows in colour."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    ink = {name: colormaps["tab10"](i) for i, name in enumerate(named)}
    wide, tall = max(map(len, groups.values())), 0.22 * len(rows) + 0.75  # panels, inches
    sheet = Figure(figsize=(2.6 * wide + 2.0, tall * len(groups) + 0.75), dpi=150, facecolor="white", layout="constrained")
    bands = sheet.subfigures(len(groups), 1, squeeze=False).ravel()
    for band, (group, columns) in zip(bands, groups.items(), strict=True):
        band.suptitle(group, x=0.01, ha="left", fontsize=10.5, fontweight="bold", color="#333")
        panels = band.subplots(1, wide, sharey=True, squeeze=False)[0]
        for panel in panels[len(columns) :]:
            panel.set_visible(False)
        for panel, (key, column) in zip(panels, columns.items(), strict=False):
            _panel(panel, {name: figures[key] for name, figures in rows.items()}, column, ink)
    sheet.supxlabel("\n".join(textwrap.wrap(caption, 150)), fontsize=8, color="#666")
    return sheet


def _panel(axes: Axes, figures: Mapping[str, Estimate], column: Column, ink: Mapping[str, tuple[float, ...]]) -> None:
    """One column: a dot with its interval for each row, from the top down."""
    for place, (name, e) in enumerate(figures.items()):
        color = ink.get(name, "#999")
        axes.axhline(place, color="#eee", linewidth=0.8, zorder=0)
        if e.count:
            axes.plot([e.low, e.high], [place, place], color=color, linewidth=2.5, solid_capstyle="round", alpha=0.5)
            axes.plot(e.mean, place, "o", color=color, markersize=4.5)
    axes.set_title(f"{column.title}  {'better →' if column.better == 'high' else '← better'}", fontsize=8.5, color="#333")
    axes.set_yticks(range(len(figures)), list(figures), fontsize=8)
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.tick_params(length=0, labelsize=8, colors="#444")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbb")
