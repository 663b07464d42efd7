"""The pictures that a report shows, chosen as rows go by: the foremost of each section, and the rows of its table."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from relume.datasets.report.changes import Changes, Move, similarity
from relume.datasets.report.classes import Totals
from relume.datasets.report.facts import Facts, Rows

__all__ = ["MOST_CARDS", "MOST_ROWS", "Chosen", "Foremost", "Judged"]

#: How many pictures a section shows at most: the foremost of all, then the foremost of each class as far as there is room.
MOST_CARDS, _FIRST, _EACH = 72, 24, 3

#: How many rows the table of a page has at most.
MOST_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Judged:
    """A picture with all that a report says of it.

    Attributes:
        number: its place among the rows.
        facts: what the row says.
        usual: the rank correlation of its main map with the mean of its class; NaN if there is none.
        move: its change from the other run, if there is one and it has the picture.
    """

    number: int
    facts: Facts
    usual: float
    move: Move | None


#: A value, a number that no other entry has, and the picture.
_Entry: TypeAlias = tuple[float, int, Judged]


def _keep(heap: list[_Entry], most: int, entry: _Entry) -> None:
    """Add an entry to a heap, and drop the lowest if there are more than ``most``."""
    if len(heap) < most:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


class Foremost:
    """The pictures with the highest values, among all and in each class.

    Example:
        >>> from relume.datasets.report.facts import Facts
        >>> from relume.datasets.report.pictures import Foremost, Judged
        >>> foremost = Foremost()
        >>> for i in range(1000):
        ...     foremost.add(i, Judged(i, Facts(str(i), None, None, None, "cat"), 0.0, None))
        >>> [one.number for one in foremost][:3], len([*foremost])
        ([999, 998, 997], 24)
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        self._all: list[_Entry] = []
        self._classes: defaultdict[str, list[_Entry]] = defaultdict(list)

    def add(self, value: float, one: Judged) -> None:
        """Add a picture, unless its value is NaN."""
        if math.isnan(value):
            return
        self.count += 1
        for heap, most in ((self._all, _FIRST), (self._classes[one.facts.explained], _EACH)):
            _keep(heap, most, (value, -one.number, one))

    def __iter__(self) -> Iterator[Judged]:
        """Yield them, the highest value first."""
        first = {one.number: (value, place, one) for value, place, one in self._all}
        of_classes = (entry for heap in self._classes.values() for entry in heap)
        others = sorted((entry for entry in of_classes if entry[2].number not in first), reverse=True)
        chosen = [*first.values(), *others[: MOST_CARDS - len(first)]]
        return (one for _, _, one in sorted(chosen, key=lambda entry: entry[:2], reverse=True))


class Chosen:
    """The pictures that a report shows.

    Attributes:
        unusual: those whose main map is least like the mean of their class.
        wrong: those whose highest class is not that of their label, the surest first.
        outside: those with the least share of their main map inside the mask.
        moved: those whose map moved most from the other run while the prediction stayed.
        rows: those of the table, in the order of the run.
    """

    def __init__(self, rows: Rows, totals: Totals, changes: Changes | None) -> None:
        """Judge each picture, and choose."""
        self.unusual, self.wrong, self.outside, self.moved = (Foremost() for _ in range(4))
        table: list[_Entry] = []
        for number, facts in enumerate(rows):
            one = _judged(number, facts, rows.main, totals, changes)
            self._choose(one, rows.main or "")
            _keep(table, MOST_ROWS, (_worth(one), -number, _without_maps(one)))
        self.rows = [one for _, _, one in sorted(table, key=lambda entry: -entry[1])]

    def _choose(self, one: Judged, main: str) -> None:
        facts = one.facts
        self.unusual.add(-one.usual, one)
        self.wrong.add((facts.probability or 0.0) if facts.right is False else math.nan, one)
        self.outside.add(-facts.inside.get(main, math.nan), one)
        if one.move is not None and one.move.stayed:
            self.moved.add(one.move.moved, one)

    @property
    def ids(self) -> set[str]:
        """The ids of all that are shown with a thumbnail."""
        return {one.facts.id for chosen in (self.unusual, self.wrong, self.outside, self.moved) for one in chosen}


def _judged(number: int, facts: Facts, main: str | None, totals: Totals, changes: Changes | None) -> Judged:
    if facts.error is not None or main is None:
        return Judged(number, facts, math.nan, None if facts.error is not None or changes is None else changes.add(facts))
    usual, small = totals.usual(facts, main), facts.maps.get(main)
    alike = math.nan if usual is None or small is None else similarity(usual, small)
    return Judged(number, facts, alike, None if changes is None else changes.add(facts))


def _without_maps(one: Judged) -> Judged:
    """Return a picture without its maps, which a row of the table does not need."""
    move = None if one.move is None else replace(one.move, before=replace(one.move.before, maps={}))
    return replace(one, facts=replace(one.facts, maps={}), move=move)


def _worth(one: Judged) -> float:
    """Rank a row by how much it is worth a look: errors first, then wrong ones, then those that moved or are unusual."""
    doubts = [1 - one.usual, math.nan if one.move is None else one.move.moved]
    unusual = max(0.0 if math.isnan(doubt) else doubt for doubt in doubts)
    return 8 * (one.facts.error is not None) + 4 * (one.facts.right is False) + unusual
