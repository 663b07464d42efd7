"""The page on which a reader compares maps of signals, volumes and video: walks through slices, reads values, fades the map.

It is made of plain arrays, pictures and words.
"""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.pages.html import data_uri, document
from relume.pictures.recording import RecordingKind

__all__ = ["MOST_CELLS", "RecordingMap", "RecordingTarget", "RecordingView", "coarsened", "recordings_page"]

#: A volume or a map of more cells than a cube of 256 has is made coarser for the page, which says so.
MOST_CELLS = 256**3


@dataclass(frozen=True, slots=True, eq=False)
class RecordingMap:
    """The map of one target by one method, and how it is drawn.

    Attributes:
        key: the key of the map, by which the reader stays with it from target to target.
        name: its name for the reader.
        values: the map, signed, of any resolution: ``(d, h, w)``; of a signal ``(C, l)`` or ``(l,)``.
        full: the value drawn at full strength.
        colours: the colours of values from ``-full`` to ``full`` in 255 steps, RGBA, ``(255, 4)``.
        picture: the map as it is drawn elsewhere.
        bar: the colours of values that rise from left to right, from the first of ``ends`` to the second.
        ends: the values at the ends of the bar; ``(0, 0)`` if the map is zero.
        legend: a sentence on how it is drawn.
        at: the voxel or frame that the page opens at, in cells of the recording.
        note: the doubts about it.
    """

    key: str
    name: str
    values: NDArray[np.float32]
    full: float
    colours: NDArray[np.uint8]
    picture: Image.Image
    bar: Image.Image
    ends: tuple[float, float]
    legend: str
    at: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class RecordingTarget:
    """A target, ``"nodule (2), 93.1%"``, and its maps: the page opens with the last."""

    title: str
    maps: Sequence[RecordingMap]


@dataclass(frozen=True, slots=True, eq=False)
class RecordingView:
    """A recording and all that was explained of it.

    Attributes:
        name: the name of its file.
        kind: a ``signal``, a ``volume`` or a ``video``.
        values: the channels that are shown: of a signal as they are, ``(C, L)``; else 1 or 3, ``(C, D, H, W)``.
        limits: the values that are black and white.
        spacing: the distance between neighbours along each axis, in ``unit``.
        unit: its unit, if known.
        box: the part that the network saw: start and end along each axis, in cells.
        picture: the recording as it is drawn elsewhere.
        targets: what is explained, one or more.
        channels: the channels of a signal that are drawn.
        bands: the number of each channel in its file, if it is another.
        top: the highest classes, each with its ``quantity``.
        facts: what else a reader must know, as words.
        quantity: the quantity in ``top``: a ``probability``, from 0 to 1, or a ``score``.
    """

    name: str
    kind: RecordingKind
    values: NDArray[Any]
    limits: tuple[float, float]
    spacing: tuple[float, ...]
    unit: str
    box: tuple[tuple[float, float], ...]
    picture: Image.Image
    targets: Sequence[RecordingTarget]
    channels: Sequence[int] = ()
    bands: Sequence[int] = ()
    top: Sequence[tuple[str, float]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    quantity: Literal["probability", "score"] = "probability"


def recordings_page(views: Sequence[RecordingView], *, title: str) -> str:
    """Write the HTML document on which a reader compares the maps of recordings of one kind, at least one.

    Volumes, video and their maps are in it in 255 steps; signals and theirs to the last bit.
    """
    if len(views) == 1:
        title = f"{views[0].name} · {title}"
    kind, step = views[0].kind, "frame" if views[0].kind == "video" else "slice"
    images, packed, facts = [], {}, []
    for i, view in enumerate(views):
        values, data = _packed_recording(view)
        packed[f"scan-{i}"] = values
        facts.append(
            {**data, "targets": [{"title": t.title, "maps": [_map_facts(m, data) for m in t.maps]} for t in view.targets]}
        )
        for j, target in enumerate(view.targets):
            for k, shown in enumerate(target.maps):
                packed[f"map-{i}-{j}-{k}"] = _packed(_levels(shown) if kind != "signal" else shown.values.astype("<f4"))
                images.append((f"bar-{i}-{j}-{k}", (0, 0, 1, 1), data_uri(shown.bar)))
    name = "signal" if kind == "signal" else "volume"
    return document(
        name,
        title,
        {"photos": views, "facts": facts, "images": images, "files": packed, "axes": 1 if kind == "video" else 3, "step": step},
        styles=("compare", "recording"),
        scripts=("choice", name),
    )


def _packed_recording(view: RecordingView) -> tuple[str, dict[str, Any]]:
    """Return a recording as packed text, and what the script knows of it, in cells of the page."""
    facts = {
        "name": view.name,
        "kind": view.kind,
        "unit": view.unit,
        "step": view.spacing,
        "channels": list(view.channels),
        "bands": list(view.bands),
    }
    facts |= {"shape": view.values.shape, "size": view.values.shape[1:], "spacing": view.spacing, "box": view.box}
    if view.kind == "signal":
        return _packed(view.values.astype("<f4")), facts
    low, high = view.limits
    channels = [coarsened(channel, MOST_CELLS, mean=True) for channel in view.values]
    unit = (np.stack(channels).astype(np.float32) - low) / (high - low)
    levels = np.round(255 * np.nan_to_num(np.clip(unit, 0, 1))).astype(np.uint8)
    factors = [count / side for count, side in zip(levels.shape[1:], view.values.shape[1:], strict=True)]
    return _packed(levels), facts | {
        "shape": levels.shape[0 if len(levels) > 1 else 1 :],
        "spacing": [step / factor for step, factor in zip(view.spacing, factors, strict=True)],
        "box": [[edge * factor for edge in edges] for edges, factor in zip(view.box, factors, strict=True)],
        "limits": view.limits,
    }


def _map_facts(shown: RecordingMap, recording: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the script knows of a map, as plain data for JSON."""
    facts: dict[str, Any] = {
        "key": shown.key,
        "name": shown.name,
        "legend": shown.legend,
        "ends": [float(end) for end in shown.ends],
    }
    signal = recording["kind"] == "signal"
    shape = shown.values.shape if signal else coarse_shape(shown.values.shape, MOST_CELLS)
    sizes = zip(shown.at, recording["shape"][-3:], recording["size"], strict=True) if shown.at else ()
    at = [i * count // side for i, count, side in sizes]
    facts["unsigned"] = bool(np.array_equal(shown.colours, shown.colours[::-1]))  # drawn by its magnitudes
    return facts | {"shape": shape, "full": float(shown.full), "colours": shown.colours.ravel().tolist(), "at": at}


def _levels(shown: RecordingMap) -> NDArray[np.int8]:
    """Return a map in steps from -127, for ``-full`` and all below it, to 127."""
    values = coarsened(shown.values, MOST_CELLS)
    return np.round(127 * np.clip(values / (shown.full or 1), -1, 1)).astype(np.int8)


def coarse_shape(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Return the number of blocks along each axis, no more than ``most`` together: their sides are as equal as can be."""
    shape, sides = tuple(shape), [1] * len(shape)
    while math.prod(-(-count // side) for count, side in zip(shape, sides, strict=True)) > most:
        longest = max(range(len(shape)), key=lambda axis: shape[axis] / sides[axis])
        sides[longest] += 1
    return tuple(-(-count // side) for count, side in zip(shape, sides, strict=True))


def coarsened(values: NDArray[Any], most: int, *, mean: bool = False) -> NDArray[Any]:
    """Return values on a grid of ``most`` cells at most, one for each block: their mean, or the strongest with its sign."""
    for axis, count in enumerate(coarse_shape(values.shape, most)):
        if count == values.shape[axis]:
            continue
        edges = np.linspace(0, values.shape[axis], count, endpoint=False).astype(int)
        if mean:
            lengths = np.diff(np.append(edges, values.shape[axis])).reshape(
                [-1 if a == axis else 1 for a in range(values.ndim)]
            )
            values = np.add.reduceat(values, edges, axis, dtype=np.float32) / lengths
        else:
            high, low = np.maximum.reduceat(values, edges, axis), np.minimum.reduceat(values, edges, axis)
            values = np.where(high >= -low, high, low)
    return values


def _packed(values: NDArray[Any]) -> str:
    """Return the bytes of an array, compressed, as text."""
    return base64.b64encode(gzip.compress(np.ascontiguousarray(values).tobytes(), 6, mtime=0)).decode()
