"""Text: numbers, names of files, which need not be text, errors of other libraries, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "decimal", "encoded", "first_line", "json_of", "name_of", "printable", "significant"]

#: The version of what relume writes: JSON, and the columns of a run. The meaning of a key never changes under one number.
FORMAT = 1


def decimal(value: float) -> str:
    """Return a number with two digits, never a negative zero, and with a minus sign that is one."""
    return f"{value:z.2f}".replace("-", "−")


def significant(value: float) -> str:
    """Return a number to three significant digits, with a minus sign that is one."""
    return f"{value + 0.0:.3g}".replace("-", "−")  # + 0.0: not -0


def printable(path: str | Path) -> str:
    """Return a path as one line that any terminal, page or figure can hold: what cannot be printed is escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)[1:-1]


def name_of(facts: Mapping[str, Any]) -> str:
    """Return the name of a photo's file, with its folder where ``facts["name"]`` says that, to tell it from others."""
    return printable(str(facts.get("name") or Path(str(facts.get("file", ""))).name))


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; the name of its class if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def encoded(text: str) -> bytes:
    """Return the bytes of a JSON or HTML document; a byte of a name that is no text becomes an escape.

    Python keeps such a byte as one half of a pair that UTF-8 does not know; its escape is one of JSON's as well, and is read
    as the same name.
    """
    return text.encode("utf-8", "backslashreplace")


def json_of(data: Mapping[str, Any], *, allow_nan: bool = True) -> bytes:
    """Return data as a JSON document with its ``format``; what JSON has no word for becomes text."""
    text = json.dumps({"format": FORMAT, **data}, indent=2, ensure_ascii=False, default=str, allow_nan=allow_nan)
    return encoded(text + "\n")
