"""Explanations drawn in rows: a photo or an input, and every map beside it, as a figure and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from relume.errors import InputError
from relume.explanation.result import Explanation, Kinds, compared
from relume.pages.html import notebook as notebook_page
from relume.pictures.canvas import seen
from relume.pictures.figure import CELL, Cell, Row, figure
from relume.pictures.kinds import share_beyond
from relume.text import name_of, significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MOST_ROWS", "notebook", "sheet"]

#: More rows than these are no picture any more; a notebook shows fewer.
MOST_ROWS = 16
MOST_THUMBNAILS = 6

_MUCH_BEYOND = 0.05


def sheet(explanations: Sequence[Explanation], *, kind: Kinds = None, columns: int | None = None, dpi: float = 150) -> Figure:
    """Draw explanations by the same methods, such as several targets of one photo: a row for each image of each.

    At most :data:`MOST_ROWS` rows are drawn; the caption says if there are more. The caption says how the maps are scaled.

    Raises:
        InputError: no images, explanations of different networks, methods or scales, or a size that is none.
    """
    if (columns is not None and columns < 1) or not dpi > 0:
        raise InputError(f"columns and dpi are above zero; got columns={columns}, dpi={dpi}")
    if len({(e.model, e.layer, tuple(e.maps), str(e.scaling)) for e in explanations}) > 1:
        raise InputError("a sheet has one caption: give explanations of one network, by the same methods at the same scale")
    rows, notes = _rows(explanations, kind, max(480, round(1.5 * CELL * dpi)), MOST_ROWS)
    first = explanations[0]
    words = [first.model, f"layer {first.layer}" if first.layer else "", first.reached]
    return figure(rows, "  ·  ".join(part for part in (*words, *notes) if part), columns=columns, dpi=dpi)


def notebook(explanations: Sequence[Explanation]) -> str:
    """Write explanations as a piece of HTML for a notebook: thumbnails of the first images."""
    first = explanations[0]
    rows, notes = _rows(explanations, None, 256, MOST_THUMBNAILS)
    notes += [note] if (note := first.naming()) else []
    heading = f"{first.model}{f', layer {first.layer}' if first.layer else ''}"
    return notebook_page(rows, heading=heading, notes=notes, summary="coverage", details=str(first.coverage))


def _rows(explanations: Sequence[Explanation], kind: Kinds, size: int, most: int) -> tuple[list[Row], list[str]]:
    """Draw the first ``most`` images, and write what there is to say of them all."""
    total, explanations = sum(len(e) for e in explanations), compared(explanations)
    shown = [one for e in explanations for one in e[:most]][:most]
    if not shown:
        raise InputError("there is no image in this explanation, and nothing to draw")
    first = shown[0]
    names = [name_of(one.provenance) for one in shown]
    one_photo = len(set(names)) == 1
    titles = [
        one.title() if one_photo or not name else f"{name}: {one.title()}" for name, one in zip(names, shown, strict=True)
    ]
    rows = [Row(title, _cells(one, kind, size)) for title, one in zip(titles, shown, strict=True)]
    kinds = dict.fromkeys(first.kind(m, kind) for m in first.maps)
    notes = [names[0] if one_photo else "", str(first.scaling) if any(k.ends for k in kinds) else ""]
    notes += [f"{k.key}: {k.note}" for k in kinds if k.note]
    notes += dict.fromkeys(info.note for info in first.infos.values())
    notes.append("similarity: Spearman's rank correlation" if first.evidence is not None else "")
    notes.append(f"the first {len(rows)} of {total} rows" if total > len(rows) else "")
    notes.append(explanations[0].trouble_with_layer([title for e in explanations for title in e.without_heat()]))
    return rows, [note for note in notes if note]


def _cells(one: Explanation, kind: Kinds, size: int) -> list[Cell]:
    """Draw the photo and every map of one image, with the scale it is drawn at."""
    photo = one.photo_at(0, size)
    cells = [Cell("photo" if one.photos else "input", seen(photo))]
    for method in one.maps:
        drawing, full, values, name = one.kind(method, kind), one.scale(method)[0], one.drawn(method), one.infos[method].title
        beyond = share_beyond(values, photo)
        name += f", {beyond:.0%} beyond the photo" if beyond > _MUCH_BEYOND else ""
        cell = Cell(name, drawing.draw(values, full, photo), note=one.doubt(method))
        if values.any() and drawing.ends is not None:
            low, high = (significant(end * full) for end in drawing.ends)
            cell = replace(cell, bar=drawing.bar(), low=low, high=high)
        cells.append(cell)
    return cells
