"""Conditions on measures, that a pipeline sets: ``randomisation>0.8``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from relume.auditing.checks.table import CHECKS, measures_of
from relume.auditing.drawing import number
from relume.errors import InputError

__all__ = ["Condition"]

SIGNS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that no map is to meet: its ``measure`` in this relation to ``value``."""

    measure: str
    sign: str
    value: float

    @classmethod
    def read(cls, text: str, example: str = "cascade>0.5") -> Condition:
        """Read a condition: the key of a measure, one of ``<``, ``>``, ``<=`` and ``>=``, and a number.

        Raises:
            InputError: it is no condition.
        """
        match = re.fullmatch(r"\s*(\w+)\s*([<>]=?)\s*(\S+)\s*", text)
        try:
            value = float(match[3]) if match else math.nan
        except ValueError:
            value = math.nan
        if match is None or math.isnan(value):
            raise InputError(f"a condition is a measure, one of <, >, <= and >=, and a number, {example!r}; got {text!r}")
        return cls(match[1], match[2], value)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition on a measure of an audit.

        Raises:
            InputError: there is no such measure, or it is no condition.
        """
        condition = cls.read(text)
        name, measures = condition.measure, measures_of()
        if name not in measures:
            if name in CHECKS and CHECKS[name].measures:
                own = ", ".join(CHECKS[name].measures)
                raise InputError(f"{name!r} is a check of several measures; set a condition for one of {own}")
            raise InputError(f"there is no measure {name!r} to set a condition for; choose from {', '.join(measures)}")
        return condition

    def broken(self, measures: Mapping[str, float], *, empty: bool = False) -> str | None:
        """Say how the ``measures`` of a map meet the condition; None if they do not.

        A measure that is missing or undefined, as all are of an ``empty`` map, meets every condition: a map that could not be
        judged has not passed.
        """
        value = measures.get(self.measure, math.nan)
        if math.isnan(value):
            why = "the map is empty" if empty else f"{self.measure} is undefined"
            return f"{why}, so that {self} could not be judged"
        return f"{self.measure} is {number(value)}: {self}" if SIGNS[self.sign](value, self.value) else None

    def __str__(self) -> str:
        return f"{self.measure}{self.sign}{self.value:g}"
