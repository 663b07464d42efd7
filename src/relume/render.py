"""Maps as pictures. Scaling for display happens here and nowhere else, and no map is changed by it.

Every function takes plain arrays and the scale to draw at, and knows nothing of networks.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib import colormaps
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "figure_png", "heat_over", "png", "scale_of", "signed", "stretched"]

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"

PERCENTILE = 99.5
HEAT = colormaps["inferno"]


def scale_of(values: Array) -> float:
    """The magnitude to draw at full strength: the 99.5th percentile of ``|values|``, their maximum where that is zero.

    A few extreme pixels must not turn the rest grey; a map that is zero almost everywhere must still show what it has.
    """
    magnitudes = np.abs(values)
    return float(np.percentile(magnitudes, PERCENTILE)) or float(magnitudes.max())


def _relative(values: Array, scale: float) -> Array:
    """``values`` in units of ``scale``, zero if the scale is zero: a map of zeros is drawn as one."""
    return np.zeros_like(values) if scale == 0 else np.clip(values / scale, -1, 1)


def _image(unit: Array) -> Image.Image:
    return Image.fromarray(np.round(unit * 255).astype(np.uint8))


def signed(values: Array, scale: float) -> Image.Image:
    """A signed map ``(C, H, W)`` about mid-grey: in colour if it has three channels, else its strongest channel in grey."""
    if len(values) != 3:
        strongest = np.abs(values).argmax(axis=0, keepdims=True)
        values = np.take_along_axis(values, strongest, axis=0).repeat(3, axis=0)
    return _image(0.5 + 0.5 * _relative(values, scale).transpose(1, 2, 0))


def heat_over(values: Array, scale: float, photo: Image.Image) -> Image.Image:
    """A heat map ``(H, W)`` over a greyed ``photo``; its opacity follows its strength, so that the photo stays visible."""
    strength = np.maximum(_relative(values, scale), 0)
    side = (values.shape[1], values.shape[0])
    grey = np.asarray(photo.convert("L").resize(side), dtype=np.float32)[..., None] / 255
    opacity = 0.85 * strength[..., None] ** 0.6
    return _image((1 - opacity) * grey + opacity * HEAT(strength)[..., :3])


def stretched(values: Array) -> Image.Image:
    """An input ``(C, H, W)`` of unknown normalisation, stretched to the range of a display; constant ones are mid-grey."""
    channels = values if len(values) == 3 else values.mean(axis=0, keepdims=True).repeat(3, axis=0)
    low, high = float(channels.min()), float(channels.max())
    unit = np.full_like(channels, 0.5) if low == high else (channels - low) / (high - low)
    return _image(unit.transpose(1, 2, 0))


def png(image: Image.Image) -> bytes:
    """``image`` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def figure(rows: Sequence[tuple[str, Mapping[str, Image.Image]]], caption: str) -> Figure:
    """A sheet of pictures: each row a title and its pictures by name, the names above the columns, ``caption`` below."""
    from matplotlib.figure import Figure

    columns = list(rows[0][1])
    first = rows[0][1][columns[0]]
    cell, gap, line = 2.4, 0.08, 0.3  # inches
    tall = cell * min(max(first.height / first.width, 0.3), 3)
    width = len(columns) * (cell + gap) + gap
    lines = textwrap.wrap(caption, max(20, int(width / 0.06)))  # a character of the caption is about 0.06 inches wide
    foot = line + 0.12 * (len(lines) - 1)
    height = len(rows) * (tall + line) + line + foot
    sheet = Figure(figsize=(width, height), dpi=150, facecolor="white")

    def write(x: float, y: float, words: str, size: float, color: str) -> None:
        sheet.text(x / width, y / height, words, fontsize=size, color=color, va="center", parse_math=False)

    for j, name in enumerate(columns):
        write(gap + j * (cell + gap), height - line / 2, name, 9, "#555")
    for i, (title, pictures) in enumerate(rows):
        bottom = height - line - tall - i * (tall + line)
        for j, name in enumerate(columns):
            place = (gap + j * (cell + gap)) / width, bottom / height, cell / width, tall / height
            axes = sheet.add_axes(place)
            axes.imshow(np.asarray(pictures[name]), interpolation="nearest" if first.width < 100 else "antialiased")
            axes.set_axis_off()
        write(gap, bottom - line / 2, title, 9.5, "black")
    write(gap, foot / 2, "\n".join(lines), 7, "#777")
    return sheet


def figure_png(sheet: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font")  # a label in a script that the font lacks
        sheet.savefig(buffer, format="png")
    return buffer.getvalue()
