"""An audit as a figure for a paper: the verdict over its strips, charts and measures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL.Image import Image

from relume.auditing.charts import draw_chart
from relume.auditing.drawing import Chart, Strip, Tile, number
from relume.auditing.view import AuditView, MeasureRow, Section
from relume.pictures.palette import BAD, INK, LEAD, LINE, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MOST", "audit_figure"]

#: How many maps a figure shows at most.
MOST = 12

# inches
WIDTH, MARGIN, GAP, COLUMNS, TEXT = 12.6, 0.3, 0.12, 8, 0.2
TILE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
ROW = 0.175

#: The height of a part of the figure, and a function that draws it below a height.
Part: TypeAlias = tuple[float, Callable[[float], None]]


def audit_figure(views: Sequence[AuditView], *, dpi: float = 150) -> Figure:
    """Draw what is shown of each map, one below the other, :data:`MOST` of them at most; text stays text."""
    from matplotlib.figure import Figure

    sheet = Figure(dpi=dpi, facecolor="white")
    paper = _Paper(sheet)
    parts = [part for view in views[:MOST] for part in _parts(paper, view)]
    if len(views) > MOST:
        parts.append((TEXT, lambda y: paper.write(MARGIN, y, f"the first {MOST} of {len(views)} maps", 7, SOFT)))
    y = paper.sized(sum(tall for tall, _ in parts) + MARGIN)
    for tall, draw in parts:
        draw(y)
        y -= tall
    return sheet


class _Paper:
    """A sheet that is measured in inches, from its lower left corner."""

    def __init__(self, sheet: Figure) -> None:
        self.sheet = sheet
        sheet.set_layout_engine("none")  # whatever the user's own figures have
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
        """Write words whose middle line is half a line below ``y``."""
        place = x / WIDTH, (y - TEXT / 2) / self.height
        text = self.sheet.text(*place, words, fontsize=size, color=color, ha=ha, va="center", fontweight=weight)
        text.set_parse_math(False)  # a label is no formula
        text.set_usetex(False)

    def title(self, words: str, y: float, column: float) -> None:
        self.write(_left(column), y, words, 9, weight="bold")

    def show(self, picture: Image, x: float, y: float, tall: float) -> None:
        """Show a picture in the middle of a tile whose upper left corner is at ``(x, y)``."""
        from matplotlib.image import AxesImage

        share = min(TILE / picture.width, tall / picture.height)
        wide, high = share * picture.width, share * picture.height
        left, top = x + (TILE - wide) / 2, y - (tall - high) / 2
        image = AxesImage(self.canvas, extent=(left, left + wide, top - high, top), interpolation="antialiased")
        image.set_data(np.asarray(picture))
        self.canvas.add_image(image)

    def tiles(self, tiles: Sequence[Tile], y: float, tall: float, column: int) -> None:
        """Show pictures side by side, from a column on."""
        for n, tile in enumerate(tiles[: COLUMNS - column]):
            x = _left(column + n)
            self.write(x, y, tile.name if len(tile.name) < 27 else f"{tile.name[:25]}…", 7.5)
            self.show(tile.picture, x, y - TEXT, tall)
            self.write(x, y - TEXT - tall, tile.note, 7, SOFT)

    def axes(self, left: float, top: float, wide: float, tall: float) -> Axes:
        return self.sheet.add_axes((left / WIDTH, (top - tall) / self.height, wide / WIDTH, tall / self.height))


def _left(column: float) -> float:
    return MARGIN + column * (TILE + GAP)


def _parts(paper: _Paper, view: AuditView) -> Iterator[Part]:
    """Yield the parts of one map's figure, from above to below."""
    tall = TILE * min(max(view.picture.height / view.picture.width, 0.5), 1.6)
    yield _head(paper, view)
    sections = list(view.sections.values())
    for section in sections:
        if section.staged:
            yield _stages(paper, section, view.picture, tall)
    strips = [(section, strip) for section in sections if not section.staged for strip in section.strips]
    for start in range(0, len(strips), 2):
        yield _strips(paper, strips[start : start + 2], tall)
    charted = [section for section in sections if section.charts and not section.staged]
    yield _foot(paper, view, charted[0] if charted else None)
    for section in charted[1:]:
        yield 2.6, lambda y, section=section: _charts(paper, section, y, 0)  # type: ignore[misc]


def _head(paper: _Paper, view: AuditView) -> Part:
    """Draw what is audited, and the verdict as the title."""
    lines = textwrap.wrap(view.verdict.text, 128)
    subject = "   ·   ".join(part for part in (view.name, f"{view.method}: {view.subject}", *view.about) if part)

    def draw(y: float) -> None:
        paper.canvas.plot([MARGIN, WIDTH - MARGIN], [y, y], color=LINE, linewidth=0.8)
        paper.write(MARGIN, y - 0.16, subject, 8, SOFT)
        for n, line in enumerate(lines):
            paper.write(MARGIN, y - 0.42 - n * 0.23, line, 11.5, weight="bold")

    return 0.62 + 0.23 * len(lines), draw


def _stages(paper: _Paper, section: Section, picture: Image, tall: float) -> Part:
    """Draw the picture, and each tile above its place on the curve, to which a thin line leads."""
    strip, chart, above = section.strips[0], section.charts[0], 0.4 + 2 * TEXT + tall
    words = [line for text in (section.meaning, f"Scale: {strip.scale}.") for line in (*textwrap.wrap(text, 31), "")]

    def draw(y: float) -> None:
        paper.title(section.title, y, 0)
        paper.tiles([Tile("the image", "as the network got it", picture), *strip.tiles], y - 0.3, tall, 0)
        middles, top = [_left(1 + j) + TILE / 2 for j in range(len(strip.tiles))], y - above - 0.16
        left, right = (middles[0], middles[-1]) if len(middles) > 1 else (_left(1), _left(COLUMNS - 1))
        draw_chart(paper.axes(left, top, right - left, 1.25), chart, 6.5)
        for middle, mark in zip(middles, chart.marks, strict=False):
            x = left + (right - left) * mark / chart.curves[0].x[-1]
            paper.canvas.plot([middle, x, x], [top + 0.18, top, top - 1.25], color=LEAD, linewidth=0.7, zorder=0)
        for n, line in enumerate(words):
            paper.write(MARGIN, y - above - 0.125 * n, line, 6.5, SOFT)

    return above + max(1.85, 0.125 * len(words) + 0.1), draw


def _strips(paper: _Paper, strips: Sequence[tuple[Section, Strip]], tall: float) -> Part:
    """Draw two strips side by side, four pictures each."""

    def draw(y: float) -> None:
        for n, (section, strip) in enumerate(strips):
            paper.title(section.title, y, 4 * n)
            paper.tiles(strip.tiles[:4], y - 0.3, tall, 4 * n)
            paper.write(_left(4 * n), y - 0.3 - 2 * TEXT - tall, f"Scale: {strip.scale}.", 6.5, SOFT)

    return 0.3 + 3 * TEXT + tall + 0.15, draw


def _foot(paper: _Paper, view: AuditView, section: Section | None) -> Part:
    """Draw the measures, and beside them the charts of a section."""
    tall = max(1.9 if section else 0.0, ROW * len(view.rows))

    def draw(y: float) -> None:
        if view.rows:
            paper.title("The measures, and their limits", y, 0)
            _measures(paper, view.rows, y - 0.34)
        if section is not None:
            _charts(paper, section, y, 4)
        for n, note in enumerate(view.notes):
            paper.write(MARGIN, y - 0.7 - tall - TEXT * n, note, 7, SOFT)

    return 0.34 + tall + 0.5 + TEXT * len(view.notes), draw


def _measures(paper: _Paper, rows: Sequence[MeasureRow], y: float) -> None:
    """Draw a dot for each measure on one scale; beyond a limit lies the shade."""
    left, right, tall = _left(2.25), _left(4) - 0.95, ROW * len(rows)
    # gains of scores, which have no bounds, stand at the ends of the scale
    low = max(-1.0, min(-0.2, *(row.value for row in rows if not np.isnan(row.value)), 0.0))
    ticks = [tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= low]
    axes = paper.axes(left, y, right - left, tall)
    axes.set(xlim=(low, 1), ylim=(len(rows) - 0.5, -0.5), yticks=[])
    axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=6.5, colors=SOFT, length=0, pad=3)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for n, row in enumerate(rows):
        color, limit, low_is_better = BAD if row.beyond else INK, row.measure.limit, row.measure.better == "low"
        axes.plot([low, 1], [n, n], color=LINE, linewidth=0.5, zorder=0)
        if limit is not None:
            wrong = (limit.value, 1) if low_is_better else (low, limit.value)
            axes.fill_betweenx([n - 0.32, n + 0.32], *wrong, color=BAD, alpha=0.1, linewidth=0)
            axes.plot([limit.value] * 2, [n - 0.32, n + 0.32], color=BAD, linewidth=1)
        axes.plot([np.clip(row.value, low, 1.0)], [n], "o", color=color, markersize=4, clip_on=False)
        middle = y - tall * (n + 0.5) / len(rows) + TEXT / 2
        paper.write(MARGIN, middle, row.key, 7, SOFT)
        paper.write(MARGIN + 0.85, middle, row.measure.title, 7)
        paper.write(left - 0.16, middle, row.measure.arrow, 7, SOFT)
        paper.write(right + 0.07, middle, _beside(row), 7, color)


def _beside(row: MeasureRow) -> str:
    """Return the value of a measure, and its limit if it is beyond."""
    limit = row.measure.limit
    if limit is None or not row.beyond:
        return number(row.value)
    return f"{number(row.value)} {'>' if row.measure.better == 'low' else '<'} {number(limit.value)}"


def _charts(paper: _Paper, section: Section, y: float, column: int) -> None:
    """Draw the charts of a section side by side, from a column on, under their legend."""
    paper.title(section.title, y, column)
    step = 4 / 3 * (TILE + GAP)
    for n, chart in enumerate(section.charts[: int((COLUMNS - column) * 3 / 4)]):
        _chart(paper, chart, _left(column) + n * step + 0.24, y - 0.72, step - 0.34, first=n == 0)


def _chart(paper: _Paper, chart: Chart, left: float, top: float, wide: float, *, first: bool) -> None:
    axes = paper.axes(left, top, wide, 1.4)
    draw_chart(axes, chart, 6.5)
    axes.set_title(chart.title, fontsize=7.5, color=INK, loc="left", pad=5)
    if first and len(chart.curves) > 1:
        place = (left - 0.16, top + 0.26)
        axes.legend(
            handles=axes.get_legend_handles_labels()[0][::-1], loc="lower left", bbox_to_anchor=place,
            bbox_transform=paper.canvas.transData, ncols=3, fontsize=7, frameon=False,
            labelcolor=SOFT, handlelength=2.2, borderaxespad=0, borderpad=0, columnspacing=1.5,
        )  # fmt: skip
    if not first:
        axes.set(yticklabels=[], ylabel="")
