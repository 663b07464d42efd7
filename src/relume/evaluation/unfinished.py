"""A calibration that goes on: a file with a line for each mosaic that is done, which goes when all are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relume.errors import InputError, OutputError
from relume.pages.folder import write_folder

__all__ = ["FILE", "Unfinished"]

#: The file; its first line says what its rows depend on.
FILE = "unfinished.jsonl"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The rows that are done, by their number, in ``folder``; in memory alone if it is None."""

    folder: Path | None
    rows: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: str | Path | None, facts: Mapping[str, Any]) -> Unfinished:
        """Go on with the rows in ``folder``, or begin with none.

        Raises:
            InputError: they depend on other facts.
            OutputError: the folder cannot be written to.
        """
        if folder is None:
            return cls(None)
        path, now = Path(folder) / FILE, json.loads(json.dumps(facts))
        try:
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]  # a line without an end was cut off
            if not whole:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(facts) + "\n", "utf-8")
                return cls(Path(folder))
            if len(whole) < len(content):
                os.truncate(path, len(whole))
        except OSError as error:
            raise _unwritten(folder, error) from error
        try:
            before, *rows = map(json.loads, whole.splitlines())
            done = {row["number"]: row["row"] for row in rows}
            others = [key for key in now if before.get(key) != now[key]]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{str(path)!r} is damaged; remove it, and calibrate from the beginning") from None
        if others:
            raise InputError(
                f"the calibration in {str(folder)!r} was begun with another {', '.join(others)}; give what it was begun with, "
                f"another folder, or remove {FILE} there"
            )
        return cls(Path(folder), done)

    def row(self, number: int, compute: Callable[[], Any]) -> Any:
        """Return a row that is done, or compute it and add it to the file.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if number not in self.rows:
            self.rows[number] = compute()
            if self.folder is not None:
                try:
                    with (self.folder / FILE).open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"number": number, "row": self.rows[number]}) + "\n")
                except OSError as error:
                    raise _unwritten(self.folder, error) from error
        return self.rows[number]

    def finish(self, files: Mapping[str, bytes]) -> None:
        """Write the results, and remove the rows.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if self.folder is not None:
            write_folder(self.folder, files, stale=[FILE])


def _unwritten(folder: str | Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write to {str(folder)!r}: {error.strerror or error}; see to that, or name another folder")
