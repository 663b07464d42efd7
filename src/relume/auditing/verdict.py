"""The verdict on a map: one careful sentence about its measures, by limits whose origin is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relume.auditing.checks.base import Limit, Measure
from relume.auditing.checks.table import limits_of, measures_of
from relume.auditing.drawing import number

__all__ = ["LEVELS", "Level", "Verdict", "judge", "margin", "nothing"]

Level: TypeAlias = Literal["class", "structure", "chance", "noise", "nothing", "undecided"]

#: The name of each level, in a word or two.
LEVELS: Mapping[Level, str] = {
    "class": "no objection",
    "structure": "structure",
    "chance": "chance",
    "noise": "noise",
    "nothing": "nothing",
    "undecided": "undecided",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence about one map, and its kind.

    Attributes:
        level: ``class`` if nothing measured speaks against reading the map as about its class; ``structure`` if it stays as it
            is for other classes or other weights; ``chance`` if the network needs the pixels it points at no more than any
            others, by ROAD where that was measured; ``noise`` if it does not even stay as it is for the same image;
            ``nothing`` if it is the same everywhere, or empty; ``undecided`` if a measure is missing and no other decides.
        text: the sentence, with the measures it rests on.

    Example:
        >>> from relume.auditing import judge
        >>> print(judge({"stability": 0.1}))
        The map changes under noise that nobody sees (similarity 0.10, limit 0.48): take it for noise, and read nothing from it.
    """

    level: Level
    text: str

    def __str__(self) -> str:
        return self.text


def margin(values: Mapping[str, float], measures: Mapping[str, Measure] | None = None) -> float:
    """Return the smallest margin of the measures that a verdict needs: not negative where a map is about its class.

    All of them are correlations, so that their margins have one scale. NaN where a measure is missing or undefined.

    Args:
        values: a map's measures by key.
        measures: what they are; those of all checks if None.
    """
    measures = measures or measures_of()
    needed = [key for key, limit in limits_of(measures).items() if limit.needed]
    margins = [measures[key].margin(values.get(key, math.nan)) for key in needed]
    return math.nan if any(map(math.isnan, margins)) else min(margins)


def nothing(*, zero: bool, remark: str = "") -> Verdict:
    """Return the verdict on a map that is the same everywhere: empty if it is ``zero``, and the ``remark`` says why."""
    if not zero:
        return Verdict("nothing", "The map is the same everywhere: it shows nothing, and nothing can be read from it.")
    why = f" {remark[0].upper()}{remark[1:]}." if remark else ""
    return Verdict("nothing", f"This map is empty: there is nothing to believe or doubt.{why}")


def judge(values: Mapping[str, float], *, measures: Mapping[str, Measure] | None = None, one_output: bool = False) -> Verdict:
    """Judge a map by its measures.

    Args:
        values: a map's measures by key; NaN where one is undefined.
        measures: what they are; those of all checks if None.
        one_output: whether the network has one output, and so no other class to compare with.

    Example:
        >>> from relume.auditing import judge
        >>> judge({"stability": 0.9, "shift": 0.9, "classes": 0.1, "cascade": 0.2}).level
        'class'
    """
    measures = measures or measures_of()
    limits = limits_of(measures)
    known = {key: values[key] for key in limits if not math.isnan(values.get(key, math.nan))}
    beyond = {key: limits[key].objection for key, value in known.items() if measures[key].margin(value) < 0}
    words = {key: _words(limits[key], value, beyond=key in beyond) for key, value in known.items()}
    for key, objection in beyond.items():
        if objection == "noise":
            return Verdict("noise", f"The map {words[key]}: take it for noise, and read nothing from it.")
    structure = [words[key] for key in words if limits[key].objection == "structure"]
    text = f"The map {' and '.join(structure)}" if structure else "Neither other classes nor other weights were tried"
    if "structure" in beyond.values():
        return Verdict("structure", f"{text}: read it as where the network sees structure, not why it chose this class.")
    for key in beyond:
        return Verdict("chance", f"{text}, but {'' if structure else 'the map '}{words[key]}: distrust it.")
    missing = [key for key, limit in limits.items() if limit.needed and key not in known]
    if missing:
        named = ", ".join(key for key in missing if not (one_output and key == "classes"))
        without = f"; not measured: {named}" if named else ""
        alone = "; there is no other class to compare with" if one_output else ""
        return Verdict("undecided", f"{text}: not enough for a verdict{without}{alone}.")
    return Verdict("class", f"{text}: nothing measured speaks against reading it as where the network sees this class.")


def _words(limit: Limit, value: float, *, beyond: bool) -> str:
    """Say whether a value is within its limit, and name it."""
    if beyond:
        return f"{limit.beyond} ({limit.name} {number(value)}, limit {number(limit.value)})"
    return f"{limit.within} ({limit.name} {number(value)})"
