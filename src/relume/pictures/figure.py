"""Rows of pictures, as a figure for a paper and as HTML for a notebook.

Both take plain rows of cells and know nothing of explanations or networks.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["CELL", "Cell", "Row", "figure", "figure_bytes", "html", "pages"]

CELL = 2.4  # inches, the width of a picture in a figure
_MOST_COLUMNS = 7
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture under its name; ``bar`` holds its colours from ``low`` to ``high``, what it says of its scale; and a note."""

    name: str
    picture: Image
    bar: Image | None = None
    low: str = ""
    high: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures under a title."""

    title: str
    cells: Sequence[Cell]


def figure(rows: Sequence[Row], caption: str, *, columns: int | None = None, dpi: float = 150) -> Figure:
    """A figure of rows, ``columns`` pictures wide (all of a row, up to seven, if None), with ``caption`` below.

    Names, titles and scales are text, so that they stay text in a PDF or SVG.
    """
    from matplotlib.figure import Figure

    most = max(len(row.cells) for row in rows)
    across = min(columns or _MOST_COLUMNS, most)
    deep = math.ceil(most / across)
    gap, line = 0.1, 0.24  # inches
    width = across * (CELL + gap) + gap
    talls = [CELL * min(max(0.25, *(c.picture.height / c.picture.width for c in row.cells)), 2) for row in rows]
    notes = [[textwrap.wrap(cell.note, _room(CELL, 6)) for cell in row.cells] for row in rows]
    feet = [0.2 + 0.12 * max(map(len, of_row)) for of_row in notes]
    lines = textwrap.wrap(caption, max(20, int(width / 0.061)))  # a character of the caption is about 0.061 inches wide
    below = 0.15 + 0.12 * len(lines)
    names = [[cell.name for cell in row.cells] for row in rows]
    # one line of names does for all rows under it that have the same
    heads = [line if deep > 1 or i == 0 or names[i] != names[i - 1] else 0 for i in range(len(rows))]
    height = below + sum(line * 1.4 + deep * (h + tall + foot) for h, tall, foot in zip(heads, talls, feet, strict=True))
    sheet = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    sheet.set_layout_engine("none")  # whatever the user's own figures have
    canvas = sheet.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))  # one for all pictures: axes are slow to make
    canvas.set_axis_off()
    sheet.suppressComposite = True  # or a PDF would hold all of them as one picture

    def write(x: float, y: float, words: str, size: float, color: str, ha: Literal["left", "right"] = "left") -> None:
        text = sheet.text(x / width, y / height, words, fontsize=size, color=color, va="center", ha=ha)
        text.set_parse_math(False)  # a label is no formula
        text.set_usetex(False)

    y = height
    for row, head, tall, foot, said in zip(rows, heads, talls, feet, notes, strict=True):
        write(gap, y - line * 0.75, _fitting(row.title, width - gap, 9.5), 9.5, "black")
        y -= line * 1.4
        for start in range(0, len(row.cells), across):
            y -= head + tall
            for j, cell in enumerate(row.cells[start : start + across]):
                x = gap + j * (CELL + gap)
                if head:
                    write(x, y + tall + head * 0.45, _fitting(cell.name, CELL, 8.5), 8.5, "#444")
                ratio = cell.picture.height / cell.picture.width
                wide, high = (CELL, CELL * ratio) if CELL * ratio <= tall else (tall / ratio, tall)
                left, low = x + (CELL - wide) / 2, y + (tall - high) / 2
                _show(canvas, cell.picture, (left, left + wide, low, low + high))
                if cell.bar is not None:
                    _show(canvas, cell.bar, (x, x + CELL, y - 0.08, y - 0.03))
                write(x, y - 0.14, cell.low, 6, "#666")
                write(x + CELL, y - 0.14, cell.high, 6, "#666", ha="right")
                for n, words in enumerate(said[start + j]):
                    write(x, y - 0.25 - 0.12 * n, words, 6, "#666")
            y -= foot
    write(gap, below / 2, "\n".join(lines), 7, "#666")
    return sheet


def _show(canvas: Axes, picture: Image, extent: tuple[float, float, float, float]) -> None:
    """Lay a picture between the left, right, lower and upper edges of ``extent``."""
    from matplotlib.image import AxesImage

    sharp = min(picture.size) == 1 or max(picture.size) < 100  # of so few pixels each is to be seen
    image = AxesImage(canvas, extent=extent, origin="upper", interpolation="nearest" if sharp else "antialiased")
    image.set_data(np.asarray(picture))
    canvas.add_image(image)


def _fitting(words: str, inches: float, size: float) -> str:
    """As much of a line as there is room for."""
    room = _room(inches, size)
    words = " ".join(words.split())
    return words if len(words) <= room else words[: room - 1].rstrip() + "…"


def _room(inches: float, size: float) -> int:
    """Count the characters that a line has room for; a wide one is about 0.62 of its size."""
    return int(inches * 72 / (0.62 * size))


def figure_bytes(sheet: Figure, form: Literal["png", "pdf", "svg"] = "png", *, transparent: bool = False) -> bytes:
    """Return a figure as the bytes of a file; text stays text where the format has it."""
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}}  # the default takes twice the time for a tenth of the size
    if form != "png":
        options = {"metadata": {"Date" if form == "svg" else "CreationDate": None}}
    buffer = io.BytesIO()
    with _text_as_text():
        sheet.savefig(buffer, format=form, transparent=transparent, **options)
    return buffer.getvalue()


def pages(sheets: Iterable[Figure]) -> bytes:
    """Figures as the pages of a PDF, one held in memory at a time."""
    from matplotlib.backends.backend_pdf import PdfPages

    buffer = io.BytesIO()
    with _text_as_text(), PdfPages(buffer, metadata={"CreationDate": None}) as book:
        for sheet in sheets:
            book.savefig(sheet)
    return buffer.getvalue()


@contextmanager
def _text_as_text() -> Iterator[None]:
    from matplotlib import rc_context

    # both belong to the whole process: two threads that entered here at once would leave them changed
    settings = rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "relume"})
    with _LOCK, warnings.catch_warnings(), settings:
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font")  # a label in a script that the font lacks
        yield


# --- HTML -----------------------------------------------------------------------------------------------------------------


def html(rows: Sequence[Row], heading: str, notes: Sequence[str], details: str) -> str:
    """The rows as a piece of HTML that needs no script and no file: a heading, thumbnails, notes, and details to unfold.

    It takes its colours from the page around it, light or dark.
    """
    return "".join(_html(rows, heading, notes, details))


def _html(rows: Sequence[Row], heading: str, notes: Sequence[str], details: str) -> Iterator[str]:
    yield '<div style="font:13px/1.45 system-ui,sans-serif;max-width:100%;overflow-x:auto">'
    yield f'<div style="font-weight:600;margin:2px 0 6px">{escape(heading)}</div>'
    for row in rows:
        yield f'<div style="margin:8px 0 3px">{escape(row.title)}</div><div style="display:flex;flex-wrap:wrap;gap:8px">'
        for cell in row.cells:
            yield '<figure style="margin:0;width:168px"><figcaption style="font-size:11px;opacity:.75;white-space:nowrap;'
            yield f'overflow:hidden;text-overflow:ellipsis">{escape(cell.name)}</figcaption>'
            sharp = "image-rendering:pixelated;" if max(cell.picture.size) < 100 else ""
            yield f'<img alt="{escape(cell.name)}" src="{_data_url(cell.picture)}" '
            yield f'style="width:100%;display:block;{sharp}border-radius:3px">'
            yield '<div style="display:flex;justify-content:space-between;font-size:10px;opacity:.65">'
            yield f"<span>{escape(cell.low)}</span><span>{escape(cell.high)}</span></div>"
            yield f'<div style="font-size:10px;opacity:.65">{escape(cell.note)}</div></figure>'
        yield "</div>"
    yield "".join(f'<div style="font-size:11px;opacity:.75;margin-top:6px">{escape(note)}</div>' for note in notes)
    yield '<details style="font-size:11px;margin-top:4px"><summary style="cursor:pointer;opacity:.75">coverage</summary>'
    yield f'<pre style="margin:4px 0;font-size:11px;background:none;color:inherit">{escape(details)}</pre></details></div>'


def _data_url(picture: Image) -> str:
    buffer = io.BytesIO()
    if max(picture.size) < 100:
        picture.save(buffer, format="PNG")  # small pixels, enlarged, would show what JPEG does to them
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    picture.save(buffer, format="JPEG", quality=85, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
