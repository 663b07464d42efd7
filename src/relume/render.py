"""Maps as pictures. Scaling for display happens here and nowhere else, and no map is changed by it.

Every function takes plain arrays and the scale to draw at, and knows nothing of networks.
"""

from __future__ import annotations

import io
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
    """A sheet of pictures: each row a title and its pictures by name, the names above the first row, ``caption`` below."""
    from matplotlib.figure import Figure

    columns = list(rows[0][1])
    first = rows[0][1][columns[0]]
    cell = 2.4
    height = cell * min(max(first.height / first.width, 0.3), 3)
    sheet = Figure(figsize=(cell * len(columns), (height + 0.3) * len(rows) + 0.55), dpi=150, layout="constrained")
    axes = sheet.subplots(len(rows), len(columns), squeeze=False)
    for row, (title, pictures) in zip(axes, rows, strict=True):
        for axis, name in zip(row, columns, strict=True):
            axis.imshow(np.asarray(pictures[name]), interpolation="nearest" if pictures[name].width < 100 else "antialiased")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        row[0].set_xlabel(title, loc="left", fontsize=9, labelpad=4)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, loc="left", fontsize=9, color="#555")
    sheet.supxlabel(caption, x=0.012, ha="left", fontsize=7, color="#777")
    return sheet


def figure_png(sheet: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png")
    return buffer.getvalue()
