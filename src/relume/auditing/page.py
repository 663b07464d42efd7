"""An audit as files: facts, a figure, and a page that needs no other file and no network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from relume.auditing.figure import audit_figure
from relume.auditing.svg import plot
from relume.auditing.view import ROLES, AuditView, FigureRow, number, side_by_side
from relume.pages.html import data_uri, document
from relume.pages.html import notebook as pieces
from relume.pictures.figure import Cell, Row, figure_bytes
from relume.text import encoded

__all__ = ["audit_files", "audit_page", "notebook"]

#: Pictures of at most so many pixels a side are drawn larger than they are.
EXACT = 160

#: What the page calls each verdict, in a word or two.
LEVELS: Mapping[str, str] = {
    "class": "no objection",
    "structure": "structure",
    "chance": "chance",
    "noise": "noise",
    "nothing": "nothing",
    "undecided": "undecided",
}


def audit_files(groups: Sequence[Sequence[AuditView]], facts: Mapping[str, Any]) -> dict[str, bytes]:
    """``audit.json`` of the ``facts``, ``audit.png`` and ``index.html`` of the maps, grouped by picture."""
    return {
        "audit.json": encoded(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"),
        "audit.png": figure_bytes(audit_figure([view for views in groups for view in views])),
        "index.html": encoded(audit_page(groups, title="relume: maps audited")),
    }


def audit_page(groups: Sequence[Sequence[AuditView]], *, title: str) -> str:
    """The HTML document that says of each picture, one group of views each, what its maps are to be taken for."""
    functions = {"rows": side_by_side, "meter": _meter, "uri": _address, "number": number, "wide": _wide, "small": _small}
    return document("audit", title, {"groups": groups, "levels": LEVELS, "roles": ROLES, **functions})


def notebook(view: AuditView) -> str:
    """A piece of HTML for a notebook: the verdict, the strips, the figures."""
    names = {"cascade": "layer after layer random", "classes": "other classes", "edges": "what needs no network"}
    strips = [Row(names[key], [Cell(t.name, t.picture, low=t.note) for t in s.tiles]) for key, s in view.strips.items()]
    asked = " · ".join(part for part in (view.name, view.method, view.subject) if part)
    figures = " · ".join(f"{row.figure.title} {number(row.value)}" for row in view.rows)
    notes = [asked, figures, *view.notes]
    return pieces(strips, heading=view.says, notes=notes, summary="provenance", details="\n".join(view.about))


def _address(picture: Image) -> str:
    """A picture as the text of an address; one so small that its pixels are seen stays exact."""
    return data_uri(picture.convert("RGB"), EXACT)


def _wide(view: AuditView) -> Any:
    """The cascade's curve, each stage of which stands below the middle of its picture; see ``.stages`` of the style."""
    tiles = len(view.strips["cascade"].tiles) if "cascade" in view.strips else 7
    column = 126.0
    return plot(view.curve, tiles * column, 190, (column / 2, 12, column / 2, 36)) if view.curve else None


def _small(view: AuditView) -> list[Any]:
    return [(chart, plot(chart, 320, 200, (30, 8, 12, 36))) for chart in view.charts]


def _meter(row: FigureRow) -> dict[str, float]:
    """A figure on a scale from -1 to 1, as shares of its width: where it stands, its limit, and the side that is beyond."""
    at = {"value": 50 + 50 * max(-1.0, min(1.0, row.value))} if not math.isnan(row.value) else {}
    if row.limit is None:
        return at
    limit = 50 + 50 * row.limit.value
    start, end = (limit, 100.0) if row.limit.better == "low" else (0.0, limit)
    return at | {"limit": limit, "start": start, "wide": end - start}
