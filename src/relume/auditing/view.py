"""Everything that is shown of one image's map, as plain data, for the figure, the page, the notebook and the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from relume.auditing.checks.base import Measure
from relume.auditing.checks.table import measures_of
from relume.auditing.drawing import Chart, Strip
from relume.explanation.belief import Verdict

__all__ = ["AuditView", "MeasureRow", "Section", "rows", "side_by_side"]


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A measure of the map."""

    key: str
    measure: Measure
    value: float

    @property
    def beyond(self) -> bool:
        """Return whether the value is beyond its limit."""
        return self.measure.margin(self.value) < 0

    @property
    def limit(self) -> str:
        """Return the limit in signs, ``< 0.37``; nothing if there is none."""
        limit = self.measure.limit
        return f"{'<' if self.measure.better == 'low' else '>'} {limit.value:.2f}" if limit else ""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The strips and charts of one check, under its title."""

    title: str
    meaning: str
    strips: Sequence[Strip]
    charts: Sequence[Chart]

    @property
    def staged(self) -> bool:
        """Return whether a chart belongs to the strip: each tile stands above its place on the curve."""
        return any(chart.marks for chart in self.charts)


@dataclass(frozen=True, slots=True, eq=False)
class AuditView:
    """Everything that is shown of one image's map by one method.

    Attributes:
        name: the name of the image's file; empty if it has none.
        method: the method's name for readers.
        subject: the class explained and its probability or score.
        about: model and layer.
        verdict: the verdict on the map.
        picture: the image as the network got it.
        rows: the measures.
        sections: the strips and charts of the checks that were made and have any, by their keys.
        notes: what was left out, and why; what is to be known of the map.
        empty: whether the map is zero everywhere.
    """

    name: str
    method: str
    subject: str
    about: Sequence[str]
    verdict: Verdict
    picture: Image.Image
    rows: Sequence[MeasureRow]
    sections: Mapping[str, Section]
    notes: Sequence[str]
    empty: bool = False


def rows(values: Mapping[str, float]) -> list[MeasureRow]:
    """Return the measures in the order of the checks."""
    return [MeasureRow(key, measure, values[key]) for key, measure in measures_of().items() if key in values]


def side_by_side(views: Sequence[AuditView]) -> list[list[MeasureRow]]:
    """Return for each measure that is known of some map its row of each map; NaN where it is not known."""
    values = [{row.key: row.value for row in view.rows} for view in views]
    known = {key: measure for key, measure in measures_of().items() if any(key in each for each in values)}
    return [[MeasureRow(key, measure, each.get(key, math.nan)) for each in values] for key, measure in known.items()]
