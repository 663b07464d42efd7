"""Pages and pieces of pages as strings of HTML, which need no other file and no network.

A page has its template, style and script in ``assets``: ``NAME.html``, ``NAME.css``, ``NAME.js``; ``frame.*`` belongs to all.
Nothing here knows networks or explanations.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from relume.pictures.figure import SMALL, Row, figure_bytes
from relume.pictures.palette import properties, themed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["data_uri", "document", "inline_svg", "notebook"]


def document(
    name: str, title: str, data: Mapping[str, object], *, styles: Sequence[str] = (), scripts: Sequence[str] = ()
) -> str:
    """Fill in the page ``name`` with ``data``, in one file; its policy lets nothing else run or load.

    Its styles and scripts, of its own name if none are named, come after those of the frame.
    """
    style, script = (
        "".join((files("relume.pages") / "assets" / f"{part}.{kind}").read_text("utf-8") for part in ("frame", *parts))
        for kind, parts in (("css", styles or [name]), ("js", scripts or [name]))
    )
    template = _environment().get_template(f"{name}.html")
    return template.render(data, title=title, style=Markup(properties() + style), script=Markup(script))  # noqa: S704


def notebook(rows: Sequence[Row], *, heading: str, notes: Sequence[str], summary: str, details: str) -> str:
    """Fill in the piece of HTML that a notebook shows: a heading, rows of thumbnails, notes, and ``details`` to unfold.

    It needs no script, and takes its colours from the notebook around it, light or dark.
    """
    template = _environment().get_template("notebook.html")
    return template.render(rows=rows, heading=heading, notes=notes, summary=summary, details=details, small=SMALL - 1)


@functools.cache
def _environment() -> Environment:
    """Return the templates: all they are given is escaped, and whatever they lack is an error."""
    loader = PackageLoader("relume.pages", "assets")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"hash": _hash, "uri": data_uri}
    return environment


def _hash(text: str) -> str:
    """Return the source expression that lets a Content-Security-Policy accept this inline text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def data_uri(picture: Image.Image, exact: int = 512) -> str:
    """Return a picture as the text of an address: PNG if it is transparent or has up to ``exact`` pixels a side, else JPEG.

    Example:
        >>> from PIL import Image
        >>> from relume.pages.html import data_uri
        >>> data_uri(Image.new("RGB", (2, 2)))[:30]
        'data:image/png;base64,iVBORw0K'
    """
    kind = "png" if picture.mode == "RGBA" or max(picture.size) <= exact else "jpeg"
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, quality=90, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
