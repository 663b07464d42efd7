"""``relume explain``: photos to maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relume.cli import common
from relume.cli.common import out, running
from relume.cli.network import Network
from relume.cli.options import METHODS, Asked, Drawing, explain_photo, nothing_shown, reached, write_explained
from relume.cli.photos import Failures, Photos, each_photo, pictures_in
from relume.errors import TargetError
from relume.text import printable, significant

if TYPE_CHECKING:
    from relume.explanation.result import Explanation
    from relume.models.opened import Opened
    from relume.pictures.photo import Photo
    from relume.targets import TargetLike

__all__ = ["EXAMPLES", "explain"]

EXAMPLES = """Examples:

  relume explain dog.jpg --model torchvision:resnet50

  relume explain photos --model torchvision:resnet50 --target "tabby" --output maps

  relume explain dog.jpg --model torchvision:squeezenet1_0 --weights squeezenet1_0.safetensors --layer features.12
"""

UNITS = "gradient,guided_backprop"  # Grad-CAM's layer may well lie above a unit, where nothing of it is


@common.expanded
def explain(
    photos: Photos,
    *,
    network: Network,
    target: common.Targets = None,
    versus: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Why the target and not this class, by index or name?")
    ] = None,
    neuron: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER:CHANNEL[:Y,X]",
            help="What a unit looks for: at a place of its channel, or where it is highest; by gradient and guided_backprop "
            "unless --method says otherwise. May be repeated.",
        ),
    ] = None,
    asked: Asked,
    drawing: Drawing,
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", min=16, help="Longest side of the pictures written. [default: the photo's own]"),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where results go, a folder for each photo.")] = Path("out"),
) -> None:
    """Explain photos: which pixels speak for a class?

    For each photo, target and method: a picture, the raw signed map (safetensors) and the facts (JSON).
    """
    from relume.explanation.result import compared
    from relume.explanation.saving import ResultFolders, address
    from relume.pages.folder import check_writable

    check_writable(output)
    folders = ResultFolders(output)
    drawing.check()
    methods = asked.methods(UNITS if neuron else METHODS)
    photos = pictures_in(photos, output)
    opened = network.open()
    targets = _targets(target, versus, neuron, opened)
    # without a target, each photo's own prediction is contrasted, with itself where it is the other class
    failures = Failures(lambda photo: ask(photo, Path()), (TargetError,) if versus and not target else ())
    found, without, closing, strongest = list[Text](), list[bool](), Text(), dict[str, float]()

    def ask(photo: Photo, path: Path) -> list[Explanation]:
        source = {"file": str(path), "path": address(path), **asked.facts}
        try:
            return explain_photo(photo, opened, targets, methods, network.layer, source)
        except TargetError as error:
            raise _with_names(error, targets, opened.labels) from error

    def keep(explained: list[Explanation], path: Path) -> None:
        nonlocal closing
        explained = drawing.scaled(explained)
        folder = folders.of(path)
        so_far = compared(explained, strongest)  # on this photo's sheet are its own maps alone
        finding = _finding(path, folder, so_far, brief=len(photos) > 4)
        strongest.update(so_far[0].strongest)

        def written() -> None:
            found.append(finding)
            running.stopped = f"stopped after {len(found)} of {len(photos)} photos; their results are in {str(output)!r}"

        write_explained(explained, folder, kind=drawing.kind, size=size, then=written)
        without.extend(each for e in explained for each in e.without_gradcam())
        closing = reached(explained[0], without=without)

    running.stopped = f"stopped after none of {len(photos)} photos; nothing was written"
    try:
        with common.tracked("explaining", photos, len(photos)) as steps:
            each_photo(steps, failures, ask, keep)
    finally:
        if found:
            out.print(*found, closing, sep="\n")
    raise typer.Exit(failures.end(len(photos), "photos could not be explained"))


def _targets(
    target: Sequence[str] | None, versus: str | None, neurons: Sequence[str] | None, opened: Opened
) -> list[TargetLike]:
    """What is to be explained of each photo: classes, each against another if there is one; and units."""
    from relume.models.labels import parse_targets
    from relume.targets import Contrast

    units: list[TargetLike] = [_neuron(text) for text in neurons or ()]
    classes: list[TargetLike] = [None] if not target else [*parse_targets(",".join(target), opened.labels)]
    if versus is None:
        return units if units and not target else classes + units
    others = parse_targets(versus, opened.labels)
    if len(others) != 1:
        raise TargetError(f"--versus takes one class; got {versus!r}")
    return [Contrast(index, others[0]) for index in classes] + units


def _with_names(error: TargetError, targets: Sequence[TargetLike], labels: Sequence[str] | None) -> TargetError:
    """Give the class its name where it is contrasted with itself."""
    from relume.targets import Contrast

    said = str(error)
    for index in {target.b for target in targets if isinstance(target, Contrast) and isinstance(target.b, int)}:
        if labels is not None and 0 <= index < len(labels):
            said = said.replace(f"class {index} is contrasted", f"class {index} ({labels[index]}) is contrasted")
    return type(error)(said)


def _neuron(text: str) -> TargetLike:
    from relume.targets import Neuron

    found = re.fullmatch(r"(?P<layer>[^:]+):(?P<channel>\d+)(:(?P<place>\d+(,\d+)*))?", text.strip())
    if found is None:
        raise TargetError(f"--neuron is LAYER:CHANNEL or LAYER:CHANNEL:Y,X, such as layer4:7:3,5; got {text!r}")
    place = found["place"] and tuple(int(part) for part in found["place"].split(","))
    return Neuron(found["layer"], int(found["channel"]), place or None)


def _finding(photo: Path, folder: Path, explained: Sequence[Explanation], *, brief: bool) -> Text:
    """What was found in one photo and where it is: a few lines, or one."""
    titles, said = "; ".join(e.title() for e in explained), list[str]()
    if brief:
        return Text.assemble(
            (printable(photo), "bold"), f"  {titles}{nothing_shown(explained)}  → ", (printable(folder), "green")
        )
    probable = explained[0].quantity == "probability"
    shown = [(f"{v:>6.1%}" if probable else f"score {significant(v)}", name) for _, name, v in explained[0].top(count=3)]
    top = [part for value, name in shown for part in ("\n  ", (value, "cyan"), f"  {name}")]
    for e in explained:
        whose = f", {e.title()}" if len(explained) > 1 else ""
        said += [f"\n  {e.infos[m].title}{whose}: {words}" for m in e.maps if (words := e.doubt(m))]
    return Text.assemble(
        (printable(photo), "bold"), *top, f"\n  explained: {titles}", *said, "\n  → ", (printable(folder), "green")
    )
