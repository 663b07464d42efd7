"""The verdict on a map that was audited: what a calibration says of its method, unless a measure vetoes the map."""

from __future__ import annotations

import math
from collections.abc import Mapping

from relume.auditing.checks.base import Measure
from relume.auditing.checks.table import limits_of, measures_of
from relume.auditing.drawing import number
from relume.explanation.belief import UNCALIBRATED, Verdict

__all__ = ["Verdict", "judge"]


def judge(
    values: Mapping[str, float], belief: Verdict = UNCALIBRATED, *, measures: Mapping[str, Measure] | None = None
) -> Verdict:
    """Judge a map by its measures: one beyond its limit vetoes the map; else the verdict is the ``belief`` in its method.

    Args:
        values: a map's measures by key; NaN where one is undefined.
        belief: the verdict of a calibration on the method.
        measures: what they are; those of all checks if None.

    Example:
        >>> from relume.auditing import judge
        >>> judge({"stability": 0.9, "shift": 0.9}).level
        'uncalibrated'
        >>> print(judge({"stability": 0.1}))
        The map changes under noise that nobody sees (similarity 0.10, limit 0.48): take it for noise, and read nothing from it.
    """
    measures = measures or measures_of()
    for key, limit in limits_of(measures).items():
        value = values.get(key, math.nan)
        if measures[key].margin(value) < 0:
            words = f"{limit.beyond} ({limit.name} {number(value)}, limit {number(limit.value)})"
            return Verdict("unstable", f"The map {words}: take it for noise, and read nothing from it.")
    return belief
