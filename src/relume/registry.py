"""Registries: public mappings from a name to one of a kind of things, which other packages add to."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import EntryPoints, entry_points
from typing import Any, TypeVar

from relume.errors import InputError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A mapping from names to things of one ``kind``, such as methods.

    ``REGISTRY[name] = thing`` adds one. Another package adds one by an entry point of the registry's ``group``; entry points
    are read when a name is not found here, and loaded only if it is theirs.

    Example:
        >>> from relume.registry import Registry
        >>> colours = Registry("colour", "example.colours", {"red": "#f00"})
        >>> colours["blue"] = "#00f"
        >>> list(colours)
        ['red', 'blue']
        >>> colours["bleu"]
        Traceback (most recent call last):
        relume.errors.InputError: there is no colour 'bleu'; did you mean 'blue'? There are red, blue
    """

    def __init__(self, kind: str, group: str, things: Mapping[str, T]) -> None:
        """Begin with ``things``; ``kind`` is the word for one of them, and ``group`` that of the entry points."""
        self.kind, self.group, self._things = kind, group, dict(things)

    def __getitem__(self, name: str) -> T:
        """Return what ``name`` stands for.

        Raises:
            InputError: it stands for nothing, here or in another package.
        """
        if name not in self._things:
            for point in _points(self.group, *sys.path):
                if point.name == name:
                    self._things[name] = point.load()
                    return self._things[name]
            close = difflib.get_close_matches(str(name), names := self.names(), n=1)
            hint = f"did you mean {close[0]!r}? There are" if close else "choose from"
            raise InputError(f"there is no {self.kind} {name!r}; {hint} {', '.join(names)}")
        return self._things[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return what ``name`` stands for, or ``default`` if nothing does."""
        return self[name] if name in self.names() else default

    def __setitem__(self, name: str, thing: T) -> None:
        self._things[name] = thing

    def __delitem__(self, name: str) -> None:
        del self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def names(self) -> list[str]:
        """Return every name, those of entry points that were not loaded yet included."""
        return list(dict.fromkeys((*self._things, *(point.name for point in _points(self.group, *sys.path)))))


@functools.lru_cache
def _points(group: str, *_folders: str) -> EntryPoints:
    """Return the entry points of a group in the folders of ``sys.path``; to find them takes milliseconds."""
    return entry_points(group=group)
