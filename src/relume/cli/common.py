"""What all commands share: how options are grouped, and how things are said."""

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
    from relume.pictures.photo import Photo

__all__ = [
    "Targets",
    "complain",
    "err",
    "expanded",
    "method_keys",
    "method_option",
    "out",
    "read_photo",
    "running",
    "tracked",
]

T = TypeVar("T")

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """A command in which a parameter that is a dataclass of options stands for these options.

    An option of the same name that the command has itself, such as an argument, counts for the dataclass too.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {name: p.annotation for name, p in own.items() if dataclasses.is_dataclass(p.annotation)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        options = _options(groups[name]) if name in groups else [parameter]
        parameters += [option for option in options if name not in groups or option.name not in own]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {name: group(**{f.name: given[f.name] for f in dataclasses.fields(group)}) for name, group in groups.items()}
        command(**made, **{name: value for name, value in given.items() if name in own})

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    hints, kind = get_type_hints(group, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name]) for f in dataclasses.fields(group)]


#: The classes that a command is about.
Targets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASSES", help="Classes, by index or name, between commas. [default: the predicted class]"),
]


def method_option(default: str) -> Any:
    """The option that names methods, saying which a command takes without it."""
    keys = "gradient, deconvnet, guided_backprop, gradcam, guided_gradcam, between commas, or 'all'."
    return typer.Option("--method", metavar="METHODS", help=f"{keys} [default: {default}]")


@dataclasses.dataclass(slots=True)
class Running:
    """The state of the command that runs: whether tracebacks are shown, and what to say when it is interrupted."""

    traceback: bool = False
    stopped: str = ""


running = Running()


def complain(error: RelumeError | str, about: Path | None = None) -> None:
    """Say what was wrong, on stderr; and about which file, unless the error says so itself."""
    words = str(error) if about is None or repr(str(about)) in str(error) else f"{str(about)!r}: {error}"
    err.print(Text.assemble(("relume: ", "bold red"), words))
    if running.traceback and isinstance(error, RelumeError):
        # one that was never raised only tells of its cause
        raised = error.__cause__ if error.__traceback__ is None else error
        err.print(Text("".join(traceback.format_exception(raised)), style="dim"))


def read_photo(path: Path) -> Photo:
    """Read a photo, and say on stderr what a reader must know of its file: that it holds more pictures, for one."""
    from relume.pictures.photo import load_photo

    photo = load_photo(path)
    for note in photo.notes:
        err.print(Text(f"relume: {str(path)!r}: {note}", style="dim"))
    return photo


@contextmanager
def tracked(what: str, items: Iterable[T], total: int) -> Iterator[Iterator[T]]:
    """The items one after the other, with a bar if there are several and somebody to see it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=total < 2 or not err.is_terminal) as progress:
        yield iter(progress.track(items, total))


def method_keys(method: Sequence[str] | None, default: str) -> list[str]:
    """The methods asked for, known ones, before anything is opened for them."""
    from relume.methods.base import METHODS, resolve_method

    keys = [key.strip() for part in method or [default] for key in part.split(",")]
    return list(dict.fromkeys(resolve_method(key).key for key in (METHODS if "all" in keys else keys)))
