"""A check of an audit, with its measures and their limits: everything about it in one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from relume.auditing.drawing import Chart, Strip
from relume.auditing.subject import Subject
from relume.measures.similarity import Values

if TYPE_CHECKING:
    from relume.auditing.report import AuditReport

__all__ = ["Better", "Check", "Limit", "Measure"]

Better: TypeAlias = Literal["high", "low"]


@dataclass(frozen=True, slots=True)
class Limit:
    """The value of a measure beyond which the verdict vetoes a map, and the words of the verdict.

    Attributes:
        value: the limit.
        beyond: the words for a map beyond it, after "The map": ``"changes under noise"``.
        name: the measure's name in the verdict.

    Example:
        >>> from relume.auditing import Limit
        >>> Limit(0.5, "is unsteady").value
        0.5
    """

    value: float
    beyond: str
    name: str = "similarity"


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that a check gives for each map.

    Attributes:
        title: its name in tables.
        better: whether a ``high`` or a ``low`` value speaks for the map; None where it only describes it.
        meaning: what it tells, in a sentence.
        read: finds its values ``(N,)`` in the check's result; NaN where it is undefined.
        limit: the limit beyond which it vetoes the map, if there is one.
        caution: what it does not mean, in a sentence.

    Example:
        >>> from relume.auditing import Limit, Measure
        >>> steady = Limit(0.5, "is unsteady")
        >>> measure = Measure("similarity", "high", "A map is to stay as it is.", lambda result: result, steady)
        >>> round(measure.margin(0.8), 2)
        0.3
    """

    title: str
    better: Better | None
    meaning: str
    read: Callable[[Any], Values]
    limit: Limit | None = None
    caution: str = field(default="", kw_only=True)

    @property
    def arrow(self) -> str:
        """Return an arrow to the side that speaks for the map; nothing if neither does."""
        return {"low": "↓", "high": "↑", None: ""}[self.better]

    def margin(self, value: float) -> float:
        """Return the distance of ``value`` to the limit, negative beyond it; NaN if there is no limit."""
        if self.limit is None:
            return float("nan")
        return self.limit.value - value if self.better == "low" else value - self.limit.value


def _nothing(*_: Any) -> Sequence[Any]:
    return ()


@dataclass(frozen=True, slots=True)
class Check:
    """A check of maps: how it is made, what it measures, and what is drawn of it.

    ``relume.auditing.CHECKS["mine"] = Check(...)`` adds one to every audit, to its report, JSON, page and figure, and to the
    command.

    Attributes:
        title: the heading of its part of a page.
        meaning: what is seen there, in a sentence or two.
        make: makes it on a :class:`~relume.auditing.Subject`. The result may be anything: an array ``(N,)``, a mapping, a
            dataclass. It is stored as JSON; fields of a dataclass with ``repr=False``, such as maps, are left out.
        measures: its measures by key. Keys differ from those of all other checks.
        draw: gives the strips and charts of one image, from the result, the report and the image's number.
        notes: gives what a reader must know of the result, a sentence each.
        citation: the paper that it comes from.

    Example:
        >>> import relume, torch
        >>> from torch import nn
        >>> from relume.auditing import CHECKS, Check, Measure
        >>> def spread(subject):
        ...     return subject.maps.saliency.std((1, 2))
        >>> measure = Measure("spread", "high", "An even map shows nothing.", lambda result: result)
        >>> CHECKS["spread"] = Check("Spread", "How uneven the map is.", spread, {"spread": measure})
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> relume.audit(network, torch.rand(2, 3, 8, 8), checks=["spread"]).measures["spread"].shape
        (2,)
        >>> del CHECKS["spread"]
    """

    title: str
    meaning: str
    make: Callable[[Subject], Any]
    measures: Mapping[str, Measure] = field(default_factory=dict)
    draw: Callable[[Any, AuditReport, int], Sequence[Strip | Chart]] = _nothing
    notes: Callable[[Any], Sequence[str]] = _nothing
    citation: str = ""
