"""Rows of pictures as a figure for a paper, and figures as files. Nothing here knows explanations or networks."""

from __future__ import annotations

import io
import math
import textwrap
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["CELL", "SMALL", "Cell", "Row", "figure", "figure_bytes", "pages"]

#: The width of a picture in a figure, in inches.
CELL = 2.4

#: A picture with fewer pixels a side is drawn with sharp edges: each of its pixels is to be seen.
SMALL = 100

_GAP, _LINE, _NOTE = 0.1, 0.24, 0.12  # inches: between pictures, a line of names, a line of notes
_WIDEST = 7.5 * CELL  # inches of a line of pictures, if nothing is said
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture under its name, with its colour bar and a note below.

    Attributes:
        name: its name, above it.
        picture: the picture.
        bar: its colours in a row, if they stand for values.
        low, high: the values at the ends of the bar, as text.
        note: a remark below it.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures import Cell
        >>> Cell("Grad-CAM", Image.new("RGB", (64, 64)), low="0", high="0.2").note
        ''
    """

    name: str
    picture: Image
    bar: Image | None = None
    low: str = ""
    high: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures under a title.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures import Cell, Row
        >>> Row("cat, 93 %", [Cell("Grad-CAM", Image.new("RGB", (64, 64)))]).title
        'cat, 93 %'
    """

    title: str
    cells: Sequence[Cell]


def figure(rows: Sequence[Row], caption: str, *, columns: int | None = None, wide: float = CELL, dpi: float = 150) -> Figure:
    """Draw a figure of rows, ``columns`` pictures of ``wide`` inches across (all of a row, up to 18 inches, if None).

    ``caption`` stands below. Names, titles and scales are text, so that they stay text in a PDF or SVG.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures.figure import Cell, Row, figure
        >>> cell = Cell("red", Image.new("RGB", (64, 64), "red"), low="0", high="1")
        >>> figure([Row("Two pictures", [cell, cell])], "a caption", dpi=100).get_size_inches().round(1).tolist()
        [5.1, 3.4]
    """
    most = max(len(row.cells) for row in rows)
    across = min(columns or max(1, int(_WIDEST / wide)), most)
    width = across * (wide + _GAP) + _GAP
    caption_lines = textwrap.wrap(caption, max(20, int(width / 0.061)))  # a character is about 0.061 inches wide
    below = 0.15 + 0.12 * len(caption_lines)
    names = [[cell.name for cell in row.cells] for row in rows]
    # one line of names does for all rows under it that have the same
    named = [most > across or i == 0 or names[i] != names[i - 1] for i in range(len(rows))]
    blocks = [_Block(row, across, wide, _LINE if has_names else 0) for row, has_names in zip(rows, named, strict=True)]
    paper = _Paper(width, below + sum(_LINE * 1.4 + math.ceil(most / across) * block.line for block in blocks), dpi)
    y = paper.height
    for block in blocks:
        paper.write(_GAP, y - _LINE * 0.75, _fitting(block.row.title, width - _GAP, 9.5), 9.5, "black")
        y = block.draw(paper, y - _LINE * 1.4)
    paper.write(_GAP, below / 2, "\n".join(caption_lines), 7, "#666")
    return paper.sheet


class _Paper:
    """A figure that is measured in inches, from its lower left corner."""

    def __init__(self, width: float, height: float, dpi: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.sheet = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        self.sheet.set_layout_engine("none")  # whatever the user's own figures have
        # one for all pictures: axes are slow to make
        self.canvas = self.sheet.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.canvas.set_axis_off()
        self.sheet.suppressComposite = True  # or a PDF would hold all of them as one picture

    def write(self, x: float, y: float, words: str, size: float, color: str, ha: Literal["left", "right"] = "left") -> None:
        """Write words whose middle is at the height ``y``."""
        text = self.sheet.text(x / self.width, y / self.height, words, fontsize=size, color=color, va="center", ha=ha)
        text.set_parse_math(False)  # a label is no formula
        text.set_usetex(False)

    def show(self, picture: Image, extent: tuple[float, float, float, float]) -> None:
        """Lay a picture between the left, right, lower and upper edges of ``extent``."""
        from matplotlib.image import AxesImage

        sharp = min(picture.size) == 1 or max(picture.size) < SMALL
        image = AxesImage(self.canvas, extent=extent, origin="upper", interpolation="nearest" if sharp else "antialiased")
        image.set_data(np.asarray(picture))
        self.canvas.add_image(image)


class _Block:
    """A row of a figure, broken into lines of ``across`` pictures, each below a line of names that is ``head`` inches tall."""

    def __init__(self, row: Row, across: int, wide: float, head: float) -> None:
        self.row, self.across, self.wide, self.head = row, across, wide, head
        tallest = wide * max(cell.picture.height / cell.picture.width for cell in row.cells)
        self.tall = min(max(0.25 * CELL, tallest), 2 * wide)
        self.notes = [textwrap.wrap(cell.note, _room(self.wide, 6)) for cell in row.cells]
        self.foot = 0.2 + _NOTE * max(map(len, self.notes))
        self.line = head + self.tall + self.foot

    def draw(self, paper: _Paper, y: float) -> float:
        """Draw the row below the height ``y``, and return the height where it ends."""
        for i in range(len(self.row.cells)):
            if i % self.across == 0:
                y -= self.head + self.tall + (self.foot if i else 0)
            self._draw_cell(paper, i, _GAP + i % self.across * (self.wide + _GAP), y)
        return y - self.foot

    def _draw_cell(self, paper: _Paper, i: int, x: float, y: float) -> None:
        """Draw one picture, its name, bar and note; ``(x, y)`` is the lower left corner of its place."""
        cell = self.row.cells[i]
        if self.head:
            paper.write(x, y + self.tall + self.head * 0.45, _fitting(cell.name, self.wide, 8.5), 8.5, "#444")
        ratio = cell.picture.height / cell.picture.width
        wide, high = (self.wide, self.wide * ratio) if self.wide * ratio <= self.tall else (self.tall / ratio, self.tall)
        left, low = x + (self.wide - wide) / 2, y + (self.tall - high) / 2
        paper.show(cell.picture, (left, left + wide, low, low + high))
        if cell.bar is not None:
            paper.show(cell.bar, (x, x + self.wide, y - 0.08, y - 0.03))
        paper.write(x, y - 0.14, cell.low, 6, "#666")
        paper.write(x + self.wide, y - 0.14, cell.high, 6, "#666", ha="right")
        for n, words in enumerate(self.notes[i]):
            paper.write(x, y - 0.25 - _NOTE * n, words, 6, "#666")


def _fitting(words: str, inches: float, size: float) -> str:
    """Return as much of a line as there is room for."""
    room = _room(inches, size)
    words = " ".join(words.split())
    return words if len(words) <= room else words[: room - 1].rstrip() + "…"


def _room(inches: float, size: float) -> int:
    """Count the characters that a line has room for; a wide one is about 0.62 of its size."""
    return int(inches * 72 / (0.62 * size))


def figure_bytes(sheet: Figure, form: Literal["png", "pdf", "svg"] = "png", *, transparent: bool = False) -> bytes:
    """Return a figure as the bytes of a file; text stays text where the format has it.

    Example:
        >>> from PIL import Image
        >>> from relume.pictures import Cell, Row, figure_bytes
        >>> from relume.pictures.figure import figure
        >>> sheet = figure([Row("A row", [Cell("red", Image.new("RGB", (64, 64), "red"))])], "a caption", dpi=50)
        >>> figure_bytes(sheet, "pdf")[:4]
        b'%PDF'
    """
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}}  # the default takes twice the time for a tenth of the size
    if form != "png":
        options = {"metadata": {"Date" if form == "svg" else "CreationDate": None}}
    buffer = io.BytesIO()
    with _text_as_text():
        sheet.savefig(buffer, format=form, transparent=transparent, **options)
    return buffer.getvalue()


def pages(sheets: Iterable[Figure]) -> bytes:
    """Return figures as the pages of a PDF; one at a time is held in memory."""
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
