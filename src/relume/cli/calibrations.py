"""The options of the calibration that verdicts rest on, and the cache in which the command looks for one by itself."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relume.cli.common import err
from relume.errors import InputError, OutputError
from relume.text import printable

if TYPE_CHECKING:
    from relume.explanation.calibration import Calibration
    from relume.models.opened import Opened

__all__ = ["Belief", "cached", "directory", "remember"]


def directory() -> Path:
    """Return the user's folder of calibrations: ``$XDG_CACHE_HOME``, or ``~/.cache``, and ``relume/calibrations`` in it."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "relume" / "calibrations"


def remember(calibration: Calibration) -> Path | None:
    """Store a copy of a calibration by the fingerprint of its network; None where the cache cannot be written to."""
    try:
        return calibration.save(directory() / calibration.fingerprint)
    except OutputError:
        return None


def cached(fingerprint: str) -> Path | None:
    """Find the file of the calibration that was remembered for a network; None if there is none."""
    from relume.explanation.calibration import FILE

    path = directory() / fingerprint / FILE
    return path if path.is_file() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """The options of the calibration."""

    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="The calibration of the network that verdicts rest on. [default: the one in the cache, if any]",
        ),
    ] = None
    no_calibration: Annotated[
        bool, typer.Option("--no-calibration", help="Take no calibration, also where the cache has one of this network.")
    ] = False

    def calibrated(self, opened: Opened) -> Opened:
        """Return a network with its calibration, and say on stderr which one that is; as it is if there is none.

        Raises:
            InputError: the file is no calibration, or is of another network.
        """
        from relume.engine.weights import fingerprint_of
        from relume.explanation.calibration import Calibration

        if self.no_calibration:
            if self.calibration is not None:
                raise InputError("--calibration names a calibration, and --no-calibration takes none; give one of them")
            return opened
        fingerprint = fingerprint_of(opened.model)
        path = self.calibration or cached(fingerprint)
        try:
            calibration = Calibration.demo() if path is None else Calibration.load(path)
        except InputError as error:
            if self.calibration is not None:
                raise
            err.print(Text(f"left out: {error}", style="dim"))  # nobody asked for the file in the cache
            return opened
        if path is None and calibration.fingerprint != fingerprint:
            return opened
        calibration.check(opened.model)
        words = "of the demo network, made from drawn scenes" if path is None else printable(path)
        err.print(Text(f"calibration {words}", style="dim"))
        return dataclasses.replace(opened, calibration=calibration)
