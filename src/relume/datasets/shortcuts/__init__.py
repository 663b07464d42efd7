"""Repeated patches that a network uses: candidates from the maps of a run, pasted on other pictures, and measured."""

from __future__ import annotations

from relume.datasets.shortcuts.search import find_suspects
from relume.datasets.shortcuts.suspects import Pasted, Shown, Suspect, Suspects, Where, write_suspects

__all__ = ["Pasted", "Shown", "Suspect", "Suspects", "Where", "find_suspects", "write_suspects"]
