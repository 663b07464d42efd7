"""Coverage: which rectifiers ran, and which of them a rule reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Coverage", "CoverageRow"]


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """``count`` nodes of one kind, ``guided`` or not, and ``why`` not."""

    kind: str
    count: int
    guided: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which rectifiers ran between score and input, and which of them a rule reaches. Prints as a small table."""

    rows: tuple[CoverageRow, ...]

    @property
    def guided(self) -> int:
        """How many rectifiers a rule reaches."""
        return sum(row.count for row in self.rows if row.guided)

    @property
    def unguided(self) -> int:
        """How many nodes may rectify and cannot be guided."""
        return sum(row.count for row in self.rows if not row.guided)

    @property
    def complete(self) -> bool:
        """Whether at least one rectifier ran and all that ran are guided."""
        return self.guided > 0 and self.unguided == 0

    def __str__(self) -> str:
        if not self.rows:
            return "no rectifier ran"
        width = max(len("rectifier"), *(len(row.kind) for row in self.rows))
        lines = [f"{'rectifier':<{width}}    ran  guided"]
        lines += [f"{r.kind:<{width}}  {r.count:>5}  {r.count * r.guided:>6}  {r.why}".rstrip() for r in self.rows]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        rows = [{"kind": r.kind, "ran": r.count, "guided": r.guided, "why": r.why} for r in self.rows]
        return {"guided": self.guided, "unguided": self.unguided, "rectifiers": rows}
