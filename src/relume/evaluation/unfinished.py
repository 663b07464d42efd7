"""A calibration that goes on: a file with a line for each mosaic that is done, which goes when all are."""

from __future__ import annotations

import json
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
        path, first = Path(folder) / FILE, json.dumps(facts)
        try:
            lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []  # a line without an end was cut off
            if not lines:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(first + "\n", "utf-8")
                return cls(Path(folder))
            path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        except OSError as error:
            raise OutputError(f"cannot write to {str(folder)!r}: {error.strerror}; name a writable folder") from error
        before = json.loads(lines[0])
        if before != json.loads(first):
            names = ", ".join(key for key in facts if before.get(key) != json.loads(first)[key])
            raise InputError(
                f"the calibration in {str(folder)!r} was begun with another {names}; give what it was begun with, another "
                f"folder, or remove {FILE} there"
            )
        return cls(Path(folder), {row["number"]: row["row"] for row in map(json.loads, lines[1:])})

    def row(self, number: int, compute: Callable[[], Any]) -> Any:
        """Return a row that is done, or compute it and add it to the file."""
        if number not in self.rows:
            self.rows[number] = compute()
            if self.folder is not None:
                with (self.folder / FILE).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"number": number, "row": self.rows[number]}) + "\n")
        return self.rows[number]

    def finish(self, files: Mapping[str, bytes]) -> None:
        """Write the results, and remove the rows.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if self.folder is not None:
            write_folder(self.folder, files, stale=[FILE])
