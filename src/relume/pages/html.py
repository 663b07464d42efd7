"""A page on which a reader compares maps: one string of HTML, with no other file and no network.

It knows plain arrays and pictures, and nothing of networks. The look (`assets/frame.*`) is for other pages too.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from relume.pictures.figure import figure_bytes
from relume.pictures.palette import properties, themed
from relume.targets.activation import Quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MapView", "PhotoView", "TargetView", "compare_page", "data_uri", "document", "inline_svg"]

#: Edges in pixels: left, top, right, bottom.
Box: TypeAlias = tuple[float, float, float, float]

#: The longer side of a photo in the page, at most; its coordinates stay those of the photo.
LONGEST = 1600


@dataclass(frozen=True, slots=True, eq=False)
class MapView:
    """One target by one method.

    Attributes:
        key: the method's key, ``"guided_gradcam"``, by which the reader stays with it from target to target.
        name: what the reader calls it.
        values: the raw map, float32, ``(C, H, W)``, or ``(h, w)`` if it is coarse.
        layer: the drawn map, RGBA, laid over the box. A coarse map looks best enlarged before it is coloured.
        bar: the same drawing of values that rise from left to right, from the first of ``ends`` to the second.
        ends: the values at the ends of the bar; the second is drawn at full strength. ``(0, 0)`` if the map is zero.
        legend: how it is drawn, in a sentence.
        note: what speaks against it, shown below it too; empty if nothing is to be said there.
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
    """What is explained, ``"tabby (281), 93.1%"``, and its maps: the page opens with the last."""

    title: str
    maps: Sequence[MapView]


@dataclass(frozen=True, slots=True, eq=False)
class PhotoView:
    """One photo and all that was explained of it.

    Attributes:
        name: the name of its file.
        photo: upright, at any size.
        box: what the network saw of it, ``x0, y0, x1, y1`` in its pixels; beyond its edges where it was padded.
        targets: what is explained, one or more.
        top: the highest classes, each with its ``quantity``.
        facts: what else a reader must know, as words: model, layer, coverage.
        size: width and height of the photo itself, if ``photo`` is a smaller copy; box and coordinates are in its pixels.
        quantity: what ``top`` has: a ``probability``, from 0 to 1, or a ``score``.
    """

    name: str
    photo: Image.Image
    box: Box
    targets: Sequence[TargetView]
    top: Sequence[tuple[str, float]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    quantity: Quantity = "probability"


def compare_page(photos: Sequence[PhotoView], *, title: str) -> str:
    """The HTML document on which a reader compares the maps of ``photos``, at least one; one alone is named in its title.

    Each map is in it to the last bit, to be read and downloaded: about 0.9 MB, with its picture, for 3 × 224 × 224 values.
    """
    maps = [(f"{i}-{j}-{k}", p, m) for i, p in enumerate(photos) for j, t in enumerate(p.targets) for k, m in enumerate(t.maps)]
    images: list[tuple[str, Box, str]] = []
    images += ((f"photo-{i}", (0, 0, *_size(photo)), _photo_uri(photo.photo)) for i, photo in enumerate(photos))
    images += ((f"map-{name}", photo.box, data_uri(shown.layer)) for name, photo, shown in maps)
    images += ((f"bar-{name}", (0, 0, 1, 1), data_uri(shown.bar)) for name, _, shown in maps)
    files = {f"npy-{name}": _packed(shown.values) for name, _, shown in maps}
    facts = [_facts(photo) for photo in photos]
    if len(photos) == 1:
        title = f"{photos[0].name} · {title}"
    return document("compare", title=title, photos=photos, facts=facts, images=images, files=files)


def _size(photo: PhotoView) -> tuple[int, int]:
    return photo.size or photo.photo.size


def _facts(photo: PhotoView) -> dict[str, Any]:
    """What the script knows of a photo, as plain data for JSON."""
    width, height = _size(photo)
    pixel = max(width, height) / min(max(photo.photo.size), LONGEST)  # how many of its pixels one of the page's is wide
    targets = [{"title": target.title, "maps": [_map_facts(shown) for shown in target.maps]} for target in photo.targets]
    size = {"width": width, "height": height, "pixel": pixel}
    return {"name": photo.name, **size, "box": [float(edge) for edge in photo.box], "targets": targets}


def _map_facts(shown: MapView) -> dict[str, Any]:
    names = {"key": shown.key, "name": shown.name, "legend": shown.legend}
    return {**names, "shape": shown.values.shape, "ends": [float(end) for end in shown.ends]}


def _photo_uri(photo: Image.Image) -> str:
    small = photo.convert("RGB")
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return data_uri(
        small, "PNG" if max(small.size) <= 512 else "JPEG"
    )  # pixels that a reader may look at one by one stay exact


def data_uri(picture: Image.Image, kind: str = "PNG") -> str:
    """A picture as the text of an address."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, quality=90, subsampling=0)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _packed(values: NDArray[np.float32]) -> str:
    """The bytes of the .npy file of ``values``, compressed, as text."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, dtype="<f4"))
    return base64.b64encode(gzip.compress(buffer.getvalue(), mtime=0)).decode()


def inline_svg(sheet: Figure, label: str) -> Markup:
    """Return a figure as an SVG element for a page, in its fonts and the colours of its theme; ``label`` says what it shows.

    Colours of :data:`relume.pictures.palette.COLOURS` become the page's. The page lets no style in that is not its own, so what
    matplotlib writes as styles becomes attributes.
    """
    text = figure_bytes(sheet, "svg", transparent=True).decode()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' style="([^"]*)"', lambda style: _attributes(style[1]), text)
    text = re.sub(r' id="\w+_\d+"', "", text.replace("matplotlib.", ""))  # of groups, which a second figure would repeat
    first = f'<svg role="img" aria-label="{escape(label)}" stroke-linejoin="round" '
    return Markup(themed(re.sub(r'<svg | (width|height)="[\d.]+pt"', lambda m: first if m[1] is None else "", text)))  # noqa: S704


def _attributes(style: str) -> str:
    """Return declarations of a style as attributes; the font's family is the page's."""
    declarations = (declaration.split(":", 1) for declaration in style.split(";"))
    return "".join(f' {name.strip()}="{value.strip()}"' for name, value in declarations if name.strip() != "font-family")


def document(name: str, **data: Any) -> str:
    """A page from its template, with its style and script and those that all pages share; nothing else may run or load."""
    assets = files("relume.pages") / "assets"
    style, script = (
        "".join((assets / f"{part}.{kind}").read_text(encoding="utf-8") for part in ("frame", name)) for kind in ("css", "js")
    )
    environment = Environment(loader=PackageLoader("relume.pages", "assets"), autoescape=True, undefined=StrictUndefined)
    environment.filters["hash"] = _hash
    return environment.get_template(f"{name}.html").render(style=Markup(properties() + style), script=Markup(script), **data)  # noqa: S704


def _hash(text: str) -> str:
    """The source expression that lets a Content-Security-Policy accept one inline text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
