"""The page of a report: plain data and small pictures for its template."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from relume.datasets.report.changes import Changes, ClassChange
from relume.datasets.report.classes import LEAST, ClassSums, Totals
from relume.datasets.report.facts import CHECKS, Facts, Rows, SmallMap
from relume.datasets.report.figures import FIGURES
from relume.datasets.report.pictures import Chosen, Foremost, Judged
from relume.datasets.shortcuts.search import FLAGGED_RISE
from relume.datasets.shortcuts.suspects import NONE_FOUND, Shown, Suspect, Suspects
from relume.pages.html import data_uri, document
from relume.pictures.canvas import BILINEAR
from relume.pictures.kinds import absolute
from relume.text import decimal, printable

__all__ = ["report_page"]

#: The side of a drawn mean map, in pixels.
_MAP = 72

#: How many suspects of each list, errors and classes are shown.
_SUSPECTS, _ERRORS, _CLASSES = 8, 8, 1000


def report_page(
    rows: Rows,
    totals: Totals,
    changes: Changes | None,
    chosen: Chosen,
    suspects: Suspects,
    figures: Mapping[str, float],
    notes: Sequence[str],
) -> str:
    """Make the HTML document of a report, in one file that needs no internet."""
    kept = [m for m in rows.maps.values() if m.column]
    cards = _Cards(rows, totals, changes, chosen)
    data = {
        "facts": _about(rows, changes),
        "notes": notes,
        "tiles": _tiles(rows, totals, figures),
        "errors": totals.errors.most_common(_ERRORS),
        "kept": kept,
        "main": rows.maps[rows.main].title if rows.main else "",
        "least": LEAST,
        "classes": [_class(sums, rows.main or "", kept, changes) for sums in _largest(totals)],
        "all_classes": len(totals.classes),
        "spreads": _spreads(rows, totals),
        "sections": cards.sections(),
        "changes": None if changes is None else _changed(changes, rows),
        "suspects": _lists(suspects),
        "none_found": NONE_FOUND,
        "flagged_rise": FLAGGED_RISE,
        "searched": suspects,
        "table": _table(rows, totals, chosen.rows, compared=changes is not None),
        "names": sorted(sums.name for sums in _largest(totals)),
    }
    name = printable(str(rows.run.folder))
    return document("report", f"{name} · relume: the report of a run", data | {"percent": _percent, "decimal": decimal})


def _percent(share: float | None) -> str:
    """Return a share in words; a dash for None."""
    if share is None:
        return "–"
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.0995 <= share < 0.995 else f"{100 * share:.1f} %"


def _largest(totals: Totals) -> list[ClassSums]:
    return sorted(totals.classes.values(), key=lambda sums: -sums.count)[:_CLASSES]


def _about(rows: Rows, changes: Changes | None) -> dict[str, str]:
    """Return what a reader must know of the run, as words."""
    record = rows.run.record
    provenance = record["provenance"]
    about = {"network": str(record["model"] or provenance["model"])}
    about |= {"pictures": str(record.get("source", "")), "methods": ", ".join(m.title for m in rows.maps.values())}
    about |= {"layer of Grad-CAM": rows.layer} if rows.layer else {}
    if record.get("configuration"):
        about["weights"] = f"SHA-256 {record['configuration']['weights'][:12]}…"
    if changes is not None:
        other = changes.other.run
        about["compared with"] = printable(str(other.folder))
        if other.record.get("configuration"):
            about["its weights"] = f"SHA-256 {other.record['configuration']['weights'][:12]}…"
    return about


def _tiles(rows: Rows, totals: Totals, figures: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return the numbers at the top: value, name and meaning of each."""
    explained = totals.count - totals.failed
    classes = sum(sums.count > 0 for sums in totals.classes.values())
    words = f"{explained:,} explained, for {classes:,} {'class' if classes == 1 else 'classes'}"
    tiles = [
        (f"{totals.count:,}", "pictures", words),
        (f"{totals.failed:,}", "errors", "pictures that could not be read or explained"),
    ]
    if "accuracy" in figures:
        words = f"of {totals.judged:,} pictures with a label, the share whose highest class it is"
        tiles.append((_percent(figures["accuracy"]), "accuracy", words))
    if "empty" in figures:
        tiles.append((_percent(figures["empty"]), "empty maps", "a map that is zero everywhere shows nothing"))
    if "inside" in figures and rows.main:
        words = f"of {rows.maps[rows.main].title}, mean over all pictures"
        tiles.append((_percent(figures["inside"]), "inside the mask", words))
    return tiles


def _drawn(small: SmallMap | None) -> str:
    """Draw a small map, enlarged before it is coloured; an empty text for None."""
    if small is None:
        return ""
    flat = np.asarray(small, np.float32)
    flat = flat[None].repeat(max(1, flat.shape[0] // 4), 0) if flat.ndim == 1 else flat.mean(0) if flat.ndim == 3 else flat
    height, width = flat.shape
    size = (max(1, round(_MAP * width / max(height, width))), max(1, round(_MAP * height / max(height, width))))
    values = np.asarray(Image.fromarray(flat / (flat.max() or 1)).resize(size, BILINEAR))
    return data_uri(absolute(values, 1.0).quantize(64))


def _bars(counts: Sequence[int]) -> str:
    """Return the outline of a histogram in a box of 20 × 10."""
    highest = max(*counts, 1)
    return "".join(f"M{i} 10V{10 - 10 * n / highest:.3g}h.9V10z" for i, n in enumerate(counts) if n)


# --- Classes -------------------------------------------------------------------------------------------------------------


def _class(sums: ClassSums, main: str, kept: Sequence[Any], changes: Changes | None) -> dict[str, Any]:
    """Return what the table of classes says of one."""
    change = None if changes is None else changes.classes.get(sums.name)
    return {
        "name": sums.name,
        "count": sums.count,
        "labelled": sums.labelled,
        "accuracy": sums.accuracy,
        "empty": {key: n / sums.count for key, n in sums.empty.items()} if sums.count else {},
        "means": {m.key: _drawn(sums.means[m.key].values) for m in kept},
        "spreads": [[(m.title, _bars(sums.spread[m.key, check])) for m in kept] for check in CHECKS],
        "inside": sums.inside[main].values,
        "moved": None if change is None or math.isnan(change.moved) else change.moved,
    }


def _spreads(rows: Rows, totals: Totals) -> list[dict[str, Any]]:
    """Return the quick checks of each map over all classes."""
    return [
        {"title": m.title, "check": check, "bars": _bars(counts), "count": sum(counts)}
        for key, m in rows.maps.items()
        for check in CHECKS
        if any(counts := totals.spread((key, check)))
    ]


def _changed(changes: Changes, rows: Rows) -> dict[str, Any]:
    """Return what the comparison says of the runs and of each class."""
    titles = {key: rows.maps[key].title for key in changes.keys}
    figures = [(name, changes.figures()[name], FIGURES[name].meaning) for name in changes.figures()]
    ranked = [_class_change(change, changes) for change in changes.ranked[:_CLASSES]]
    return {"figures": figures, "classes": ranked, "titles": titles, "count": changes.count, "only_here": changes.only_here}


def _class_change(change: ClassChange, changes: Changes) -> dict[str, Any]:
    maps = {}
    for key in changes.keys:
        before, now = change.means[key]
        maps[key] = (_drawn(before.values), _drawn(now.values), change.similarity(key))
    numbers = {"count": change.count, "changed": change.changed, "moved": change.moved}
    return {"name": change.name, "maps": maps, "few": change.moves < LEAST, **numbers}


# --- Pictures ------------------------------------------------------------------------------------------------------------


class _Cards:
    """The pictures of each section, with their thumbnails."""

    def __init__(self, rows: Rows, totals: Totals, changes: Changes | None, chosen: Chosen) -> None:
        self.rows, self.totals, self.changes, self.chosen = rows, totals, changes, chosen
        self.thumbnails = rows.thumbnails(chosen.ids)
        moved = {one.facts.id for one in chosen.moved}
        self.before = changes.other.thumbnails(moved) if changes is not None else {}

    def sections(self) -> dict[str, dict[str, Any]]:
        """Return each section by name: its cards, and how many pictures it is about."""
        main = self.rows.main or ""
        return {
            "moved": self._section(self.chosen.moved, self._moved),
            "unusual": self._section(self.chosen.unusual, self._unusual),
            "wrong": self._section(self.chosen.wrong, self._wrong),
            "outside": self._section(self.chosen.outside, lambda one: {"value": _percent(one.facts.inside[main])}),
        }

    def _section(self, chosen: Foremost, more: Any) -> dict[str, Any]:
        return {"count": chosen.count, "cards": [self._card(one) | more(one) for one in chosen]}

    def _card(self, one: Judged) -> dict[str, Any]:
        facts = one.facts
        return {
            "id": facts.id,
            "name": facts.explained,
            "label": facts.label,
            "picture": self._thumbnail(facts, self.thumbnails),
            "with": None,
            "title": facts.predicted or facts.explained,
        }

    def _thumbnail(self, facts: Facts, thumbnails: Mapping[str, Mapping[str, bytes]]) -> str:
        """Return the thumbnail of the main map; the map alone where there is none."""
        content = thumbnails.get(facts.id, {}).get(self.rows.main or "")
        if content is None:
            return _drawn(facts.maps.get(self.rows.main or ""))
        return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"

    def _unusual(self, one: Judged) -> dict[str, Any]:
        usual = self.totals.usual(one.facts, self.rows.main or "")
        return {"with": ("usual map", _drawn(usual)), "value": decimal(one.usual)}

    def _wrong(self, one: Judged) -> dict[str, Any]:
        right = self.totals[one.facts.explained].right[self.rows.main or ""]
        return {"with": ("right ones", _drawn(right.values)), "value": _percent(one.facts.probability)}

    def _moved(self, one: Judged) -> dict[str, Any]:
        assert one.move is not None
        before = self._thumbnail(one.move.before, self.before)
        now = self.thumbnails.get(one.facts.id) and self._thumbnail(one.facts, self.thumbnails)
        scores = f"{one.move.before.score:.2f} → {one.facts.score:.2f}"
        return {"picture": before, "with": ("this run", now), "value": decimal(one.move.moved), "scores": scores}


# --- Suspects ------------------------------------------------------------------------------------------------------------


def _lists(suspects: Suspects) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the two lists of suspects."""
    lists = (("same place", suspects.same_place), ("any place", suspects.any_place))
    return [(where, [_suspect(one) for one in some[:_SUSPECTS]]) for where, some in lists]


def _suspect(suspect: Suspect) -> dict[str, Any]:
    """Return what is shown of a suspect."""
    cut = np.dstack([suspect.patch, 255 * suspect.mask.astype(np.uint8)])
    height, width = suspect.mask.shape
    enlarged = max(1, 160 // max(height, width))
    size = suspect.shown[0].picture.shape[:2] if suspect.shown else None
    return {
        "suspect": suspect,
        "patch": data_uri(Image.fromarray(cut).resize((width * enlarged, height * enlarged), Image.Resampling.NEAREST)),
        "mean": _drawn(suspect.mean_map),
        "size": size,
        "shown": [_framed(one) for one in suspect.shown[:6]],
        "pasted": [
            {"id": p.id, "box": p.box, "size": p.before.shape[:2], "before": _photo(p.before), "after": _photo(p.after),
             "p": (p.p_before, p.p_after)}
            for p in suspect.pasted[:3]
        ],
    }  # fmt: skip


def _framed(one: Shown) -> dict[str, Any]:
    return {"id": one.id, "uri": _photo(one.picture), "box": one.box, "size": one.picture.shape[:2]}


def _photo(picture: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    return data_uri(Image.fromarray(picture), exact=96)


# --- The table -----------------------------------------------------------------------------------------------------------


def _table(rows: Rows, totals: Totals, judged: Sequence[Judged], *, compared: bool) -> dict[str, Any]:
    """Return the table of all pictures for the script: its columns, each with its values."""
    main = rows.maps.get(rows.main or "")
    columns: list[tuple[str, str, str, list[Any]]] = [
        ("id", "picture", "", [one.facts.id for one in judged]),
        ("label", "label", "", [one.facts.label for one in judged]),
        ("explained", "explained", "the class that its maps are for", [one.facts.explained or None for one in judged]),
        ("predicted", "highest class", "", [one.facts.predicted for one in judged]),
        ("right", "right", "the highest class is that of the label", [one.facts.right for one in judged]),
        ("probability", "probability", "of the highest class", _rounded(one.facts.probability for one in judged)),
    ]
    if main is not None:
        usual = "rank correlation of its map with the mean of its class: low is unusual"
        columns.append(("usual", "like its class", usual, _rounded(one.usual for one in judged)))
    for key, m in rows.maps.items():
        shares = (one.facts.inside.get(key) for one in judged)
        columns.append((f"{key}_inside", f"inside: {m.title}", "the share of the map inside the mask", _rounded(shares)))
        for check, words in (("edge_similarity", "like edges"), ("class_similarity", "like another class")):
            meaning = f"rank correlation of {m.title} with {'edges' if check[0] == 'e' else 'the map for the runner-up'}"
            values = _rounded(one.facts.checks.get((key, check)) for one in judged)
            columns.append((f"{key}_{check}", f"{words}: {m.title}", meaning, values))
    if compared:
        columns += _moves(rows, [one.move for one in judged])
    columns.append(("error", "error", "", [one.facts.error for one in judged]))
    full = [c for c in columns if c[0] == "id" or any(value is not None for value in c[3])]
    keys = ("key", "title", "meaning", "values")
    return {"columns": [dict(zip(keys, c, strict=True)) for c in full], "count": totals.count, "shown": len(judged)}


def _moves(rows: Rows, moves: Sequence[Any]) -> list[tuple[str, str, str, list[Any]]]:
    """Return the columns of a comparison."""
    columns = [
        ("before", "highest class before", "in the other run", [m and m.before.predicted for m in moves]),
        ("score_change", "score, change", "this run less the other", _rounded(m and m.score_change for m in moves)),
        ("moved", "moved", "1 − rank correlation of the two main maps", _rounded(m and m.moved for m in moves)),
    ]
    for key, m in rows.maps.items():
        alike = _rounded(move and move.similarity.get(key) for move in moves)
        columns.append((f"{key}_similarity", f"similarity: {m.title}", "rank correlation with the map of the other run", alike))
    return columns


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None or math.isnan(value) else round(value, 4) for value in values]
