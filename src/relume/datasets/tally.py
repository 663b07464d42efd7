"""The tally of a run on a cluster; a process that keeps it imports little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from relume.errors import RelumeError

__all__ = ["Tally"]


class Tally:
    """An actor that knows how many rows were explained, and which items a process was at when it was killed.

    Example:
        >>> from relume.datasets.tally import Tally
        >>> tally = Tally()
        >>> tally.start("task", ["a", "b"])
        [0, 0]
        >>> tally.begin(["a", "b"])
        >>> tally.end("task", ["a"], errors=0)
        >>> tally.start("task", ["a", "b"]), tally.state()  # once more, since its process was killed
        ([0, 1], (0, 0, None))
    """

    def __init__(self) -> None:
        """Begin with no rows."""
        self._open, self._deaths = set[str](), Counter[str]()
        self._ended: dict[str, tuple[int, int]] = {}
        self._refusal: RelumeError | None = None

    def start(self, task: str, ids: Sequence[str]) -> list[int]:
        """Begin a task, maybe once more, and return for each item how often a process was killed over it."""
        self._ended[task] = 0, 0
        self._deaths.update(self._open.intersection(ids))
        self._open.difference_update(ids)
        return [self._deaths[key] for key in ids]

    def begin(self, ids: Sequence[str]) -> None:
        """Note that items are begun."""
        self._open.update(ids)

    def end(self, task: str, ids: Sequence[str], errors: int) -> None:
        """Note that items are explained, some with errors."""
        self._open.difference_update(ids)
        rows, others = self._ended[task]
        self._ended[task] = rows + len(ids), others + errors

    def refuse(self, error: RelumeError) -> None:
        """Note why a node cannot work."""
        self._refusal = error

    def state(self) -> tuple[int, int, RelumeError | None]:
        """Return how many rows there are, how many of them with an error, and why the run cannot go on."""
        return sum(rows for rows, _ in self._ended.values()), sum(errors for _, errors in self._ended.values()), self._refusal
