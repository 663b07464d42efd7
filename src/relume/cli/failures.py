"""Errors of a command as sentences, whether of the library, of the user's network or of relume itself; and interruptions."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import signal
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from relume.cli.common import complain, running
from relume.errors import RAISED_BY_FACTORY, RAISED_BY_NETWORK, ModelError, RelumeError

__all__ = ["FaultError", "MemoryLimitError", "NetworkError", "in_words", "reported", "uninterrupted", "write_results"]

#: The exit code for a fault of the program itself, by the convention of sysexits.h.
SOFTWARE = 70

_PACKAGE = str(Path(__file__).parents[1])
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})
_SENTENCES = (AssertionError, RuntimeError, TypeError, ValueError)  # whose messages say by themselves what was wrong

#: Advice of errors for Python, and the same advice for a command.
_ADVICE = (
    (
        "give a callable that takes the outputs and returns one score per sample",
        "name its scores by --scores if they are in it, or explain units of it by relume explain --neuron",
    ),
    ("; name one of these, or give a callable that takes what it returns", "; name one of these by --scores"),
    ("and no output ", "and nothing called "),
    ("; leave output away", "; leave --scores away"),
    ("give a folder of photos with masks", "give a folder of photos with masks by --data"),
)


class NetworkError(ModelError):
    """The network's own code raised an error."""


class MemoryLimitError(RelumeError):
    """There was not enough memory, of the machine or of a device."""


class FaultError(RelumeError):
    """An error that relume did not expect."""


def in_words(error: Exception | SystemExit) -> RelumeError:
    """Return an error whose message is a sentence for the user of a command, and whose cause is ``error``."""
    if isinstance(error, RelumeError):
        sentence = functools.reduce(lambda text, advice: text.replace(*advice), _ADVICE, str(error))
        if sentence == str(error):
            return error
        failure = type(error)(sentence)
    else:
        failure = _failure(error)
    failure.__cause__ = error
    return failure


def _failure(error: Exception | SystemExit) -> RelumeError:
    """Return the error for one that relume did not raise: of memory, of the user's code or of relume's own."""
    from relume.engine.out_of_memory import out_of_memory

    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    line = lines[-1] if "TorchScript" in lines[0] else lines[0]  # TorchScript begins with a traceback of its own
    named = f"{type(error).__name__}: {line}".rstrip(": ")
    if out_of_memory(error):
        return MemoryLimitError(f"memory ran out ({named}); a smaller --crop needs less, and so do fewer methods or targets")
    users, place = _place(error)
    note = next(
        (note for note in getattr(error, "__notes__", ()) if note.startswith((RAISED_BY_NETWORK, RAISED_BY_FACTORY))), None
    )
    if note is None and not users:
        return FaultError(f"{named}{place}: this is a fault in relume; run again with --traceback, and report what it says")
    whole = bool(line) and type(error) in _SENTENCES
    hint = _hint(line) if whole and note is not None and note.startswith(RAISED_BY_NETWORK) else _HINT
    what = f"{line if whole else named}{place if users else ''}{'' if note is None else f' {note}'}"
    return NetworkError(f"the network failed: {what}; {hint}")


_HINT = "--traceback shows the way there"


def _hint(line: str) -> str:
    """Choose the next step by what a network says that failed on its input."""
    channels = re.search(r"expected input\[[\d, ]+\] to have (\d+) channels?, but got (\d+) channels? instead", line)
    if channels:
        grey = "one value of --mean and one of --std make photos grey, and " * (channels[1] == "1" and channels[2] == "3")
        return f"{grey}--bands names the channels that it takes"
    shaped = any(word in line.casefold() for word in ("size", "shape", "dimension", "channels", "height", "width"))
    return "--resize and --crop set that shape" if shaped else _HINT


def _place(error: Exception | SystemExit) -> tuple[bool, str]:
    """Find the innermost code that is no library's; return True if it is the user's, and where it is, in words."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return True, f" at {_relative(error.filename)}:{error.lineno}"
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            return False, f" at {_relative(file)}:{line}"
        if not file.startswith(_LIBRARIES) and Path(file).is_file():
            return True, f" at {_relative(file)}:{line}"
    return False, ""


def _relative(file: str) -> str:
    """Return a path below the current directory without that directory."""
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command print every error as one sentence, with Python's traceback if ``--traceback`` is given."""
    signature, kind = inspect.signature(command, eval_str=True), inspect.Parameter.KEYWORD_ONLY
    option = Annotated[bool, typer.Option("--traceback", help="Print Python's traceback and warnings too, to report an error.")]

    @functools.wraps(command)
    def run(*, traceback: bool, **given: Any) -> None:
        running.traceback, running.stopped = traceback, "stopped; nothing was written"
        try:
            with _quiet(shown=traceback):
                command(**given)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            complain(running.stopped)
            raise typer.Exit(130) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - each is reported
            failure = in_words(error)
            complain(failure)
            raise typer.Exit(SOFTWARE if isinstance(failure, FaultError) else 2) from None

    parameters = [*signature.parameters.values(), inspect.Parameter("traceback", kind, default=False, annotation=option)]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, "traceback": option}
    return run


@contextmanager
def _quiet(*, shown: bool) -> Iterator[None]:
    """Hide the warnings and logs of libraries, unless they are to be ``shown``."""
    if shown:
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def uninterrupted(notice: str = "") -> Iterator[None]:
    """Hold an interruption back until the body is done, with a notice on stderr; a second one is not held back."""
    before, interrupted = signal.getsignal(signal.SIGINT), list[int]()
    # in the background interruptions are ignored, and threads have no say in it
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def hold(number: int, _: FrameType | None) -> None:
        interrupted.append(number)
        signal.signal(signal.SIGINT, before)
        if notice:
            complain(notice)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupted:
            raise KeyboardInterrupt


def write_results(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write results as :func:`relume.pages.folder.write_folder` does, uninterrupted."""
    from relume.pages.folder import write_folder

    with uninterrupted():
        write_folder(folder, files)
        running.stopped = f"stopped; the results are in {str(folder)!r}"
