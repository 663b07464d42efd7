"""A limit that a pipeline holds figures against: ``randomisation>0.8``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from relume.auditing.checks.table import FIGURES
from relume.auditing.view import number
from relume.errors import InputError

__all__ = ["Condition"]

SIGNS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
)


@dataclass(frozen=True, slots=True)
class Condition:
    """What is not to be: the ``figure`` of a map in this relation to ``value``."""

    figure: str
    sign: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition in ``text``: a key of :data:`FIGURES`, one of ``<``, ``>``, ``<=`` and ``>=``, and a number.

        Raises:
            InputError: there is no such figure, or it is no condition.
        """
        found = re.fullmatch(r"\s*(\w+)\s*([<>]=?)\s*(\S+)\s*", text)
        try:
            value = float(found[3]) if found else math.nan
        except ValueError:
            value = math.nan
        if found is None or math.isnan(value):
            raise InputError(f"a condition is a figure, one of <, >, <= and >=, and a number, 'cascade>0.5'; got {text!r}")
        if found[1] not in FIGURES:
            if of := [key for key, figure in FIGURES.items() if figure.check == found[1]]:
                raise InputError(f"{found[1]!r} is a check of several figures; set a condition for one of {', '.join(of)}")
            raise InputError(f"there is no figure {found[1]!r} to set a condition for; choose from {', '.join(FIGURES)}")
        return cls(found[1], found[2], value)

    def broken(self, figures: Mapping[str, float], *, empty: bool = False) -> str | None:
        """In words, how the ``figures`` of a map meet the condition; None if they do not.

        A figure that is missing or undefined, as all are of an ``empty`` map, meets every condition: what could not be judged
        has not passed.
        """
        figure = figures.get(self.figure, math.nan)
        if math.isnan(figure):
            why = "the map is empty" if empty else f"{self.figure} is undefined"
            return f"{why}, so that {self} could not be judged"
        return f"{self.figure} is {number(figure)}: {self}" if SIGNS[self.sign](figure, self.value) else None

    def __str__(self) -> str:
        return f"{self.figure}{self.sign}{self.value:g}"
