"""Coverage: which rectifiers ran, and which of them a rule reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Coverage", "CoverageRow"]

_MOST_PLACES = 4


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """The nodes of one kind: how many ran, whether a rule reaches them, and why not.

    Attributes:
        kind: the name of the rectifier, or of the node.
        count: how many ran.
        guided: True if a rule reaches them.
        why: why not, in words.
        places: the modules in which they ran, by dotted name, where they were written by hand.
    """

    kind: str
    count: int
    guided: bool
    why: str = ""
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = ", ".join(self.places[:_MOST_PLACES]) + ", …" * (len(self.places) > _MOST_PLACES)
        state = "guided" if self.guided else f"not guided: {self.why}"
        return f"{self.count} {self.kind}{f' in {where}' if where else ''} {state}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The rectifiers that ran between score and input, and which of them a rule reaches. Prints as a small table.

    Attributes:
        rows: a row for each kind of node.

    Example:
        >>> import torch, relume
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> coverage = relume.coverage(model, torch.rand(1, 3, 8, 8))
        >>> print(coverage)
        rectifier    ran  guided
        relu           1       1
        >>> coverage.complete
        True
    """

    rows: tuple[CoverageRow, ...]

    @classmethod
    def of(cls, counts: Mapping[tuple[str, bool, str], int], places: Mapping[str, Iterable[str]]) -> Coverage:
        """Make rows of ``counts`` by kind, whether guided, and why not; ``places`` are those of guided kinds."""
        return cls(
            tuple(
                CoverageRow(kind, count, guided, why, tuple(places.get(kind, ())) if guided else ())
                for (kind, guided, why), count in counts.items()
            )
        )

    @property
    def guided(self) -> int:
        """The number of rectifiers that a rule reaches."""
        return sum(row.count for row in self.rows if row.guided)

    @property
    def unguided(self) -> int:
        """The number of nodes that may rectify and cannot be guided."""
        return sum(row.count for row in self.rows if not row.guided)

    @property
    def complete(self) -> bool:
        """True if at least one rectifier ran and all that ran are guided."""
        return self.guided > 0 and self.unguided == 0

    def __str__(self) -> str:
        if not self.rows:
            return "no rectifier ran"
        width = max(len("rectifier"), *(len(row.kind) for row in self.rows))
        lines = [f"{'rectifier':<{width}}    ran  guided"]
        lines += [f"{r.kind:<{width}}  {r.count:>5}  {r.count * r.guided:>6}  {r.why}".rstrip() for r in self.rows]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        rows = [{"kind": r.kind, "ran": r.count, "guided": r.guided, "why": r.why, "places": list(r.places)} for r in self.rows]
        return {"guided": self.guided, "unguided": self.unguided, "rectifiers": rows}
