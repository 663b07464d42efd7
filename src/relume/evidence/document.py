"""An audit as files: facts, a figure, and a page that needs no other file and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relume.evidence.picture import audit_figure
from relume.evidence.plots import plot
from relume.evidence.strips import ROLES, AuditView, FigureRow, number
from relume.figures import figure_bytes
from relume.page import _document, _uri

__all__ = ["audit_files", "audit_page"]

#: What the page calls each verdict, in a word or two.
LEVELS: Mapping[str, str] = {
    "class": "about its class",
    "structure": "structure",
    "chance": "chance",
    "noise": "noise",
    "nothing": "nothing",
    "undecided": "undecided",
}


def audit_files(groups: Sequence[Sequence[AuditView]], facts: Mapping[str, Any]) -> dict[str, bytes]:
    """``audit.json`` of the ``facts``, ``audit.png`` and ``index.html`` of the maps, grouped by picture."""
    return {
        "audit.json": (json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "audit.png": figure_bytes(audit_figure([view for views in groups for view in views])),
        "index.html": audit_page(groups, title="relume: maps audited").encode(),
    }


def audit_page(groups: Sequence[Sequence[AuditView]], *, title: str) -> str:
    """The HTML document that says of each picture, one group of views each, what its maps are to be taken for."""
    return _document(
        "audit", title=title, groups=groups, levels=LEVELS, roles=ROLES, rows=_table, meter=_meter,
        uri=_uri, number=number, wide=_wide, small=_small,
    )  # fmt: skip


def _wide(view: AuditView) -> Any:
    """The cascade's curve, each stage of which stands below the middle of its picture; see ``.stages`` of the style."""
    tiles = len(view.strips["cascade"].tiles) if "cascade" in view.strips else 7
    column = 126.0
    return plot(view.curve, tiles * column, 190, (column / 2, 12, column / 2, 36)) if view.curve else None


def _small(view: AuditView) -> list[Any]:
    return [(chart, plot(chart, 320, 200, (30, 8, 12, 36))) for chart in view.charts]


def _table(views: Sequence[AuditView]) -> list[list[FigureRow]]:
    """For each figure that is known of some map its row of each; not a number where it is not known."""
    by = [{row.key: row for row in view.rows} for view in views]
    known = {row.key: row for view in views for row in view.rows}
    return [[rows.get(key) or FigureRow(key, row.figure, np.nan, row.limit) for rows in by] for key, row in known.items()]


def _meter(row: FigureRow) -> dict[str, float]:
    """A figure on a scale from -1 to 1, as shares of its width: where it stands, its limit, and the side that is beyond."""
    at = {"value": 50 + 50 * max(-1.0, min(1.0, row.value))} if row.value == row.value else {}  # noqa: PLR0124 - a number
    if row.limit is None:
        return at
    limit = 50 + 50 * row.limit.value
    start, end = (limit, 100.0) if row.limit.better == "low" else (0.0, limit)
    return at | {"limit": limit, "start": start, "wide": end - start}
