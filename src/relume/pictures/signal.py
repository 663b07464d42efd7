"""Pictures of signals: each channel as a line, whose colour is its relevance."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.pictures.kinds import Kind, extreme
from relume.pictures.montage import DrawnMap, map_cells
from relume.pictures.palette import INK, LINE, SOFT
from relume.pictures.recording import Recording
from relume.pictures.scale import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["channels", "line_colours", "relevance", "signal", "signal_words"]

Line: TypeAlias = NDArray[np.floating[Any]]

#: Channels that are drawn below each other, at most.
MOST = 6

#: Points of a line: where there are more, each pair stands for the lowest and the highest value around it.
_POINTS = 2400

#: The grey of a line where its relevance is zero, of what the network never saw, and around strong relevance.
_IDLE, _UNSEEN, _CASING = 0.6, "#cfcac2", "#4a4641"

_INCHES, _FOOT = 8.0, 0.3


def channels(recording: Recording, drawn: DrawnMap | None = None) -> tuple[int, ...]:
    """Choose the channels that are drawn: those of the strongest maps if there are more than six; in their order."""
    count = len(recording.values)
    if count <= MOST or drawn is None or drawn.values.ndim == 1 or len(drawn.values) != count:
        return tuple(range(min(count, MOST)))
    mass = np.abs(drawn.values).sum(axis=1, dtype=np.float64)
    return tuple(sorted(np.argsort(-mass, kind="stable")[:MOST].tolist()))


def signal_words(recording: Recording, at: tuple[int, ...], of: str) -> str:
    """Say which channels of a signal are drawn, where it is not all of them, for a map called ``of``."""
    count = len(recording.values)
    return "" if len(at) == count else f"{len(at)} of {count} channels, counted from 0: those where {of} is strongest"


def relevance(recording: Recording, values: Array) -> Array:
    """Read a map ``(L,)`` at each sample of the recording: in between it is interpolated, of several it is the strongest.

    NaN where the network never saw the signal.
    """
    low, high = recording.box[0]
    places = (np.arange(recording.size[0]) + 0.5 - low) / (high - low) * len(values)
    if len(values) > high - low:
        cells = [map_cells((low, high), len(values), i) for i in range(recording.size[0])]
        read = np.array([extreme(values[part], 0) for part in cells])
    else:
        read = np.interp(places - 0.5, np.arange(len(values)), values)
    return np.where((places >= 0) & (places <= len(values)), read, np.nan).astype(np.float32)


def line_colours(kind: Kind, values: Array, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the colours ``(n, 3)`` of values along a line, and how far each is from that of zero, both from 0 to 1.

    Near zero all kinds fade to the grey of a line without a map.
    """

    def rgba(some: Array, full: float) -> NDArray[np.float64]:
        pixels: NDArray[np.float64] = np.asarray(kind.layer(some[None], full), np.float64)[0] / 255
        return pixels

    colours, zero = rgba(values, scale), rgba(np.zeros(1, np.float32), 1)
    farthest = np.abs(rgba(kind.ramp[0], 1) - zero).sum(1).max()
    weight = np.clip(np.abs(colours - zero).sum(1) / (farthest or 1), 0, 1)
    opacity = colours[:, 3] * np.clip(5 * weight, 0, 1)
    return colours[:, :3] * opacity[:, None] + _IDLE * (1 - opacity[:, None]), weight


def signal(recording: Recording, drawn: DrawnMap | None, at: tuple[int, ...], size: int | None = None) -> Image.Image:
    """Draw channels below each other, each as a line in the colours of its map; grey where the network never saw it.

    Args:
        recording: the signal.
        drawn: the map on it; None to draw the signal alone.
        at: the channels.
        size: the width in pixels, 1200 if None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tall = _FOOT + (1.5 if len(at) == 1 else 0.95) * len(at)
    sheet = Figure(figsize=(_INCHES, tall), dpi=(size or 1200) / max(_INCHES, tall), facecolor="white")
    FigureCanvasAgg(sheet)
    places = recording.spacing[0] * np.arange(recording.size[0])
    for row, channel in enumerate(at):
        share = (tall - _FOOT) / tall / len(at)
        axes = sheet.add_axes((0.07, 1 - share * (row + 0.95), 0.915, 0.88 * share))
        _draw_channel(axes, places, recording, drawn, channel)
        axes.tick_params(labelbottom=row == len(at) - 1)
    axes.set_xlabel(f"{recording.unit or 'sample'}", fontsize=7, color=SOFT, labelpad=0)
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _draw_channel(axes: Axes, places: Line, recording: Recording, drawn: DrawnMap | None, channel: int) -> None:
    """Draw one channel, at its places along the axis."""
    from matplotlib.collections import LineCollection

    line = recording.values[channel].astype(np.float64)
    axes.set_xlim(places[0], places[-1] if len(places) > 1 else places[0] + 1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(labelsize=6.5, colors=SOFT, length=2, color=LINE)
    axes.locator_params(axis="y", nbins=4)
    if drawn is None:
        axes.plot(*_thinned(places, line, line)[:2], color=INK, linewidth=0.9)
    else:
        values = drawn.values if drawn.values.ndim == 1 else drawn.values[min(channel, len(drawn.values) - 1)]
        x, y, strength = _thinned(places, line, relevance(recording, values))
        axes.plot(x, y, color=_UNSEEN, linewidth=0.7, alpha=0.8)
        seen = np.isfinite(strength)
        points = np.stack([x, y], 1)
        middles = (points[1:] + points[:-1]) / 2
        before, after = np.concatenate([points[:1], middles]), np.concatenate([middles, points[-1:]])
        ink, weight = line_colours(drawn.kind, np.nan_to_num(strength).astype(np.float32), drawn.scale)
        order = np.argsort(weight, kind="stable")  # the strongest on top
        order = order[seen[order]]
        pieces, widths = [*np.stack([before, points, after], 1)[order]], 1.1 + 1.8 * weight[order]
        weak = int((weight[order] <= 0.1).sum())
        axes.add_collection(LineCollection(pieces[weak:], linewidths=widths[weak:] + 0.8, colors=_CASING))
        axes.add_collection(LineCollection(pieces, linewidths=widths, colors=ink[order], capstyle="round"))
    if len(recording.values) > 1:
        axes.set_ylabel(
            f"channel {recording.bands[channel] if recording.bands else channel}", fontsize=6.5, color=SOFT, labelpad=2
        )
    known = line[np.isfinite(line)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    room = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)


def _thinned(places: Line, line: Line, strength: Line) -> tuple[Line, Line, Line]:
    """Return no more points than a picture has pixels: the lowest and the highest of each stretch, with its strongest value."""
    if len(line) <= _POINTS:
        return places, line, strength
    length = math.ceil(len(line) / (_POINTS // 2))
    padding = (0, -len(line) % length)
    x, y, s = (np.pad(v, padding, mode="edge").reshape(-1, length) for v in (places, line, strength))
    low, high = np.nan_to_num(y, nan=np.inf).argmin(1), np.nan_to_num(y, nan=-np.inf).argmax(1)
    order = np.sort(np.stack([low, high], 1), axis=1)
    strongest = np.where(np.isnan(s).all(1), np.nan, extreme(np.nan_to_num(s), 1))
    x, y = (np.take_along_axis(values, order, 1) for values in (x, y))
    return x.ravel(), y.ravel(), np.repeat(strongest, 2)
