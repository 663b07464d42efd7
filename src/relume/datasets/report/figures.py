"""Measures of a run that a pipeline can set conditions for: ``moved>0.2``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from relume.auditing.fail_if import Condition
from relume.errors import InputError

__all__ = ["FIGURES", "Figure", "conditions_of"]


class Figure(NamedTuple):
    """A number of a report.

    Attributes:
        meaning: what it is, in words.
        compared: True if it needs another run to compare with.
    """

    meaning: str
    compared: bool = False


#: The measures by name.
FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "errors": Figure("the share of pictures that have an error"),
        "empty": Figure("the share of empty maps, of the method that has most of them"),
        "accuracy": Figure("the share of pictures with a label whose highest class it is"),
        "inside": Figure("the mean share of the main map inside the mask"),
        "suspects": Figure("the number of repeated patches that are flagged"),
        "moved": Figure("the mean of 1 − rank correlation of the two maps, of pictures whose prediction stayed", compared=True),
        "class_moved": Figure("the same, of the class that moved most", compared=True),
        "changed": Figure("the share of pictures of which another class is explained or the highest", compared=True),
        "accuracy_drop": Figure("by how much the accuracy is lower than that of the other run", compared=True),
    }
)


def conditions_of(texts: list[str], *, compared: bool, shortcuts: bool) -> list[Condition]:
    """Read conditions on measures of a run.

    Raises:
        InputError: a text is no condition, there is no such measure, or it needs something that is left out.

    Example:
        >>> from relume.datasets.report.figures import conditions_of
        >>> conditions_of(["moved>0.2"], compared=True, shortcuts=False)
        [Condition(measure='moved', sign='>', value=0.2)]
    """
    conditions = [Condition.read(text, example="moved>0.2") for text in texts]
    for condition in conditions:
        figure = FIGURES.get(condition.measure)
        if figure is None:
            raise InputError(
                f"there is no measure {condition.measure!r} to set a condition for; choose from {', '.join(FIGURES)}"
            )
        if figure.compared and not compared:
            raise InputError(f"the condition {condition} needs another run to compare with; give --against too")
        if condition.measure == "suspects" and not shortcuts:
            raise InputError(f"the condition {condition} needs the search that --no-shortcuts leaves out")
    return conditions
