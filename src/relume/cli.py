"""The command ``relume``: it translates options into calls of the library, and results and errors into words.

Nothing heavy is imported until a command runs, so ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from relume import __version__
from relume.errors import ImageError, ModelError, NonFiniteError, OutputError, RelumeError

if TYPE_CHECKING:
    from relume.models import Opened
    from relume.result import Explanation

__all__ = ["app", "main"]

app = typer.Typer(
    name="relume",
    help="Which pixels made a vision network decide? Guided backpropagation and Guided Grad-CAM for PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - how typer calls it
    if wanted:
        out.print(f"relume {__version__}")
        raise typer.Exit


@app.callback()
def _relume(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _fail(error: RelumeError) -> NoReturn:
    """What was asked for cannot be done: exit code 2."""
    _complain(error)
    raise typer.Exit(2)


def _complain(error: RelumeError | str) -> None:
    err.print(Text.assemble(("relume: ", "bold red"), str(error)))


@app.command(
    epilog="""Examples:

  relume explain dog.jpg --model torchvision:resnet50

  relume explain photos/*.jpg --model torchvision:resnet50 --target "tabby" --output maps

  relume explain dog.jpg --model torchvision:squeezenet1_0 --weights squeezenet1_0.safetensors --layer features.12
"""
)
def explain(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Picture files.", show_default=False, readable=False)
    ],
    model: Annotated[
        str, typer.Option(help="The network: torchvision:NAME, such as torchvision:resnet50.", show_default=False)
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", readable=False, help="Its weights, .safetensors or .pth. [default: downloaded by torchvision]"
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="Classes to explain, by index or name, between commas. [default: the predicted class]",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHODS",
            help="gradient, deconvnet, guided_backprop, gradcam, guided_gradcam, between commas, or 'all'. "
            "[default: guided_backprop,gradcam,guided_gradcam]",
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Grad-CAM's target layer. [default: the last with spatial axes before pooling]"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Class names, one a line. [default: those of the weights]"),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where results go, a folder for each photo.")] = Path("out"),
) -> None:
    """Explain photos: which pixels speak for a class?

    For each photo, target and method: a picture, the raw signed map (safetensors) and the facts (JSON).
    """
    from relume.models.labels import parse_targets
    from relume.report import check_writable

    try:
        check_writable(output)
        keys = _keys(method)
        opened = _open(model, weights, labels, layer)
        targets = [None] if target is None else parse_targets(target, opened.labels)
    except RelumeError as error:
        _fail(error)
    failed, closing = 0, Text()
    found: list[Text] = []
    with _progress(photos) as steps:
        for photo, folder in zip(steps, _folders(photos, output), strict=True):
            try:
                explained = _explain_photo(photo, opened, targets, keys, layer)
                _save(explained, folder)
            except (ImageError, NonFiniteError, OutputError) as error:
                failed += 1
                _complain(error if str(photo) in str(error) else f"{str(photo)!r}: {error}")
            except KeyboardInterrupt:
                _complain(f"stopped after {len(found)} of {len(photos)} photos; their results are in {str(output)!r}")
                raise typer.Exit(130) from None
            except RelumeError as error:
                _fail(error)
            else:
                found.append(_finding(photo, folder, explained, brief=len(photos) > 4))
                closing = _reached(explained[0], chosen=layer is None)
    if found:
        out.print(*found, closing, sep="\n")
    if failed:
        if len(photos) > 1:
            _complain(f"{failed} of {len(photos)} photos could not be explained")
        raise typer.Exit(1)


def _keys(method: Sequence[str] | None) -> list[str]:
    """The methods asked for, known ones, before anything is opened for them."""
    from relume.methods import METHODS, resolve_methods

    keys = [key.strip() for part in method or ["guided_backprop,gradcam,guided_gradcam"] for key in part.split(",")]
    return [m.key for m in resolve_methods(list(METHODS) if "all" in keys else keys)]


def _open(spec: str, weights: Path | None, labels: Path | None, layer: str | None) -> Opened:
    """The network with its labels, in which ``layer`` exists."""
    from relume.layers import layer_name
    from relume.models import open_model
    from relume.models.labels import read_labels

    names = read_labels(labels) if labels else None
    opened = open_model(spec, weights)
    if layer is not None:
        layer_name(opened.model, layer)
    return dataclasses.replace(opened, labels=names or opened.labels)


def _explain_photo(
    photo: Path, opened: Opened, targets: Sequence[int | None], methods: Sequence[str], layer: str | None
) -> list[Explanation]:
    from relume.image import load_picture
    from relume.methods import explain_targets

    view = opened.preprocessing.view(load_picture(photo))
    facts = {"file": str(photo), "model": opened.name, "preprocessing": opened.preprocessing.as_dict()}
    explained = explain_targets(opened.model, opened.preprocessing.tensor(view)[None], targets, methods, layer)
    classes = explained[0].scores.shape[1]
    if opened.labels is not None and len(opened.labels) != classes:
        raise ModelError(f"{len(opened.labels)} labels were given for a network of {classes} classes; give one line for each")
    return [dataclasses.replace(e, model=opened.name, labels=opened.labels, photos=[view], source=facts) for e in explained]


def _save(explained: Sequence[Explanation], folder: Path) -> None:
    from relume.methods import METHODS
    from relume.render import figure_png
    from relume.report import write_folder
    from relume.result import sheet

    files = {f"{_slug(e)}/{name}": content for e in explained for name, content in e.files(figure=False).items()}
    files["overview.png"] = figure_png(sheet(explained))
    # pictures of an earlier run by other methods would stand beside facts that are not theirs
    stale = {f"{_slug(e)}/{method}.png" for e in explained for method in METHODS} - files.keys()
    write_folder(folder, files, stale=stale)


def _slug(e: Explanation) -> str:
    """A folder name for the class explained: ``243-bull-mastiff``."""
    assert e.target is not None, "the command explains classes"
    index = int(e.target[0])
    name = "".join(c if c.isalnum() else "-" for c in e.name(index).partition(",")[0].casefold())[:60].strip("-")
    return str(index) if name in ("", str(index)) else f"{index}-{name}"


def _folders(photos: Sequence[Path], output: Path) -> Iterator[Path]:
    """A folder for each photo, named after it; photos of the same name, in any case of letters, are numbered."""
    taken: set[str] = set()
    for photo in photos:
        stem = photo.stem.strip(".") or "photo"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        yield output / name


@contextmanager
def _progress(photos: Sequence[Path]) -> Iterator[Iterator[Path]]:
    """The photos one after the other, with a bar if there are several and somebody to see it."""
    columns = (TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=len(photos) < 2 or not err.is_terminal) as progress:
        yield iter(progress.track(photos))


def _finding(photo: Path, folder: Path, explained: Sequence[Explanation], *, brief: bool) -> Text:
    """What was found in one photo and where it is: a few lines, or one."""
    titles = "; ".join(e.title() for e in explained)
    if brief:
        return Text.assemble((str(photo), "bold"), f"  {titles}  → ", (str(folder), "green"))
    top = [part for _, name, p in explained[0].top(count=3) for part in ("\n  ", (f"{p:>6.1%}", "cyan"), f"  {name}")]
    return Text.assemble((str(photo), "bold"), *top, f"\n  explained: {titles}\n  → ", (str(folder), "green"))


def _reached(e: Explanation, *, chosen: bool) -> Text:
    """Which layer was read and which rectifiers were guided: the same for every photo of one network."""
    how = " (the last with spatial axes before pooling; --layer names another)" if chosen else ""
    lines = [f"layer {e.layer}{how}"] if e.layer else []
    lines += [f"{row.count} {row.kind} {'guided' if row.guided else f'not guided: {row.why}'}" for row in e.coverage.rows]
    return Text("\n" + "\n".join(lines))


def main() -> None:
    """The entry point of the command."""
    app()
