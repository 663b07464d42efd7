"""What the commands share: options, how a network is opened and a picture explained, and how things are said."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from relume.errors import InputError, ModelError, RelumeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from relume.models import Opened
    from relume.result import Explanation
    from relume.targets import TargetLike

__all__ = [
    "Arch",
    "Crop",
    "Interpolation",
    "Labels",
    "Layer",
    "Mean",
    "ModelArgs",
    "Resize",
    "Spec",
    "Std",
    "Weights",
    "check_labels",
    "complain",
    "err",
    "explain_picture",
    "fail",
    "method_keys",
    "method_option",
    "network_errors",
    "open_network",
    "out",
    "provenance",
    "reached",
    "tracked",
    "write_explained",
]

T = TypeVar("T")

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

Spec: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SPEC",
        help="The network: demo, torchvision:NAME, timm:NAME, hf:NAME-OR-FOLDER, package.module:factory, or a file. "
        "[default: demo]",
    ),
]
Weights: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", readable=False, help="Its weights, .safetensors or .pth. [default: the network's own]"),
]
Arch: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Of a model that is a checkpoint, the network it belongs to: torchvision:resnet50."),
]
ModelArgs: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="""Arguments for what builds the network: '{"num_classes": 10}'."""),
]
Resize: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="PIXELS", help="Shorter side of the resized picture, or HEIGHT,WIDTH. [default: the network's own]"),
]
Crop: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS", help="Side of the square cut from the middle, or HEIGHT,WIDTH. [default: the network's own]"
    ),
]
Interpolation: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="nearest, bilinear, bicubic, lanczos, box or hamming. [default: the network's own]"),
]
Mean: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="R,G,B", help="What is subtracted from pixels, 0 to 1. [default: the network's own]"),
]
Std: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="R,G,B", help="What they are divided by then. [default: the network's own]"),
]
Layer: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Grad-CAM's target layer. [default: the last with spatial axes before pooling]"),
]
Labels: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", readable=False, help="Class names, one a line. [default: the network's own]"),
]


def method_option(default: str) -> Any:
    """The option that names methods, saying which a command takes without it."""
    keys = "gradient, deconvnet, guided_backprop, gradcam, guided_gradcam, between commas, or 'all'."
    return typer.Option("--method", metavar="METHODS", help=f"{keys} [default: {default}]")


def fail(error: RelumeError) -> NoReturn:
    """What was asked for cannot be done: exit code 2."""
    complain(error)
    raise typer.Exit(2)


def complain(error: RelumeError | str) -> None:
    """Say what was wrong, on stderr."""
    err.print(Text.assemble(("relume: ", "bold red"), str(error)))


@contextmanager
def tracked(what: str, items: Iterable[T], total: int) -> Iterator[Iterator[T]]:
    """The items one after the other, with a bar if there are several and somebody to see it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=total < 2 or not err.is_terminal) as progress:
        yield iter(progress.track(items, total))


def method_keys(method: Sequence[str] | None, default: str) -> list[str]:
    """The methods asked for, known ones, before anything is opened for them."""
    from relume.methods import METHODS, resolve_methods

    keys = [key.strip() for part in method or [default] for key in part.split(",")]
    return [m.key for m in resolve_methods(list(METHODS) if "all" in keys else keys)]


def open_network(
    spec: str | None,
    weights: Path | None,
    labels: Path | None,
    layer: str | None,
    *,
    arch: str | None = None,
    model_args: str | None = None,
    preprocessing: Mapping[str, str | None] | None = None,
) -> Opened:
    """The network with its labels, in which ``layer`` exists; the demo network if no ``spec`` is given.

    ``preprocessing`` holds what the command line says in place of the network's own, None where it says nothing. What had to
    be understood on the way is said on stderr.
    """
    from relume.layers import layer_name
    from relume.models import open_model
    from relume.models.labels import read_labels

    names = read_labels(labels) if labels else None
    changes = {key: _value(key, text) for key, text in (preprocessing or {}).items() if text is not None}
    opened = open_model(spec or "demo", weights, arch=arch, model_args=_arguments(model_args))
    opened = dataclasses.replace(
        opened,
        labels=names or opened.labels,
        preprocessing=dataclasses.replace(opened.preprocessing, **changes),
    )
    if layer is not None:
        layer_name(opened.model, layer)
    for note in opened.notes:
        err.print(Text(note, style="dim"))
    return opened


def _arguments(text: str | None) -> dict[str, Any]:
    """The arguments in ``--model-args``."""
    try:
        args = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ModelError(f"--model-args is no JSON ({error}); write it as '{{\"num_classes\": 10}}'") from None
    if not isinstance(args, dict):
        raise ModelError(f"--model-args is a JSON object of names and values; got {text}")
    return args


def _value(key: str, text: str) -> Any:
    """What an option of preprocessing says: a name, one number or several."""
    if key == "interpolation":
        return text.strip()
    kind = int if key in ("resize", "crop") else float
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{key} takes numbers between commas; got {text!r}") from None
    if kind is float:
        return numbers
    if len(numbers) > 2:
        raise InputError(f"--{key} takes one number of pixels, or height and width; got {text!r}")
    return numbers if len(numbers) == 2 else numbers[0]


def provenance(opened: Opened) -> dict[str, Any]:
    """What a result records of the network it came from, as plain data."""
    return {
        "model": opened.name,
        "weights": None if opened.weights is None else str(opened.weights),
        "preprocessing": opened.preprocessing.as_dict(),
        "notes": list(opened.notes),
    }


@contextmanager
def network_errors() -> Iterator[None]:
    """What a network itself raises, on pictures of a size that it does not take for instance, is said as any error.

    Raises:
        ModelError: the network failed.
    """
    try:
        yield
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        where = next((note for note in getattr(error, "__notes__", ()) if note.startswith("(raised by the network")), None)
        if where is None or isinstance(error, RelumeError):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # TorchScript tells its own story first
        what = lines[-1] if "TorchScript" in lines[0] else lines[0]
        raise ModelError(f"the network failed: {what} {where}; --resize and --crop set that shape") from error


def explain_picture(
    picture: Image,
    opened: Opened,
    targets: Sequence[TargetLike],
    methods: Sequence[str],
    layer: str | None,
    source: Mapping[str, Any],
    rectifiers: Any = "all",
) -> list[Explanation]:
    """A picture's explanations for each target, knowing where they come from."""
    from relume.explaining import explain_targets

    view = opened.preprocessing.view(picture)
    facts = {**source, **provenance(opened), "rectifiers": rectifiers}
    image = opened.preprocessing.tensor(view)[None]
    with network_errors():
        explained = explain_targets(opened.model, image, targets, methods, layer, rectifiers=rectifiers)
    _check_labels(opened, explained[0])
    return [
        dataclasses.replace(
            e, model=opened.name, labels=opened.labels, multilabel=opened.multilabel, photos=[view], source=facts
        )
        for e in explained
    ]


def _check_labels(opened: Opened, explained: Explanation) -> None:
    if explained.scores.ndim != 2:  # a unit of a network without classes
        return
    classes = explained.scores.shape[1]
    if opened.labels is not None and len(opened.labels) != classes:
        raise ModelError(f"{len(opened.labels)} labels were given for a network of {classes} classes; give one line for each")


def check_labels(opened: Opened) -> None:
    """Whether there is a label for each class, before a long run begins: explains one empty picture.

    Raises:
        ModelError: there are more or fewer.
    """
    from PIL import Image

    explain_picture(Image.new("RGB", (256, 256)), opened, [None], ["gradient"], None, {})


def write_explained(explained: Sequence[Explanation], folder: Path, extra: Mapping[str, bytes] | None = None) -> None:
    """Write a picture's explanations, a folder for each target, with their overview and ``extra`` files, all or nothing."""
    from relume.methods import METHODS
    from relume.render import figure_png
    from relume.report import write_folder
    from relume.result import sheet

    files = {f"{_slug(e)}/{name}": content for e in explained for name, content in e.files(figure=False).items()}
    files |= {"overview.png": figure_png(sheet(explained)), **(extra or {})}
    # pictures of an earlier run by other methods would stand beside facts that are not theirs
    stale = {f"{_slug(e)}/{method}.png" for e in explained for method in METHODS} - files.keys()
    write_folder(folder, files, stale=stale)


def _slug(e: Explanation) -> str:
    """A folder name for what is explained: ``243-bull-mastiff``, ``243-bull-mastiff-not-281-tabby``, ``layer4-channel-7``."""
    if e.target is None:
        return _plain(e.unit or "score")
    slug = _class_slug(e, int(e.target[0]))
    return slug if e.versus is None else f"{slug}-not-{_class_slug(e, int(e.versus[0]))}"


def _class_slug(e: Explanation, index: int) -> str:
    name = _plain(e.name(index).partition(",")[0])
    return str(index) if name in ("", str(index)) else f"{index}-{name}"


def _plain(text: str) -> str:
    return re.sub("-+", "-", "".join(c if c.isalnum() else "-" for c in text.casefold()))[:60].strip("-")


def reached(e: Explanation, *, chosen: bool) -> Text:
    """Which layer was read and which rectifiers were guided: the same for every photo of one network."""
    how = " (the last with spatial axes before pooling; --layer names another)" if chosen else ""
    lines = [f"layer {e.layer}{how}"] if e.layer else []
    lines += [f"{row.count} {row.kind} {'guided' if row.guided else f'not guided: {row.why}'}" for row in e.coverage.rows]
    return Text("\n" + "\n".join(lines))
