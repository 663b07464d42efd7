"""What there is to see of an audit: pictures, curves and words about one map, whoever draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from relume.auditing.checks.faithfulness import CURVES
from relume.auditing.checks.table import FIGURES, Checks, Figure
from relume.auditing.verdict import LIMITS, Limit, Verdict
from relume.measures.similarity import Values
from relume.pictures import kinds as render
from relume.pictures.scale import PERCENTILE, scale_of
from relume.text import decimal

__all__ = [
    "ROLES",
    "AuditView",
    "Chart",
    "Curve",
    "FigureRow",
    "Strip",
    "Tile",
    "cascade",
    "charts",
    "number",
    "rows",
    "side_by_side",
    "strips",
]

#: Whose curve it is: the audited map's, or one of those it is measured against.
Role: TypeAlias = Literal["method", "random", "edges"]

#: What each is called.
ROLES: Mapping[Role, str] = MappingProxyType({"method": "the map's order", "random": "random order", "edges": "edges' order"})

#: What the other classes are called, by the part that each plays.
OTHERS: Mapping[str, str] = MappingProxyType(
    {"runner_up": "runner-up", "random_other": "random other", "least_likely": "least likely"}
)

#: How many stages of the cascade are drawn, beside the map as it is.
STAGES = 6

_KINDS = {
    "deletion": ("Deletion", "share of pixels turned to the mean colour"),
    "insertion": ("Insertion", "share of pixels back in the blurred picture"),
    "road": ("ROAD", "share of pixels imputed from their neighbours"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A picture under its ``name``, with a ``note`` below."""

    name: str
    note: str
    picture: Image.Image


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Pictures side by side, how they are read, and the scale that they are drawn at."""

    title: str
    says: str
    tiles: Sequence[Tile]
    scale: str


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """``y`` over ``x``; NaN where there is a gap."""

    role: Role
    x: Values
    y: Values


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """Curves between ``low`` and ``high``, horizontal ``lines`` by name, and ``marks`` where a picture belongs on ``x``."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    low: float = 0.0
    lines: Mapping[str, float] = field(default_factory=dict)
    marks: Sequence[int] = ()
    high: float = 1.0

    @property
    def ticks(self) -> list[float]:
        """The values that are written beside ``y``: halves up to 1; for curves that end elsewhere, both ends and the middle."""
        if self.high != 1:
            return [self.low, (self.low + self.high) / 2, self.high]
        return [tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= self.low]


@dataclass(frozen=True, slots=True)
class FigureRow:
    """A figure of the map, and the limit that it is held against, if there is one."""

    key: str
    figure: Figure
    value: float
    limit: Limit | None

    @property
    def beyond(self) -> bool:
        """Whether it is on the wrong side of its limit."""
        return self.limit is not None and self.limit.margin(self.value) < 0


@dataclass(frozen=True, slots=True, eq=False)
class AuditView:
    """All that is shown of one picture's map by one method.

    Attributes:
        name: of the picture's file; empty if it is none.
        method: what the reader calls it.
        subject: the class explained and its probability or score.
        about: model, layer and coverage.
        verdict: what is to be said of the map.
        picture: what the network saw.
        rows: the figures.
        strips: by ``cascade``, ``classes`` and ``edges``, those that were measured.
        curve: of the cascade, if it was measured.
        charts: of pixels taken out and put in.
        notes: what was left out, and why.
        empty: whether the map is zero everywhere.
    """

    name: str
    method: str
    subject: str
    about: Sequence[str]
    verdict: Verdict
    picture: Image.Image
    rows: Sequence[FigureRow]
    strips: Mapping[str, Strip]
    curve: Chart | None
    charts: Sequence[Chart]
    notes: Sequence[str]
    empty: bool = False

    @property
    def says(self) -> str:
        """The verdict's sentence."""
        return self.verdict.text


def number(value: float) -> str:
    """A figure as it is read: two digits, with a minus that is one."""
    return "undefined" if math.isnan(value) else decimal(value)


def rows(figures: Mapping[str, float]) -> list[FigureRow]:
    """The figures in the order of :data:`FIGURES`."""
    return [FigureRow(key, figure, figures[key], LIMITS.get(key)) for key, figure in FIGURES.items() if key in figures]


def side_by_side(views: Sequence[AuditView]) -> list[list[FigureRow]]:
    """For each figure that is known of some map its row of each; NaN where it is not known."""
    by = [{row.key: row for row in view.rows} for view in views]
    known = {row.key: row for rows in by for row in rows.values()}
    ordered = [known[key] for key in FIGURES if key in known]
    return [[rows.get(row.key, FigureRow(row.key, row.figure, math.nan, row.limit)) for rows in by] for row in ordered]


# --- Pictures ------------------------------------------------------------------------------------------------------------


def _heat(values: Values, full: float | None = None) -> Image.Image:
    """A saliency map at its own scale, or one given; plain grey where there is no map."""
    if not np.isfinite(values).all():
        return Image.new("RGB", values.shape[::-1], (128, 128, 128))
    small = values.astype(np.float32)
    return render.absolute(small, scale_of(small) if full is None else full)


def _similar(value: float, values: Values) -> str:
    """Say how alike a map of these ``values`` is, or that it shows nothing."""
    if not np.isfinite(values).all():
        return "no map"
    return number(value) if values.any() else "empty"


def _alike(value: float) -> str:
    return f"similar {number(value)}"


def _short(name: str, most: int = 24) -> str:
    """The end of a long name, which tells it from its neighbours."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def strips(checks: Checks, i: int, named: Mapping[str, str]) -> dict[str, Strip]:
    """The strips of picture ``i``, of what was measured; ``named`` has the class that plays each role, in words."""
    found = {"cascade": _cascade_strip(checks, i), "classes": _class_strip(checks, i, named), "edges": _edge_strip(checks, i)}
    return {key: strip for key, strip in found.items() if strip is not None}


def drawn_stages(layers: int) -> list[int]:
    """How many layers are random at each stage that is drawn, evenly up to all of them."""
    return sorted({round(share * layers / STAGES) for share in range(1, STAGES + 1)} - {0})


def _cascade_strip(checks: Checks, i: int) -> Strip | None:
    found = checks.randomisation
    if found is None or found.stages is None:
        return None
    total, similar = len(found.layers), found.cascade["absolute"]
    tiles = [Tile("as it is", "no layer random", _heat(checks.original.saliency[i]))]
    for k in drawn_stages(total):
        name = _short(found.layers[k - 1] or "the network's own")
        note = f"{k} of {total} random: {_similar(similar[k - 1, i], found.stages[k - 1, i])}"
        tiles.append(Tile(f"to {name}", note, _heat(found.stages[k - 1, i])))
    return Strip(
        "Layer after layer is made random, from the output down",
        "A map of what the network learnt falls apart at once; one that follows structure of the picture stays. Small noise: "
        "how alike it stays under noise that nobody sees. Random pair: how alike the maps of two random networks are.",
        tiles,
        f"each map at its own percentile {PERCENTILE:g}, since ranks are compared; those of a random network may be "
        "a thousand times weaker",
    )


def _class_strip(checks: Checks, i: int, named: Mapping[str, str]) -> Strip | None:
    found = checks.classes
    if found is None:
        return None
    maps = {role: maps.saliency[i] for role, maps in found.maps.items()}
    own = checks.original.saliency[i]
    finite = [each.astype(np.float32) for each in (own, *maps.values()) if np.isfinite(each).all()]
    full = max((scale_of(each) for each in finite), default=0.0)
    tiles = [Tile(named["explained"], "the class explained", _heat(own, full))]
    tiles += [
        Tile(named[role], f"{OTHERS[role]}: {_similar(found.similarity[role]['absolute'][i], each)}", _heat(each, full))
        for role, each in maps.items()
    ]
    return Strip(
        "The same picture, explained for other classes",
        "A map about its class differs from those of others.",
        tiles,
        f"full strength at {full:.3g}, the highest percentile {PERCENTILE:g} of these maps: shared",
    )


def _edge_strip(checks: Checks, i: int) -> Strip | None:
    found = checks.edges
    if found is None:
        return None
    titles = {"sobel": "Sobel's edges", "canny": "Canny's edges", "input": "the picture itself"}
    tiles = [Tile("the map", "", _heat(checks.original.saliency[i]))]
    tiles += [
        Tile(titles[key], _alike(found.similarity[key]["absolute"][i]), _heat(maps.saliency[i]))
        for key, maps in found.maps.items()
    ]
    return Strip(
        "What needs no network",
        "Edges, and the picture less its mean colour.",
        tiles,
        f"each at its own percentile {PERCENTILE:g}: they have no common unit",
    )


# --- Curves --------------------------------------------------------------------------------------------------------------


def cascade(checks: Checks, i: int) -> Chart | None:
    """How alike the map of picture ``i`` stays while layers become random, from 1 with none of them."""
    found = checks.randomisation
    if found is None:
        return None
    similar = np.concatenate([[np.nan if checks.original.empty[i] else 1.0], found.cascade["absolute"][:, i]])
    lines = {"random pair": float(found.random_pair["absolute"][i])}
    if checks.stability is not None:
        lines = {"small noise": float(checks.stability.noise["absolute"][i])} | lines
    lines = {name: value for name, value in lines.items() if not math.isnan(value)}
    lowest = np.nanmin([*similar, *lines.values(), 0.0])
    return Chart(
        "How alike the map stays",
        "layers made random",
        "similarity",
        [Curve("method", np.arange(len(similar), dtype=np.float64), similar)],
        min(0.0, math.floor(5 * lowest) / 5),
        lines,
        [0, *drawn_stages(len(found.layers))],
    )


def charts(checks: Checks, i: int) -> list[Chart]:
    """The probability, or score, of picture ``i``'s class as pixels go, or come; scores of all charts at one scale."""
    found = checks.faithfulness
    if found is None:
        return []
    made = []
    scores = np.concatenate([rows[i] for by in found.curves.values() for rows in by.values()])
    low, high = (0.0, 1.0) if found.quantity == "probability" else _span(scores)
    for kind, by in found.curves.items():
        title, x = _KINDS[kind]
        over = found.gain[kind]["random"][i]
        gain = f"{title}: {number(over)} over chance" if np.isfinite(over) else f"{title}: the map has no order"
        roles: tuple[Role, ...] = ("random", "edges", "method")
        curves = [Curve(role, CURVES[kind], by[role][i]) for role in roles]
        made.append(Chart(gain, x, found.quantity, curves, low, high=high))
    return made


def _span(values: Values) -> tuple[float, float]:
    """The ends of an axis that holds ``values``, round numbers."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    step = 10.0 ** math.floor(math.log10((high - low) or abs(high) or 1)) / 2
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return low, high if high > low else low + step
