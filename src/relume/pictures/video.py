"""Pictures of video: a strip of frames, each with the map of its moment."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from relume.pictures.montage import DrawnMap, Tile, limits, map_cells, montage, section, shown_channels
from relume.pictures.recording import Recording

__all__ = ["frames", "strongest_frame", "video", "video_words"]

#: Frames of a strip, and of one of its rows, at most.
MOST, _ACROSS = 8, 4


def frames(recording: Recording, drawn: DrawnMap | None = None) -> tuple[int, ...]:
    """Choose the frames that are drawn, evenly spread over those that the network saw; the map's strongest is among them."""
    part = recording.seen()[0]
    count = min(MOST, part.stop - part.start)
    chosen = [part.start + math.floor((i + 0.5) * (part.stop - part.start) / count) for i in range(count)]
    if (best := strongest_frame(recording, drawn)) is not None:
        chosen[min(range(count), key=lambda i: abs(chosen[i] - best))] = best
    return tuple(chosen)


def strongest_frame(recording: Recording, drawn: DrawnMap | None) -> int | None:
    """Return the frame where a map's saliency has the largest sum; None without a map, and for an empty one."""
    saliency = None if drawn is None else drawn.saliency(3)
    if saliency is None or not saliency.any():
        return None
    (low, high), part = recording.box[0], recording.seen()[0]
    moment = (int(saliency.sum(axis=(1, 2), dtype=np.float64).argmax()) + 0.5) / len(saliency)
    return int(np.clip(math.floor(low + moment * (high - low)), part.start, part.stop - 1))


def video_words(recording: Recording, at: tuple[int, ...], of: str) -> str:
    """Say which frames of a video are drawn, for a map called ``of``."""
    which = f"{len(at)} of {recording.size[0]} frames, counted from 0, the strongest of {of} among them"
    return f"{which}; where a map is strongest is framed"


def video(recording: Recording, drawn: DrawnMap | None, at: tuple[int, ...], size: int | None = None) -> Image.Image:
    """Draw frames in rows of four; the one where the map is strongest is framed.

    Args:
        recording: the video.
        drawn: the map on it; None to draw the frames alone.
        at: the frames.
        size: the longest side in pixels, at most.
    """
    strongest, across = strongest_frame(recording, drawn), min(_ACROSS, len(at))
    rows = [at[start : start + across] for start in range(0, len(at), across)]
    tall, wide = (side * step for side, step in zip(recording.size[1:], recording.spacing[1:], strict=True))
    if size is None:
        size = round(1.08 * across * min(max(wide / min(recording.spacing[1:]), 160), 400))
    text, gap = size / 58, max(2, round(size / 110))
    room = size - (across + 1) * gap, size - (len(rows) + 1) * gap - 1.7 * text * len(rows)
    factor = min(room[0] / (across * wide), room[1] / (len(rows) * tall))
    pixels = max(1, int(factor * wide)), max(1, int(factor * tall))
    channels, ends = shown_channels(recording), limits(recording)

    def tile(frame: int) -> Tile:
        photo = section(channels[:, frame], ends, (recording.box[1], recording.box[2]), pixels)
        part = drawn and drawn.strongest(-3, map_cells(recording.box[0], drawn.values.shape[-3], frame))
        return Tile(photo, _label(recording, frame), part, marked=frame == strongest)

    return montage([[tile(frame) for frame in row] for row in rows], text, gap)


def _label(recording: Recording, frame: int) -> str:
    return f"frame {frame}" + (f", {frame * recording.spacing[0]:.2f} s" if recording.unit == "s" else "")
