"""Pictures of one recording side by side: parts of it, each with a map of the same part, under a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from relume.pictures.canvas import as_image, seen
from relume.pictures.kinds import Kind, extreme
from relume.pictures.palette import COLOURS
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.pictures.scale import Array

__all__ = ["DrawnMap", "Tile", "limits", "map_cells", "montage", "section", "shown_channels"]

#: What lies behind the tiles, and the colour of labels and of the mark: a dark page's.
GROUND, LABEL, MARK = COLOURS["page"][1], COLOURS["soft"][1], COLOURS["accent"][1]

#: Smaller labels are no words any more, and are left out.
_SMALLEST = 7

_SAMPLE = 1 << 20  # values that a percentile is taken of, at most


@dataclass(frozen=True, slots=True, eq=False)
class DrawnMap:
    """A map, and how it is drawn.

    Attributes:
        kind: the kind of picture.
        values: the map, ``(C, *spatial)`` signed or ``(*spatial)``.
        scale: the value drawn at full strength.
    """

    kind: Kind
    values: Array
    scale: float

    def saliency(self, axes: int) -> Array:
        """Return the magnitudes ``(*spatial)`` along ``axes`` spatial axes."""
        magnitudes = np.abs(self.values)
        return magnitudes.max(axis=0) if magnitudes.ndim > axes else magnitudes

    def strongest(self, axis: int, cells: slice = slice(None)) -> DrawnMap:
        """Return the map without one axis, counted from the end: the strongest values among these cells along it."""
        part = np.moveaxis(self.values, axis, -1)[..., cells]
        return replace(self, values=extreme(part, -1))

    def flipped(self) -> DrawnMap:
        """Return the map upside down."""
        return replace(self, values=self.values[..., ::-1, :])


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A part of a recording under its label.

    Attributes:
        photo: that part as a picture, and what the network saw of it.
        label: its name, above it.
        drawn: the map of the same part; None to draw the part alone.
        ink: the colour of the label.
        cuts: lines across it: the place of each from the left and from the top, from 0 to 1, and their colours.
        marked: True to frame it.
    """

    photo: Photo
    label: str = ""
    drawn: DrawnMap | None = None
    ink: str = LABEL
    cuts: tuple[tuple[float, str], tuple[float, str]] | None = None
    marked: bool = False

    def picture(self) -> Image.Image:
        """Draw it."""
        drawn = self.drawn
        image = seen(self.photo) if drawn is None else drawn.kind.draw(drawn.values, drawn.scale, self.photo).convert("RGB")
        if self.cuts is not None:
            _rule(image, *self.cuts)
        return image


def _rule(image: Image.Image, across: tuple[float, str], down: tuple[float, str]) -> None:
    """Draw thin lines where other planes cut, open about their crossing, which is what a reader looks at."""
    (width, height), thick = image.size, max(1, round(max(image.size) / 400))
    x, y, gap = across[0] * width, down[0] * height, 0.06 * max(width, height)
    sheet = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(sheet)
    upright = [((x, 0), (x, y - gap)), ((x, y + gap), (x, height))]
    level = [((0, y), (x - gap, y)), ((x + gap, y), (width, y))]
    for lines, ink in ((upright, across[1]), (level, down[1])):
        for start, end in lines:
            if start <= end:
                pen.line((start, end), fill=ink, width=thick)
    sheet.putalpha(sheet.getchannel("A").point(lambda alpha: round(0.8 * alpha)))
    image.paste(sheet, (0, 0), sheet)


def montage(rows: Sequence[Sequence[Tile]], text: float, gap: int) -> Image.Image:
    """Put tiles in rows on a dark ground, each under its label, in columns; ``text`` is the size of the letters in pixels."""
    head = round(1.7 * text) if text >= _SMALLEST else 0
    font = ImageFont.load_default(max(text, _SMALLEST))
    columns = max(map(len, rows))
    widths = [max(row[c].photo.picture.width for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(tile.photo.picture.height for tile in row) for row in rows]
    size = sum(widths) + gap * (columns + 1), sum(heights) + gap * (len(rows) + 1) + head * len(rows)
    sheet = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(sheet)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for tile, width in zip(row, widths, strict=False):
            picture = tile.picture()
            if head:
                pen.text((x, y + head * 0.42), tile.label, fill=tile.ink, font=font, anchor="lm")
            sheet.paste(picture, (x, y + head))
            if tile.marked:
                frame = (x - 2, y + head - 2, x + picture.width + 1, y + head + picture.height + 1)
                pen.rectangle(frame, outline=MARK, width=2)
            x += width + gap
        y += head + height + gap
    return sheet


# --- Recordings as pictures ----------------------------------------------------------------------------------------------


def shown_channels(recording: Recording) -> NDArray[np.generic]:
    """Return the channels that are drawn, ``(1 or 3, *spatial)``."""
    return recording.values[list(recording.shown)] if len(recording.shown) > 1 else recording.values[recording.shown[0], None]


def limits(recording: Recording, values: NDArray[np.generic] | None = None) -> tuple[float, float]:
    """Return the values that are drawn black and white: those of the file, else the percentiles 0.5 and 99.5."""
    low, high = (
        _percentiles(shown_channels(recording) if values is None else values) if recording.limits is None else recording.limits
    )
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _percentiles(values: NDArray[np.generic]) -> tuple[float, float]:
    flat = np.ravel(values)
    sample = flat[:: max(1, flat.size // _SAMPLE) | 1].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    low, high = np.percentile(finite, (0.5, 99.5)).tolist() if finite.size else (0.0, 1.0)
    return low, high


def section(
    channels: NDArray[np.generic],
    ends: tuple[float, float],
    box: tuple[tuple[float, float], tuple[float, float]],
    size: tuple[int, int],
) -> Photo:
    """Make a photo of a plane of a recording, ``(1 or 3, H, W)``, at ``size`` (width, height); NaN is black.

    ``ends`` are the values that are black and white, ``box`` what the network saw of it: along rows and along columns.
    """
    low, high = ends
    unit = np.nan_to_num(np.clip((channels.astype(np.float64) - low) / (high - low), 0, 1)).astype(np.float32)
    picture = as_image(unit.transpose(1, 2, 0) if len(unit) == 3 else unit[0])
    (top, bottom), (left, right) = box
    across, down = size[0] / picture.width, size[1] / picture.height
    photo = Photo.whole(picture.resize(size, Image.Resampling.BICUBIC))
    return replace(photo, box=(left * across, top * down, right * across, bottom * down))


def map_cells(edges: tuple[float, float], count: int, index: int) -> slice:
    """Return the cells of a map of ``count`` between ``edges`` that lie in the cell ``index`` of the recording, along an axis.

    Where the map is the coarser of the two it is the one around the middle.
    """
    low, high = edges
    first, last = ((place - low) / (high - low) * count for place in (index, index + 1))
    if last - first <= 1 + 1e-6:
        first = np.floor((first + last) / 2)
        last = first + 1
    start = int(np.clip(np.floor(first + 1e-6), 0, count - 1))
    return slice(start, int(np.clip(np.ceil(last - 1e-6), start + 1, count)))
