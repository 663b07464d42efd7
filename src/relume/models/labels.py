"""Class names: read from a file, and looked up."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from relume.errors import ModelError, TargetError
from relume.models.checkpoints import check_file

__all__ = ["class_index", "find_class", "parse_targets", "read_labels"]


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read class names, one a line; the number of the line, from 0 on, is the class index.

    Raises:
        ModelError: the file is missing, is no text, or is empty.
    """
    check_file(Path(path), "labels file")
    try:
        # not splitlines, which also splits at characters that a name may hold; a byte order mark is no part of the first name
        lines = Path(path).read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise ModelError(f"the labels file {str(path)!r} is no UTF-8 text; give a text file with a class name a line") from None
    if not any(lines):
        raise ModelError(f"the labels file {str(path)!r} is empty; give a text file with a class name a line")
    return tuple(lines)


def find_class(name: str, labels: Sequence[str]) -> int:
    """Find the class called ``name``: by its whole label, or by one of the synonyms that a label lists between commas.

    Raises:
        TargetError: no class, or several, go by that name; the message suggests the nearest.

    Example:
        >>> from relume.models.labels import find_class
        >>> find_class("tabby cat", ["Egyptian cat", "tabby, tabby cat"])
        1
    """
    wanted = name.strip().casefold()
    for known in ([[label.casefold()] for label in labels], [_synonyms(label) for label in labels]):
        classes = [index for index, names in enumerate(known) if wanted in names]
        if len(classes) == 1:
            return classes[0]
        if classes:
            listed = ", ".join(f"{i} ({labels[i]})" for i in classes)
            raise TargetError(f"several classes are called {name!r}: {listed}; give the index")
    near = [repr(called) for called in _nearest(wanted, labels)]
    hint = f"did you mean {', '.join(near[:-1])}{' or ' if near[1:] else ''}{near[-1]}?" if near else "give a class index"
    raise TargetError(f"no class is called {name!r}; {hint}")


def _nearest(wanted: str, labels: Sequence[str], most: int = 5) -> list[str]:
    """Find the names that hold ``wanted``, whole words first and shorter before longer; else those that look alike."""
    names = {part.casefold(): part for label in labels for part in map(str.strip, label.split(","))}
    holding = sorted((name for name in names if wanted and wanted in name), key=len)
    word = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    holding.sort(key=lambda name: word.search(name) is None)
    nearest = holding or difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    return [names[name] for name in nearest[:most]]


def _synonyms(label: str) -> list[str]:
    """List the names that a label holds between commas."""
    return [part.strip().casefold() for part in label.split(",")]


def parse_targets(text: str, labels: Sequence[str] | None) -> list[int]:
    """Read the classes in ``text``: indices or names between commas, or one name that itself holds commas.

    Raises:
        TargetError: a name is unknown, or no labels are known to find it in.

    Example:
        >>> from relume.models.labels import parse_targets
        >>> parse_targets("dog, 0", ["cat", "dog"])
        [1, 0]
    """
    if labels is not None and text.strip().casefold() in (label.casefold() for label in labels):
        return [find_class(text, labels)]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise TargetError(f"the target {text!r} names no class; give indices or names, such as 243,282 or tabby")
    return list(dict.fromkeys(class_index(part, labels) for part in parts))


def class_index(part: str, labels: Sequence[str] | None) -> int:
    """Return the class that an index or a name means.

    Raises:
        TargetError: the name is unknown, or no labels are known to find it in.
    """
    if re.fullmatch(r"-?[0-9]+", part):
        return int(part)
    if labels is None:
        raise TargetError(f"the class name {part!r} cannot be looked up without labels; give --labels FILE or a class index")
    return find_class(part, labels)
