"""The change from another run of the same pictures: of predictions, and of what explanations point at."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from relume.datasets.configuration import differences
from relume.datasets.report.classes import LEAST, Mean
from relume.datasets.report.facts import Facts, Rows, SmallMap
from relume.errors import InputError
from relume.measures.similarity import spearman

__all__ = ["Changes", "ClassChange", "Move", "check_comparable", "similarity"]

#: What rows of two runs may differ by: the network's weights are the point; the others change which rows there are, or digits.
_OWN = ("model", "weights", "labels", "dtype", "source", "manifest", "limit", "part_size", "preparing")
_OWN_REQUEST = ("store", "exact", "masks")


def check_comparable(this: Rows, other: Rows) -> None:
    """Refuse to compare runs whose maps differ by more than the network's weights.

    Raises:
        InputError: another method, layer, target, preprocessing or option; the message says which.
    """
    before, now = _compared(other), _compared(this)
    if found := differences(before, now):
        raise InputError(
            f"the run in {str(this.run.folder)!r} cannot be compared with that in {str(other.run.folder)!r}: "
            f"{', '.join(found)}; run one of them again like the other"
        )


def _compared(rows: Rows) -> dict[str, Any]:
    """Return what must be the same in runs that are compared."""
    record = rows.run.record
    configuration = {key: value for key, value in record.get("configuration", {}).items() if key not in _OWN}
    request = {key: value for key, value in record["request"].items() if key not in _OWN_REQUEST}
    request["options"] = {key: value for key, value in request["options"].items() if key != "calibration"}
    return {**configuration, "request": request, "layer": rows.layer}


def similarity(one: SmallMap | None, other: SmallMap | None) -> float:
    """Compute Spearman's rank correlation of two small maps; NaN if both are empty, 0 if one is."""
    if one is None or other is None or one.shape != other.shape:
        return math.nan if one is other is None else 0.0
    return spearman(one, other)


@dataclass(frozen=True, slots=True)
class Move:
    """The change of one picture.

    Attributes:
        before: its facts in the other run.
        stayed: True if prediction and class explained are those of the other run.
        score_change: by how much the score explained is higher than in the other run.
        similarity: for each map that both runs keep, the rank correlation of the two.
        moved: ``1 − similarity`` of the main map; NaN if a run does not keep it, or if it is empty in both.
    """

    before: Facts
    stayed: bool
    score_change: float
    similarity: Mapping[str, float]
    moved: float


@dataclass
class ClassChange:
    """The change of the pictures of one class, by the class that the other run explains.

    Attributes:
        name: its name.
        count: how many pictures both runs have.
        changed: of how many the prediction changed.
        total, moves: the sum of what the others moved, and how many could be compared.
        means: for each map the mean of the other run and of this, over pictures whose prediction stayed.
    """

    name: str
    count: int = 0
    changed: int = 0
    total: float = 0.0
    moves: int = 0
    means: defaultdict[str, tuple[Mean, Mean]] = field(default_factory=lambda: defaultdict(lambda: (Mean(), Mean())))

    @property
    def moved(self) -> float:
        """The mean of what its pictures moved; NaN of none."""
        return self.total / self.moves if self.moves else math.nan

    def similarity(self, key: str) -> float:
        """Return the rank correlation of the two mean maps."""
        before, now = self.means[key]
        return similarity(before.values, now.values)


class Changes:
    """The changes of a run from another, gathered picture by picture.

    Attributes:
        other: the rows of the other run.
        count: how many pictures both runs have explained.
        only_here: how many explained pictures the other has not explained.
        classes: the changes by class.
        judged, right, right_before: how many have a label that is a class, and how many of these are right here and there.
    """

    def __init__(self, this: Rows, other: Rows) -> None:
        """Begin with no picture.

        Raises:
            InputError: the runs cannot be compared.
        """
        check_comparable(this, other)
        self.other, self.main = other, this.main
        self.keys = [key for key, m in this.maps.items() if m.column and other.maps[key].column]
        self.count = self.only_here = self.judged = self.right = self.right_before = 0
        self.classes: dict[str, ClassChange] = {}

    def add(self, facts: Facts) -> Move | None:
        """Add an explained picture of this run, and return its change; None if the other run has not explained it."""
        before = self.other[facts.id]
        if before is None or before.error is not None:
            self.only_here += 1
            return None
        self.count += 1
        stayed = (before.predicted, before.explained) == (facts.predicted, facts.explained)
        similarities = {key: similarity(before.maps.get(key), facts.maps.get(key)) for key in self.keys}
        moved = 1 - similarities.get(self.main or "", math.nan)
        move = Move(before, stayed, facts.score - before.score, similarities, moved)
        self._sum(facts, move)
        return move

    def _sum(self, facts: Facts, move: Move) -> None:
        if facts.right is not None and move.before.right is not None:
            self.judged += 1
            self.right += facts.right
            self.right_before += move.before.right
        change = self.classes.setdefault(move.before.explained, ClassChange(move.before.explained))
        change.count += 1
        if not move.stayed:
            change.changed += 1
            return
        if not math.isnan(move.moved):
            change.total, change.moves = change.total + move.moved, change.moves + 1
        for key in self.keys:
            pair = move.before.maps.get(key), facts.maps.get(key)
            for mean, small in zip(change.means[key], pair, strict=True):
                if small is not None:
                    mean.add(small)

    @property
    def ranked(self) -> list[ClassChange]:
        """The classes, the one that moved most first; those of few pictures at the end."""
        return sorted(self.classes.values(), key=lambda c: (c.moves < LEAST, -np.nan_to_num(c.moved, nan=-1.0)))

    def figures(self) -> dict[str, float | None]:
        """Return the measures of a comparison."""
        moves = sum(c.moves for c in self.classes.values())
        ranked = [c for c in self.ranked if c.moves >= LEAST]
        return {
            "moved": sum(c.total for c in self.classes.values()) / moves if moves else None,
            "class_moved": ranked[0].moved if ranked else None,
            "changed": sum(c.changed for c in self.classes.values()) / self.count if self.count else None,
            "accuracy_drop": (self.right_before - self.right) / self.judged if self.judged else None,
        }
