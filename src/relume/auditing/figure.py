"""An audit as a figure for a paper: the verdict over its strips, curves and figures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL.Image import Image

from relume.auditing.view import ROLES, AuditView, Chart, FigureRow, Role, Strip, Tile, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MOST", "audit_figure"]

#: How many maps a figure shows; more are no picture any more.
MOST = 12

# inches
WIDTH, MARGIN, GAP, COLUMNS, LINE = 12.6, 0.3, 0.12, 8, 0.2
TILE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS

INK, SOFT, LEAD, FAINT, WRONG = "#1d1b18", "#645e56", "#c4beb5", "#dfdbd4", "#b3261e"
STROKES: Mapping[Role, Mapping[str, Any]] = MappingProxyType(
    {
        "method": {"color": "#9a4a00", "linewidth": 1.8, "linestyle": "-"},
        "random": {"color": "#8d867c", "linewidth": 1.2, "linestyle": (0, (1, 1.5))},
        "edges": {"color": "#2b6ca3", "linewidth": 1.2, "linestyle": (0, (5, 2))},
    }
)

#: How tall a part of the figure is, and what draws it below a height.
Part: TypeAlias = tuple[float, Callable[[float], None]]


def audit_figure(views: Sequence[AuditView], *, dpi: float = 150) -> Figure:
    """A figure of what was found about each map, one below the other, :data:`MOST` of them at most; text stays text."""
    from matplotlib.figure import Figure

    sheet = Figure(dpi=dpi, facecolor="white")
    paper = _Paper(sheet)
    parts = [part for view in views[:MOST] for part in _parts(paper, view)]
    if len(views) > MOST:
        parts.append((LINE, lambda y: paper.write(MARGIN, y, f"the first {MOST} of {len(views)} maps", 7, SOFT)))
    y = paper.sized(sum(tall for tall, _ in parts) + MARGIN)
    for tall, draw in parts:
        draw(y)
        y -= tall
    return sheet


class _Paper:
    """A sheet that is measured in inches, from its lower left corner."""

    def __init__(self, sheet: Figure) -> None:
        self.sheet = sheet
        self.canvas = sheet.add_axes((0, 0, 1, 1), xlim=(0, WIDTH))  # one for all pictures: axes are slow to make
        self.canvas.set_axis_off()
        self.height = 1.0
        sheet.suppressComposite = True  # or a PDF would hold all of them as one picture

    def sized(self, height: float) -> float:
        self.height = height
        self.sheet.set_size_inches(WIDTH, height)
        self.canvas.set_ylim(0, height)
        return height

    def write(
        self,
        x: float,
        y: float,
        words: str,
        size: float,
        color: str = INK,
        ha: Literal["left", "center", "right"] = "left",
        weight: str = "normal",
    ) -> None:
        """Words whose middle line is half a line below ``y``."""
        place = x / WIDTH, (y - LINE / 2) / self.height
        self.sheet.text(*place, words, fontsize=size, color=color, ha=ha, va="center", fontweight=weight, parse_math=False)

    def show(self, picture: Image, x: float, y: float, tall: float) -> None:
        """A picture in the middle of a tile whose upper left corner is at ``(x, y)``."""
        from matplotlib.image import AxesImage

        share = min(TILE / picture.width, tall / picture.height)
        wide, high = share * picture.width, share * picture.height
        left, top = x + (TILE - wide) / 2, y - (tall - high) / 2
        image = AxesImage(self.canvas, extent=(left, left + wide, top - high, top), interpolation="antialiased")
        image.set_data(np.asarray(picture))
        self.canvas.add_image(image)

    def axes(self, left: float, top: float, wide: float, tall: float) -> Axes:
        place = left / WIDTH, (top - tall) / self.height, wide / WIDTH, tall / self.height
        made = self.sheet.add_axes(place)
        made.spines[["top", "right"]].set_visible(False)
        made.spines[["left", "bottom"]].set_color(FAINT)
        made.tick_params(labelsize=6.5, colors=SOFT, length=2, width=0.6, pad=2)
        return made


def _left(column: float) -> float:
    return MARGIN + column * (TILE + GAP)


def _parts(paper: _Paper, view: AuditView) -> Iterator[Part]:
    """The parts of one map's figure, from above to below."""
    tall = TILE * min(max(view.picture.height / view.picture.width, 0.5), 1.6)
    yield _head(paper, view)
    if "cascade" in view.strips or view.curve is not None:
        yield _cascade(paper, view, tall)
    pair = [view.strips[key] for key in ("classes", "edges") if key in view.strips]
    if pair:
        yield _pair(paper, pair, tall)
    yield _foot(paper, view)


def _head(paper: _Paper, view: AuditView) -> Part:
    """What was asked, and the verdict as the title."""
    lines = textwrap.wrap(view.says, 128)
    asked = "   ·   ".join(part for part in (view.name, f"{view.method}: {view.subject}", *view.about) if part)

    def draw(y: float) -> None:
        paper.canvas.plot([MARGIN, WIDTH - MARGIN], [y, y], color=FAINT, linewidth=0.8)
        paper.write(MARGIN, y - 0.16, asked, 8, SOFT)
        for n, line in enumerate(lines):
            paper.write(MARGIN, y - 0.42 - n * 0.23, line, 11.5, weight="bold")

    return 0.62 + 0.23 * len(lines), draw


def _cascade(paper: _Paper, view: AuditView, tall: float) -> Part:
    """The picture, and the map at each stage above its place on the curve."""
    strip, chart = view.strips.get("cascade"), view.curve
    above = 0.3 + 2 * LINE + tall if strip else 0.1
    below = 1.95 if chart else 0.2

    def draw(y: float) -> None:
        _title(paper, strip.title if strip else chart.title if chart else "", y, _left(0))
        if strip is not None:
            _tiles(paper, [Tile("the picture", "as the network saw it", view.picture), *strip.tiles], y - 0.3, tall, 0)
        if chart is not None:
            _curve(paper, chart, y - above - 0.1, len(strip.tiles) if strip else COLUMNS - 1)
        words = [strip.says, f"Scale: {strip.scale}."] if strip is not None else []
        lines = [line for sentence in words for line in (*textwrap.wrap(sentence, 31), "")]
        for n, line in enumerate(lines):
            paper.write(MARGIN, y - above - 0.1 - 0.125 * n, line, 6.5, SOFT)

    return above + below, draw


def _curve(paper: _Paper, chart: Chart, top: float, stages: int) -> None:
    """The cascade's curve below its strip; thin lines lead from each stage to its place."""
    curve, marks = chart.curves[0], np.array(chart.marks)
    middle = [_left(1 + j) + TILE / 2 for j in range(stages)]
    left, right = (middle[0], middle[-1]) if stages > 1 else (_left(1), _left(COLUMNS - 1))
    lead = 0.16
    axes = paper.axes(left, top - lead, right - left, 1.25)
    last = curve.x[-1]
    axes.set(xlim=(0, last), ylim=(chart.low, 1.0), yticks=[tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= chart.low])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    for name, (value, place) in _apart(chart.lines, 0.12 * (1 - chart.low)).items():
        axes.axhline(value, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        words = f"{name} {number(value)}"
        axes.annotate(words, (last, place), (5, 0), textcoords="offset points", fontsize=6.5, color=SOFT, va="center")
    axes.fill_between(curve.x, chart.low, curve.y, color=STROKES["method"]["color"], alpha=0.08, linewidth=0)
    axes.plot(curve.x, curve.y, **STROKES["method"], clip_on=False, label=ROLES["method"])
    axes.plot(marks, curve.y[marks], "o", color=STROKES["method"]["color"], markersize=4, clip_on=False)
    axes.set_xticks(marks)
    axes.set_xlabel(chart.x, fontsize=7, color=SOFT, labelpad=2)
    axes.set_ylabel(chart.y, fontsize=7, color=SOFT, labelpad=2)
    for place, mark in zip(middle, marks, strict=False):
        x = left + (right - left) * mark / last
        paper.canvas.plot([place, x, x], [top + 0.02, top - lead, top - lead - 1.25], color=LEAD, linewidth=0.7, zorder=0)


def _apart(lines: Mapping[str, float], least: float) -> dict[str, tuple[float, float]]:
    """Each line with the height of its name, so that two names do not meet."""
    placed: dict[str, tuple[float, float]] = {}
    below = np.inf
    for name, value in sorted(lines.items(), key=lambda line: -line[1]):
        below = min(value, below - least)
        placed[name] = value, below
    return placed


def _pair(paper: _Paper, pair: Sequence[Strip], tall: float) -> Part:
    """Strips side by side, four pictures each."""

    def draw(y: float) -> None:
        for n, strip in enumerate(pair):
            _title(paper, strip.title, y, _left(4 * n))
            _tiles(paper, strip.tiles, y - 0.3, tall, 4 * n)
            paper.write(_left(4 * n), y - 0.3 - 2 * LINE - tall, f"Scale: {strip.scale}.", 6.5, SOFT)

    return 0.3 + 3 * LINE + tall + 0.15, draw


def _tiles(paper: _Paper, tiles: Sequence[Tile], y: float, tall: float, column: int) -> None:
    for n, tile in enumerate(tiles):
        x = _left(column + n)
        paper.write(x, y, tile.name if len(tile.name) < 27 else f"{tile.name[:25]}…", 7.5)
        paper.show(tile.picture, x, y - LINE, tall)
        paper.write(x, y - LINE - tall, tile.note, 7, SOFT)


def _foot(paper: _Paper, view: AuditView) -> Part:
    """The figures, and the curves of pixels taken out and put in."""
    tall = max(1.7 if view.charts else 0.0, 0.175 * len(view.rows))

    def draw(y: float) -> None:
        if view.rows:
            _title(paper, "The figures, and the limits they are held against", y, _left(0))
            _figures(paper, view.rows, y - 0.34, 0.175 * len(view.rows))
        if view.charts:
            _title(paper, "Are these pixels needed?", y, _left(4))
        for n, chart in enumerate(view.charts):
            _chart(paper, chart, _left(4 + 4 * n / 3) + 0.24, y - 0.58, first=n == 0)
        for n, note in enumerate(view.notes):
            paper.write(MARGIN, y - 0.6 - tall - LINE * n, note, 7, SOFT)

    return 0.34 + tall + 0.55 + LINE * len(view.notes), draw


def _title(paper: _Paper, words: str, y: float, x: float) -> None:
    paper.write(x, y, words, 9, weight="bold")


def _figures(paper: _Paper, rows: Sequence[FigureRow], y: float, tall: float) -> None:
    """A dot for each figure on one scale; what is beyond a limit lies in the shade."""
    left, right = _left(2.25), _left(4) - 0.85
    # gains of scores, which have no bounds, stand at the ends of the scale
    low = max(-1.0, min(-0.2, *(row.value for row in rows if not np.isnan(row.value)), 0.0))
    axes = paper.axes(left, y, right - left, tall)
    axes.set(
        xlim=(low, 1), ylim=(len(rows) - 0.5, -0.5), yticks=[], xticks=[tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= low]
    )
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    for n, row in enumerate(rows):
        color = WRONG if row.beyond else INK
        axes.plot([low, 1], [n, n], color=FAINT, linewidth=0.5, zorder=0)
        if row.limit is not None:
            wrong = (row.limit.value, 1) if row.limit.better == "low" else (low, row.limit.value)
            axes.fill_betweenx([n - 0.32, n + 0.32], *wrong, color=WRONG, alpha=0.1, linewidth=0)
            axes.plot([row.limit.value] * 2, [n - 0.32, n + 0.32], color=WRONG, linewidth=1)
        place = min(max(row.value, low), 1.0) if not np.isnan(row.value) else row.value
        axes.plot([place], [n], "o", color=color, markersize=4, clip_on=False)
        middle = y - tall * (n + 0.5) / len(rows) + LINE / 2
        arrow = "↓" if row.figure.better == "low" else "↑"
        paper.write(MARGIN, middle, row.key, 7, SOFT)
        paper.write(MARGIN + 0.8, middle, row.figure.title, 7)
        paper.write(left - 0.16, middle, arrow, 7, SOFT)
        held = f" > {row.limit.value:.2f}" if row.beyond and row.limit and row.limit.better == "low" else ""
        held = f" < {row.limit.value:.2f}" if row.beyond and row.limit and row.limit.better == "high" else held
        paper.write(right + 0.07, middle, number(row.value) + held, 7, color)


def _chart(paper: _Paper, chart: Chart, left: float, top: float, *, first: bool) -> None:
    axes = paper.axes(left, top, 4 / 3 * (TILE + GAP) - 0.3, 1.45)
    for curve in chart.curves:
        axes.plot(curve.x, curve.y, **STROKES[curve.role], label=ROLES[curve.role], clip_on=False)
    axes.set(xlim=(0, chart.curves[0].x[-1]), ylim=(chart.low, chart.high), yticks=chart.ticks)
    axes.set_title(chart.title, fontsize=7.5, color=INK, loc="left", pad=4)
    axes.set_xlabel(textwrap.fill(chart.x, 28), fontsize=6.5, color=SOFT, labelpad=2)
    if first:
        axes.set_ylabel(chart.y, fontsize=6.5, color=SOFT, labelpad=1)
        place = (_left(COLUMNS) - GAP, top + 0.26)
        axes.legend(
            loc="lower right", bbox_to_anchor=place, bbox_transform=paper.canvas.transData, ncols=3, fontsize=7, frameon=False,
            labelcolor=SOFT, handlelength=2.2, borderaxespad=0, columnspacing=1.5,
        )  # fmt: skip
    else:
        axes.set_yticklabels([])
