"""Tools of all commands: options in groups, output, progress and errors."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from relume.errors import RelumeError

if TYPE_CHECKING:
    from relume.models.opened import Opened
    from relume.pictures.photo import Photo
    from relume.pictures.recording import Recording
    from relume.targets import TargetLike

__all__ = [
    "Questions",
    "Targets",
    "complain",
    "err",
    "expanded",
    "method_keys",
    "method_option",
    "out",
    "read_photo",
    "running",
    "say_notes",
    "targets_of",
    "tracked",
]

T = TypeVar("T")

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass of options by these options.

    An option of the same name that the command has itself, such as an argument, is used for the dataclass too.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {name: p.annotation for name, p in own.items() if dataclasses.is_dataclass(p.annotation)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        options = _options(groups[name]) if name in groups else [parameter]
        parameters += [option for option in options if name not in groups or option.name not in own]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        filled = {name: group(**{f.name: given[f.name] for f in dataclasses.fields(group)}) for name, group in groups.items()}
        command(**filled, **{name: value for name, value in given.items() if name in own})

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    """Return the options of a dataclass as parameters."""
    hints, kind = get_type_hints(group, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name]) for f in dataclasses.fields(group)]


#: The classes that a command explains.
Targets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASSES", help="Classes, by index or name, between commas. [default: the predicted class]"),
]


#: What else a command explains.
Questions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--ask",
        metavar="KIND:ARGS",
        help="Something else than a class: probability:CLASS, binary:no, regression:up, contrast:CLASS:nearest3, "
        "embedding:PHOTO, segmentation:CLASS, detection:CLASS, channel:LAYER:CHANNEL or neuron:LAYER:CHANNEL. May be repeated.",
    ),
]


def targets_of(target: Sequence[str] | None, ask: Sequence[str] | None, opened: Opened) -> list[TargetLike]:
    """Return the classes that ``--target`` names and what ``--ask`` asks; the predicted class if neither is given."""
    from relume.models.labels import parse_targets
    from relume.models.questions import parse_question

    classes: list[TargetLike] = [*parse_targets(",".join(target), opened.labels)] if target else []
    return [*classes, *(parse_question(text, opened) for text in ask or ())] or [None]


def method_option(default: str) -> Any:
    """Return the option that names methods; its help says which the command takes without it."""
    keys = "Methods, between commas, such as gradient or guided_layercam; or 'all'. An unknown one is answered with the list."
    return typer.Option("--method", metavar="METHODS", help=f"{keys} [default: {default}]")


@dataclasses.dataclass(slots=True)
class Running:
    """The state of the command that runs: if tracebacks are shown, and the sentence for an interruption."""

    traceback: bool = False
    stopped: str = ""


running = Running()


def complain(error: RelumeError | str, about: Path | None = None) -> None:
    """Print an error on stderr, after the name of the file that it is about, unless the error names it."""
    words = str(error) if about is None or repr(str(about)) in str(error) else f"{str(about)!r}: {error}"
    err.print(Text.assemble(("relume: ", "bold red"), words))
    if running.traceback and isinstance(error, RelumeError):
        # an error that was never raised has a traceback only in its cause
        raised = error.__cause__ if error.__traceback__ is None else error
        err.print(Text("".join(traceback.format_exception(raised)), style="dim"))


def read_photo(path: Path) -> Photo | Recording:
    """Read a photo, and print on stderr what a reader must know of its file."""
    from relume.models.photos import read_photo

    photo = read_photo(path)
    say_notes(path, photo.notes)
    return photo


def say_notes(path: Path, notes: Iterable[str]) -> None:
    """Print the notes of a photo on stderr: that its file holds more pictures, for one."""
    for note in notes:
        err.print(Text(f"relume: {str(path)!r}: {note}", style="dim"))


@contextmanager
def tracked(title: str, items: Iterable[T], total: int) -> Iterator[Iterator[T]]:
    """Iterate over the items, with a progress bar on a terminal if there are several."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=total < 2 or not err.is_terminal) as progress:
        yield iter(progress.track(items, total))


def method_keys(method: Sequence[str] | None, default: str) -> list[str]:
    """Return the keys of the methods that ``--method`` names, or of ``default``, and refuse unknown ones."""
    from relume.methods.base import METHODS, resolve_method

    keys = [key.strip() for part in method or [default] for key in part.split(",")]
    return list(dict.fromkeys(resolve_method(key).key for key in (METHODS if "all" in keys else keys)))
