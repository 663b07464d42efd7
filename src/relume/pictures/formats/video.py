"""Clips of video by PyAV, which brings the libraries of FFmpeg; maps are written as arrays of NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from relume.errors import ImageError
from relume.pictures.formats.arrays import ArrayGrid
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["read_video"]

_MOST_FRAMES, _MOST_VALUES = 512, 2**30
#: FFmpeg knows files that only name other files or addresses; these do not.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm"


def read_video(path: Path) -> Recording:
    """Read all frames of a short clip, upright and in RGB, ``(3, frames, rows, columns)``.

    Raises:
        ImageError: it holds no video, is damaged or cut short, changes its size, or is too long.
    """
    import av

    try:
        with path.open("rb") as file, av.open(file, "r", options={"format_whitelist": _CONTAINERS}) as container:
            if not container.streams.video:
                raise ImageError("it holds no video; give a clip with pictures")
            stream = container.streams.video[0]
            frames, turns = _frames(container, stream)
            rate, aspect, count = stream.average_rate, float(stream.sample_aspect_ratio or 1), stream.frames
            stated = (container.duration or 0) / av.time_base
    except av.FFmpegError as error:
        raise ImageError(
            f"it is damaged, cut short, or no video of MP4, AVI, Matroska or WebM: {str(error.strerror).lower()}; convert it"
        ) from None
    if len(frames) < count or not frames:
        raise ImageError(f"it is cut short or damaged after {len(frames)} frames; copy it again, or convert it")
    values = np.rot90(np.stack(frames), turns, (1, 2)).transpose(3, 0, 1, 2)
    pixel = (aspect, 1.0) if turns % 2 else (1.0, aspect)
    step, unit = (float(1 / rate), "s") if rate else (1.0, "")
    seconds = len(frames) * step
    cut = rate and seconds < 0.9 * stated - step  # a container without a count of frames
    notes = (f"its pictures end after {seconds:.1f} of {stated:.1f} seconds, so it may be cut short",) if cut else ()
    return Recording(
        np.ascontiguousarray(values), "video", (step, *pixel), unit, limits=(0, 255), grid=ArrayGrid(), notes=notes
    )


def _frames(container: InputContainer, stream: VideoStream) -> tuple[list[NDArray[Any]], int]:
    """Decode the frames ``(rows, columns, 3)``, and tell by how many quarter turns to the left they are shown."""
    frames: list[NDArray[Any]] = []
    turns = 0
    for frame in container.decode(stream):
        pixels = frame.to_ndarray(format="rgb24")
        turns = round(frame.rotation / 90) % 4
        frames.append(pixels)
        if pixels.shape != frames[0].shape:
            raise ImageError("its frames are of several sizes; convert it to one size")
        if len(frames) > _MOST_FRAMES or len(frames) * pixels.size > _MOST_VALUES:
            height, width = pixels.shape[:2]
            raise ImageError(
                f"it has more than {len(frames) - 1} frames of {width} × {height}, and a clip is read whole; "
                "cut out the seconds that the network takes, or scale it down"
            )
    return frames, turns
