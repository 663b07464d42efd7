"""The page on which a reader compares maps: laid over the photo, read value by value, downloaded.

It is made of plain arrays, pictures and words.
"""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.pages.html import data_uri, document
from relume.pictures.photo import Box

__all__ = ["LONGEST", "MapView", "PhotoView", "TargetView", "compare_page"]

#: The longer side of a photo in the page, at most; its coordinates stay those of the photo.
LONGEST = 1600


@dataclass(frozen=True, slots=True, eq=False)
class MapView:
    """The map of one target by one method, and how it is drawn.

    Attributes:
        key: the key of the map, ``"guided_gradcam"``, by which the reader stays with it from target to target.
        name: its name for the reader.
        values: the raw map, float32, ``(C, H, W)``, or ``(h, w)`` if it is coarse.
        layer: the drawn map, RGBA, laid over the box. A coarse map looks best enlarged before it is coloured.
        bar: the same drawing of values that rise from left to right, from the first of ``ends`` to the second.
        ends: the values at the ends of the bar; the second is drawn at full strength. ``(0, 0)`` if the map is zero.
        legend: a sentence on how it is drawn.
        note: the doubts about it, shown below it too; empty if there are none.
    """

    key: str
    name: str
    values: NDArray[np.float32]
    layer: Image.Image
    bar: Image.Image
    ends: tuple[float, float]
    legend: str
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TargetView:
    """A target, ``"tabby (281), 93.1%"``, and its maps: the page opens with the last."""

    title: str
    maps: Sequence[MapView]


@dataclass(frozen=True, slots=True, eq=False)
class PhotoView:
    """A photo and all that was explained of it.

    Attributes:
        name: the name of its file.
        photo: upright, at any size.
        box: the part that the network saw, ``x0, y0, x1, y1`` in its pixels; beyond its edges where it was padded.
        targets: what is explained, one or more.
        top: the highest classes, each with its ``quantity``.
        facts: what else a reader must know, as words: model, layer, coverage.
        size: width and height of the photo itself, if ``photo`` is a smaller copy; box and coordinates are in its pixels.
        quantity: the quantity in ``top``: a ``probability``, from 0 to 1, or a ``score``.
    """

    name: str
    photo: Image.Image
    box: Box
    targets: Sequence[TargetView]
    top: Sequence[tuple[str, float]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    quantity: Literal["probability", "score"] = "probability"


def compare_page(photos: Sequence[PhotoView], *, title: str) -> str:
    """Write the HTML document on which a reader compares the maps of ``photos``, at least one; one alone is named in its title.

    Each map is in it to the last bit, to be read and downloaded: about 0.9 MB, with its picture, for 3 × 224 × 224 values.
    """
    if len(photos) == 1:
        title = f"{photos[0].name} · {title}"
    maps = [(f"{i}-{j}-{k}", p, m) for i, p in enumerate(photos) for j, t in enumerate(p.targets) for k, m in enumerate(t.maps)]
    images: list[tuple[str, Box, str]] = []
    images += ((f"photo-{i}", (0, 0, *_size(photo)), data_uri(_small(photo.photo))) for i, photo in enumerate(photos))
    images += ((f"map-{name}", photo.box, data_uri(shown.layer)) for name, photo, shown in maps)
    images += ((f"bar-{name}", (0, 0, 1, 1), data_uri(shown.bar)) for name, _, shown in maps)
    arrays = {f"npy-{name}": _packed(shown.values) for name, _, shown in maps}
    facts = [_photo_facts(photo) for photo in photos]
    return document(
        "compare", title, {"photos": photos, "facts": facts, "images": images, "files": arrays}, scripts=["choice", "compare"]
    )


def _size(photo: PhotoView) -> tuple[int, int]:
    return photo.size or photo.photo.size


def _small(photo: Image.Image) -> Image.Image:
    """Return a photo no larger than the page shows it."""
    small = photo.convert("RGB")
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return small


def _photo_facts(photo: PhotoView) -> dict[str, object]:
    """Return what the script knows of a photo, as plain data for JSON."""
    width, height = _size(photo)
    pixel = max(width, height) / min(max(photo.photo.size), LONGEST)  # how many of its pixels one of the page's is wide
    targets = [{"title": target.title, "maps": [_map_facts(shown) for shown in target.maps]} for target in photo.targets]
    size = {"width": width, "height": height, "pixel": pixel}
    return {"name": photo.name, **size, "box": [float(edge) for edge in photo.box], "targets": targets}


def _map_facts(shown: MapView) -> dict[str, object]:
    """Return what the script knows of a map, as plain data for JSON."""
    names = {"key": shown.key, "name": shown.name, "legend": shown.legend}
    return {**names, "shape": shown.values.shape, "ends": [float(end) for end in shown.ends]}


def _packed(values: NDArray[np.float32]) -> str:
    """Return the bytes of the .npy file of ``values``, compressed, as text."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, dtype="<f4"))
    return base64.b64encode(gzip.compress(buffer.getvalue(), mtime=0)).decode()
