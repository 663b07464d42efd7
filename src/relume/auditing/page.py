"""An audit as files: plain data, a figure, and a page that needs no other file and no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from relume.auditing.charts import chart_svg, legend_svg
from relume.auditing.checks.table import CHECKS
from relume.auditing.drawing import number
from relume.auditing.figure import audit_figure
from relume.auditing.view import AuditView, MeasureRow, side_by_side
from relume.explanation.belief import LEVELS
from relume.pages.html import data_uri, document
from relume.pages.html import notebook as pieces
from relume.pictures.figure import Cell, Row, figure_bytes
from relume.text import encoded, json_of

__all__ = ["audit_files", "audit_page", "notebook"]

#: A picture of at most so many pixels a side stays exact, since it is drawn larger than it is.
EXACT = 160


def audit_files(groups: Sequence[Sequence[AuditView]], data: Mapping[str, Any]) -> dict[str, bytes]:
    """Make ``audit.json`` of the ``data``, ``audit.png`` and ``index.html`` of the maps, grouped by image."""
    return {
        "audit.json": json_of(data, allow_nan=False),
        "audit.png": figure_bytes(audit_figure([view for views in groups for view in views])),
        "index.html": encoded(audit_page(groups, title="relume: maps audited")),
    }


def audit_page(groups: Sequence[Sequence[AuditView]], *, title: str) -> str:
    """Make the HTML document that judges the maps of each image, one group of views each."""
    functions = {"rows": side_by_side, "sections": _sections, "meter": _meter, "uri": _uri, "number": number}
    functions |= {"chart_svg": chart_svg, "legend_svg": legend_svg}
    return document("audit", title, {"groups": groups, "levels": LEVELS, **functions})


def notebook(view: AuditView) -> str:
    """Make a piece of HTML for a notebook: the verdict, the strips, the measures."""
    strips = [
        Row(section.title, [Cell(tile.name, tile.picture, low=tile.note) for tile in strip.tiles])
        for section in view.sections.values()
        for strip in section.strips
    ]
    subject = " · ".join(part for part in (view.name, view.method, view.subject) if part)
    measures = " · ".join(f"{row.measure.title} {number(row.value)}" for row in view.rows)
    notes = [subject, measures, *view.notes]
    return pieces(strips, heading=view.verdict.text, notes=notes, summary="provenance", details="\n".join(view.about))


def _sections(views: Sequence[AuditView]) -> dict[str, list[AuditView]]:
    """Return the views that have each section, by its key, in the order of the checks."""
    return {key: shown for key in CHECKS if (shown := [view for view in views if key in view.sections])}


def _uri(picture: Image) -> str:
    return data_uri(picture.convert("RGB"), EXACT)


def _meter(row: MeasureRow) -> dict[str, float]:
    """Place a measure on a scale from -1 to 1, as shares of its width: the value, its limit, and the side beyond it."""
    shares = {"value": 50 + 50 * max(-1.0, min(1.0, row.value))} if not math.isnan(row.value) else {}
    if row.measure.limit is None:
        return shares
    limit = 50 + 50 * row.measure.limit.value
    start, end = (limit, 100.0) if row.measure.better == "low" else (0.0, limit)
    return shares | {"limit": limit, "start": start, "wide": end - start}
