"""What the figures say of a map, in one careful sentence, from thresholds whose origin is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from relume.text import decimal

__all__ = ["LIMITS", "Level", "Limit", "Verdict", "judge", "margin", "nothing"]

Level: TypeAlias = Literal["class", "structure", "chance", "noise", "nothing", "undecided"]


@dataclass(frozen=True, slots=True)
class Limit:
    """The ``value`` that a figure is to stay below (``low``) or above (``high``)."""

    value: float
    better: Literal["high", "low"]

    def margin(self, figure: float) -> float:
        """How far a figure is on the good side, negative on the other."""
        return self.value - figure if self.better == "low" else figure - self.value


#: What ``python -m relume.auditing.calibration`` found on the demo world, where it is known which maps localise.
LIMITS: Mapping[str, Limit] = MappingProxyType(
    {
        "stability": Limit(0.48, "high"),
        "shift": Limit(0.44, "high"),
        "classes": Limit(0.22, "low"),
        "cascade": Limit(0.37, "low"),
    }
)


def margin(figures: Mapping[str, float], limits: Mapping[str, Limit] = LIMITS) -> float:
    """The smallest margin of the figures that have a limit: not negative where the verdict is that a map is about its class.

    All of them are correlations, so that their margins have one scale. Not a number where a figure is missing or undefined.
    """
    margins = [limit.margin(figures.get(key, math.nan)) for key, limit in limits.items()]
    return math.nan if any(map(math.isnan, margins)) else min(margins)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence about one map, and its kind.

    Attributes:
        level: ``class`` if nothing measured speaks against reading the map as about its class; ``structure`` if it stays as it
            is for other classes or other weights; ``chance`` if the network needs the pixels it points at no more than any
            others, by ROAD where that was measured; ``noise`` if it does not even stay as it is for the same picture;
            ``nothing`` if it is the same everywhere, or empty; ``undecided`` if a figure is missing and no other decides.
        text: the sentence, with the figures it rests on.
    """

    level: Level
    text: str

    def __str__(self) -> str:
        return self.text


def nothing(*, zero: bool, remark: str = "") -> Verdict:
    """The verdict on a map that is the same everywhere: empty if it is ``zero``, and the ``remark`` says why."""
    if not zero:
        return Verdict("nothing", "The map is the same everywhere: it shows nothing, and nothing can be read from it.")
    why = f" {remark[0].upper()}{remark[1:]}." if remark else ""
    return Verdict("nothing", f"This map is empty: there is nothing to believe or doubt.{why}")


def judge(figures: Mapping[str, float], *, limits: Mapping[str, Limit] = LIMITS, one_output: bool = False) -> Verdict:
    """The verdict on a map with these ``figures``; a network of ``one_output`` cannot have that of classes."""
    known = {key: value for key in limits if not math.isnan(value := figures.get(key, math.nan))}
    beyond = [key for key, value in known.items() if limits[key].margin(value) < 0]
    for key, change in (("stability", "under noise that nobody sees"), ("shift", "when the picture moves by one pixel")):
        if key in beyond:
            seen = f"The map is only {decimal(known[key])} similar to itself {change}"
            return Verdict("noise", f"{seen}: take it for noise, and read nothing from it.")
    parts = []
    if "classes" in known:
        parts.append(f"is {decimal(known['classes'])} similar to those of other classes")
    if "cascade" in known:
        late = figures.get("randomisation", math.nan)
        at_last = "" if math.isnan(late) else f" ({decimal(late)} when the top nine tenths are)"
        parts.append(f"stays {decimal(known['cascade'])} similar on average while layer after layer is made random{at_last}")
    seen = f"The map {' and '.join(parts)}" if parts else "Neither other classes nor other weights were tried"
    if beyond:
        return Verdict("structure", f"{seen}: read it as where the network sees structure, not why it chose this class.")
    if figures.get("road", math.nan) < 0:
        return Verdict(
            "chance", f"{seen}, but the network needs the pixels it points at no more than random ones: distrust it."
        )
    if len(known) < len(limits):
        missing = [key for key in limits if key not in known and not (one_output and key == "classes")]
        without = f", without a figure for {', '.join(missing)}" if missing else ""
        alone = ", and a network of one output has no other class to compare with" if one_output else ""
        return Verdict("undecided", f"{seen}: not enough for a verdict{without}{alone}.")
    return Verdict("class", f"{seen}: nothing measured speaks against reading it as where the network sees this class.")
