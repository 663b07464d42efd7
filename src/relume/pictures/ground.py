"""The ground that maps are drawn on: a photo or a recording, each drawn in its own way with the same kinds of picture."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.errors import InputError
from relume.pictures.canvas import seen, stretched
from relume.pictures.kinds import Kind
from relume.pictures.montage import DrawnMap, limits, section, shown_channels
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording, RecordingKind
from relume.pictures.scale import Array
from relume.pictures.signal import channels, line_colours, signal, signal_words
from relume.pictures.video import frames, video, video_words
from relume.pictures.volume import centre, volume, volume_words

__all__ = ["Cut", "Ground", "bands_photo", "bar", "cut", "draw", "ground_of", "palette", "share_beyond", "words"]

Ground: TypeAlias = Photo | Recording

#: The part of a recording that is drawn: the voxel whose planes are, the frames, the channels.
Cut: TypeAlias = tuple[int, ...]

#: By kind of recording: what is drawn of it, how, and that in words.
_CUTS = {"signal": channels, "volume": centre, "video": frames}
_PICTURES = {"signal": signal, "volume": volume, "video": video}
_WORDS = {"signal": signal_words, "volume": lambda _, __, of: volume_words(of), "video": video_words}


def ground_of(image: Array) -> Ground:
    """Return an input without a photo ``(C, *spatial)`` as a ground: a photo of three channels, else a recording.

    Raises:
        InputError: it has no spatial axis, or more than three.
    """
    kinds: dict[int, RecordingKind] = {2: "signal", 3: "bands", 4: "volume"}
    kind = kinds.get(image.ndim)
    if kind is None:
        raise InputError(
            f"inputs with one to three spatial axes are drawn, and this one has shape {image.shape}; plot e[method] yourself"
        )
    if kind == "bands" and len(image) == 3:
        return Photo.whole(stretched(image))
    ends = (float(image[0].min()), float(image[0].max())) if kind == "bands" else None
    return Recording(image, kind, limits=ends)


def bands_photo(recording: Recording) -> Photo:
    """Return bands as a photo: the channels that are shown, each between its own limits where the file tells none."""
    tall, wide = (side * step / min(recording.spacing) for side, step in zip(recording.size, recording.spacing, strict=True))
    shown = shown_channels(recording)
    unit = np.stack([(c - low) / (high - low) for c in shown.astype(np.float64) for low, high in [limits(recording, c)]])
    down, across = recording.box
    return section(unit, (0, 1), (down, across), (round(wide), round(tall)))


def cut(ground: Ground, drawn: DrawnMap | None = None) -> Cut:
    """Choose the part of a recording that is drawn, by the map on it if there is one; of a photo or of bands it is all."""
    return _CUTS[ground.kind](ground, drawn) if isinstance(ground, Recording) and ground.kind in _CUTS else ()


def words(ground: Ground, at: Cut, of: str) -> str:
    """Say what of a recording is drawn for a map called ``of``; nothing where it is all of it."""
    if isinstance(ground, Photo):
        return ""
    if ground.kind != "bands":
        return _WORDS[ground.kind](ground, at, of)
    several = f"channels {', '.join(map(str, ground.shown))} as red, green and blue"
    which = several if len(ground.shown) > 1 else f"channel {ground.shown[0]} in grey"
    return "" if len(ground.values) == 1 else f"{which}, of {len(ground.values)}, counted from 0"


def draw(ground: Ground, drawn: DrawnMap | None = None, at: Cut | None = None, size: int | None = None) -> Image.Image:
    """Draw a map on its ground, or the ground alone; dimmed where the network never looked.

    Args:
        ground: the photo or the recording.
        drawn: the map; None for none.
        at: what of a recording is drawn; if None, what suits the map: see :func:`cut`.
        size: the longest side of the picture, at most.
    """
    if isinstance(ground, Recording) and ground.kind != "bands":
        return _PICTURES[ground.kind](ground, drawn, cut(ground, drawn) if at is None else at, size)
    photo = ground if isinstance(ground, Photo) else bands_photo(ground)
    photo = photo if size is None else photo.fitted(size)
    return seen(photo) if drawn is None else drawn.kind.draw(drawn.values, drawn.scale, photo)


def palette(ground: Ground, kind: Kind) -> NDArray[np.uint8]:
    """Return the colours of values from -1 to 1 at scale 1, in 255 steps, RGBA ``(255, 4)``: what a page lays over the ground.

    Along a signal colours are opaque, and the fourth value is how wide the line is there.
    """
    values = np.linspace(-1, 1, 255, dtype=np.float32)
    if isinstance(ground, Recording) and ground.kind == "signal":
        colours, weight = line_colours(kind, values, 1)
        return np.round(255 * np.column_stack([colours, weight])).astype(np.uint8)
    rgba: NDArray[np.uint8] = np.asarray(kind.layer(values[None], 1).convert("RGBA"))[0]
    return rgba


def bar(ground: Ground, kind: Kind) -> Image.Image | None:
    """Draw the colour bar of a kind of picture on this ground; None where colours stand for no values."""
    if isinstance(ground, Photo) or ground.kind != "signal":
        return kind.bar()
    return Image.fromarray(np.round(255 * line_colours(kind, kind.ramp[0], 1)[0]).astype(np.uint8)[None])


def share_beyond(saliency: Array, ground: Ground) -> float:
    """Compute the share of a map's saliency ``(*spatial)`` beyond the edges of its ground, in the padding of the input."""
    if isinstance(ground, Photo):
        left, top, right, bottom = ground.box
        edges = [(top, bottom, ground.picture.height), (left, right, ground.picture.width)]
    else:
        edges = [(low, high, side) for (low, high), side in zip(ground.box, ground.size, strict=True)]
    magnitudes = saliency.astype(np.float64)
    inside = magnitudes
    for axis, (low, high, side) in enumerate(edges):
        places = low + (np.arange(magnitudes.shape[axis]) + 0.5) / magnitudes.shape[axis] * (high - low)
        inside = np.compress((places >= 0) & (places <= side), inside, axis=axis)
    return 1 - float(inside.sum()) / (float(magnitudes.sum()) or 1.0) if magnitudes.any() else 0.0
