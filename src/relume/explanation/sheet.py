"""Explanations drawn in rows: a photo or an input, and every map beside it, as a figure and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from relume.errors import InputError
from relume.explanation.drawing import Kinds, drawn_map
from relume.explanation.layer_trouble import trouble_with_layer, without_heat
from relume.explanation.result import Explanation, compared
from relume.pages.html import notebook as notebook_page
from relume.pictures.figure import CELL, Cell, Row, figure
from relume.pictures.ground import bar, cut, draw, share_beyond, words
from relume.pictures.recording import Recording
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
    wide = _width(explanations)
    rows, notes = _rows(explanations, kind, max(480, round(1.5 * wide * dpi)), MOST_ROWS)
    first = explanations[0]
    words = [first.model, f"layer {first.layer}" if first.layer else "", first.reached]
    across = columns or (1 if wide > 2 * CELL else None)
    return figure(rows, "  ·  ".join(part for part in (*words, *notes) if part), columns=across, wide=wide, dpi=dpi)


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
    cells, said = zip(*(_cells(one, kind, size) for one in shown), strict=True)
    rows = [Row(title, row) for title, row in zip(titles, cells, strict=True)]
    kinds = dict.fromkeys(first.kind(m, kind) for m in first.maps)
    notes = [names[0] if one_photo else "", str(first.scaling) if any(k.ends for k in kinds) else ""]
    notes += [f"{k.key}: {k.note}" for k in kinds if k.note]
    notes += dict.fromkeys(info.note for info in first.infos.values())
    notes.append("similarity: Spearman's rank correlation, a description and no verdict" if first.evidence is not None else "")
    notes += dict.fromkeys(said)
    notes += dict.fromkeys(words for e in shown for words in e.beliefs)
    notes.append(f"the first {len(rows)} of {total} rows" if total > len(rows) else "")
    notes.append(trouble_with_layer(explanations[0], [title for e in explanations for title in without_heat(e)]))
    return rows, [note for note in notes if note]


def _cells(one: Explanation, kind: Kinds, size: int) -> tuple[list[Cell], str]:
    """Draw the photo and every map of one image, with the scale it is drawn at; say what is drawn of a recording.

    All are of the same part of the recording, which the last map chooses: there the maps can be compared.
    """
    ground, maps = one.ground(), {method: drawn_map(one, method, kind) for method in one.maps}
    at = cut(ground, list(maps.values())[-1])
    kind_of_ground = ground.kind if isinstance(ground, Recording) else "photo"
    cells = [Cell(kind_of_ground if one.photos else "input", draw(ground, None, at, size))]
    for method, drawn in maps.items():
        name = one.infos[method].title
        beyond = share_beyond(drawn.saliency(one.images.ndim - 2), ground)
        name += (
            f", {beyond:.0%} beyond the {'photo' if cells[0].name == 'input' else cells[0].name}"
            if beyond > _MUCH_BEYOND
            else ""
        )
        cell = Cell(name, draw(ground, drawn, at, size), note=one.doubt(method))
        if drawn.values.any() and drawn.kind.ends is not None:
            low, high = (significant(end * drawn.scale) for end in drawn.kind.ends)
            cell = replace(cell, bar=bar(ground, drawn.kind), low=low, high=high)
        cells.append(cell)
    return cells, words(ground, at, one.infos[list(maps)[-1]].title)


def _width(explanations: Sequence[Explanation]) -> float:
    """Return the width of a picture in a figure, in inches: planes, frames and lines need more room than a photo."""
    ground = next((e.ground() for e in explanations if len(e)), None)
    return {"volume": 3.6, "video": 4.8, "signal": 7.2}.get(ground.kind, CELL) if isinstance(ground, Recording) else CELL
