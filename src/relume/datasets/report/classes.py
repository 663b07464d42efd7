"""Sums over the pictures of each class: counts, mean maps, and how the quick checks are spread."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from relume.datasets.report.facts import Facts, SmallMap

__all__ = ["BINS", "LEAST", "ClassSums", "Mean", "Totals"]

#: A class of fewer pictures has no usual map.
LEAST = 20

#: The steps of a histogram, from -1 to 1.
BINS = 20

#: The most classes, and sentences of errors, that are counted apart; the rest are counted together.
MOST, _SENTENCES = 10_000, 1000


class Mean:
    """The mean of numbers, or of small maps, which are added one by one.

    Example:
        >>> import numpy as np
        >>> from relume.datasets.report.classes import Mean
        >>> mean = Mean()
        >>> mean.add(np.array([1.0, 0.0])), mean.add(np.array([0.0, 1.0]))
        (None, None)
        >>> mean.values, mean.count
        (array([0.5, 0.5]), 2)
    """

    def __init__(self, count: int = 0, total: Any = 0.0) -> None:
        """Begin with none, or with the sum of some."""
        self.count, self.total = count, total

    def add(self, value: Any) -> None:
        """Add a number, or a map."""
        self.count, self.total = self.count + 1, self.total + value

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.count + other.count, self.total + other.total)

    @property
    def values(self) -> Any:
        """The mean; None of nothing."""
        return self.total / self.count if self.count else None


@dataclass
class ClassSums:
    """What is known of the pictures for which one class is explained.

    Attributes:
        name: its name.
        count: the number of pictures.
        labelled: the number of pictures with its label, whatever class is explained for them.
        found: the number of these pictures whose highest class it is.
        empty: for each map the number of empty ones.
        means: for each map its mean.
        right: for each map its mean over pictures whose highest class is that of their label.
        spread: for each map and quick check the number of pictures in each of :data:`BINS` steps from -1 to 1.
        checks: for each map and quick check the sum of its values, and their number.
        inside: for each map the sum of its shares inside masks, and their number.
    """

    name: str
    count: int = 0
    labelled: int = 0
    found: int = 0
    empty: Counter[str] = field(default_factory=Counter)
    means: defaultdict[str, Mean] = field(default_factory=lambda: defaultdict(Mean))
    right: defaultdict[str, Mean] = field(default_factory=lambda: defaultdict(Mean))
    spread: defaultdict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * BINS))
    checks: defaultdict[tuple[str, str], Mean] = field(default_factory=lambda: defaultdict(Mean))
    inside: defaultdict[str, Mean] = field(default_factory=lambda: defaultdict(Mean))

    def add(self, facts: Facts) -> None:
        """Add a picture for which this class is explained."""
        self.count += 1
        self.empty.update(key for key, empty in facts.empty.items() if empty)
        for key, small in facts.maps.items():
            self.means[key].add(small)
            if facts.right:
                self.right[key].add(small)
        for check, value in facts.checks.items():
            self.checks[check].add(value)
            self.spread[check][min(int((value + 1) / 2 * BINS), BINS - 1)] += 1
        for key, share in facts.inside.items():
            self.inside[key].add(share)

    @property
    def accuracy(self) -> float | None:
        """The share of the pictures with this label whose highest class it is."""
        return self.found / self.labelled if self.labelled else None


class Totals:
    """The sums of a whole run.

    Attributes:
        count: the number of rows.
        failed: how many have an error.
        labelled, judged, right: how many have a label; how many have one that is a class; how many of these are right.
        errors: the number of errors by sentence, in which what stands in quotes is left out.
        classes: the sums of each class by name.
    """

    def __init__(self, rows: Iterable[Facts]) -> None:
        """Add up rows."""
        self.count = self.failed = self.labelled = self.judged = self.right = 0
        self.errors: Counter[str] = Counter()
        self.classes: dict[str, ClassSums] = {}
        for facts in rows:
            self._add(facts)

    def _add(self, facts: Facts) -> None:
        self.count += 1
        self.labelled += facts.label is not None
        if facts.error is not None:
            self.failed += 1
            sentence = re.sub(r"'[^']*'|\"[^\"]*\"", "…", facts.error)
            self.errors[sentence if sentence in self.errors or len(self.errors) < _SENTENCES else "others"] += 1
            return
        self[facts.explained].add(facts)
        if facts.right is not None and facts.known is not None:
            self.judged += 1
            self.right += facts.right
            self[facts.known].labelled += 1
            self[facts.known].found += facts.right

    def __getitem__(self, name: str) -> ClassSums:
        """Return the sums of a class; beyond :data:`MOST`, one for all others."""
        name = name if name in self.classes or len(self.classes) < MOST else "others"
        return self.classes.setdefault(name, ClassSums(name))

    def usual(self, facts: Facts, key: str) -> SmallMap | None:
        """Return the mean map of the class that is explained for a picture; None if the class has too few pictures."""
        mean = self[facts.explained].means[key]
        return mean.values if mean.count >= LEAST else None

    def spread(self, check: tuple[str, str]) -> list[int]:
        """Return how a quick check of a map is spread over all classes."""
        return [sum(column) for column in zip(*(c.spread[check] for c in self.classes.values()), strict=True)] or [0] * BINS

    def share_empty(self, key: str) -> float | None:
        """Return the share of a map's pictures for which it is empty."""
        explained = self.count - self.failed
        return sum(c.empty[key] for c in self.classes.values()) / explained if explained else None

    def mean_inside(self, key: str) -> float | None:
        """Return the mean share of a map inside masks; None if nothing has one."""
        mean: float | None = sum((c.inside[key] for c in self.classes.values()), Mean()).values
        return mean
