"""``relume explain``: makes maps of photos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relume.cli import common
from relume.cli.calibrations import Belief
from relume.cli.common import out, running
from relume.cli.failures import uninterrupted
from relume.cli.network import Network
from relume.cli.options import METHODS, Asked, Drawing, nothing_shown, reached
from relume.cli.photos import Failures, Photos, comparisons, each_photo
from relume.cli.tiled import explain_in_tiles, tiles_of
from relume.errors import TargetError
from relume.text import printable, significant

if TYPE_CHECKING:
    from relume.explanation.comparison import Comparison
    from relume.explanation.result import Explanation
    from relume.models.opened import Opened
    from relume.targets import TargetLike

__all__ = ["EXAMPLES", "explain"]

EXAMPLES = """Examples:

  relume explain dog.jpg --model torchvision:resnet50

  relume explain photos --model torchvision:resnet50 --target "tabby" --output maps

  relume explain crowd.jpg --model package.module:detector --ask detection:17 --ask detection:17:sum

  relume explain dog.jpg --model torchvision:squeezenet1_0 --weights squeezenet1_0.safetensors --layer features.12
"""

UNITS = "gradient,guided_backprop"  # Grad-CAM's layer may well lie above a unit, where nothing of it is


@common.expanded
def explain(
    photos: Photos,
    *,
    network: Network,
    belief: Belief,
    target: common.Targets = None,
    ask: common.Questions = None,
    versus: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Explain why the target and not this class, by index or name.")
    ] = None,
    neuron: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER:CHANNEL[:Y,X]",
            help="Explain a unit: at a place of its channel, or where it is highest; by gradient and guided_backprop, unless "
            "--method names others. May be repeated.",
        ),
    ] = None,
    asked: Asked,
    drawing: Drawing,
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", min=16, help="Longest side of the pictures written. [default: the photo's own]"),
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE[,OVERLAP]",
            help="Explain pictures far larger than the network's input tile by tile, at their own resolution, and stitch the "
            "maps; neighbours overlap by OVERLAP pixels at least. [default overlap: an eighth]",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where results go, a folder for each photo.")] = Path("out"),
) -> None:
    """Explain photos: show which pixels speak for a class.

    Writes a picture for each photo, target and method, the raw signed maps (safetensors), and where they come from (JSON).
    """
    from relume.explanation.layer_trouble import without_heat
    from relume.explanation.result import compared
    from relume.explanation.saving import ResultFolders, folder_files
    from relume.models.photos import find_photos
    from relume.pages.folder import check_writable

    check_writable(output)
    folders = ResultFolders(output)
    drawing.check()
    cut = None if tiles is None else tiles_of(tiles)
    methods = asked.methods(UNITS if neuron else METHODS)
    photos = find_photos(photos, output)
    opened = belief.calibrated(network.open(example=photos[0]))
    targets = _targets(target, ask, versus, neuron, opened)
    # without a target, each photo's own prediction is contrasted, with itself where it is the other class
    failures = Failures(asked.attempt(opened, targets, methods, network.layer), (TargetError,) if versus and not target else ())
    done, without, closing, strongest = 0, list[str](), Text(), dict[str, float]()

    def keep(comparison: Comparison, path: Path) -> None:
        nonlocal done, closing
        explanations = drawing.scaled(asked.recorded(comparison))
        files = folder_files(explanations, kind=drawing.kind, size=size)
        with uninterrupted():
            folder = folders.write(path, files)
            so_far = compared(explanations, strongest)  # the photo's own sheet knows its own maps alone
            out.print(_finding(path, folder, so_far, brief=len(photos) > 4))
            done += 1
            running.stopped = f"stopped after {done} of {len(photos)} photos; their results are in {str(output)!r}"
        strongest.update(so_far[0].strongest)
        without.extend(title for e in explanations for title in without_heat(e))
        closing = reached(explanations[0], without=without)

    running.stopped = f"stopped after none of {len(photos)} photos; nothing was written"
    if cut is not None:
        explain_in_tiles(opened, photos, targets, methods, network.layer, cut, asked=asked, folders=folders, failures=failures)
        raise typer.Exit(failures.end(len(photos), "photos could not be explained"))
    results = comparisons(opened, photos, targets, methods, network.layer, asked)
    try:
        with common.tracked("explaining", results, len(photos)) as steps:
            each_photo(steps, failures, keep)
    finally:
        if done:
            out.print(closing)
    raise typer.Exit(failures.end(len(photos), "photos could not be explained"))


def _targets(
    target: Sequence[str] | None,
    ask: Sequence[str] | None,
    versus: str | None,
    neurons: Sequence[str] | None,
    opened: Opened,
) -> list[TargetLike]:
    """Return the targets for each photo: classes, each against another if one is given; what else is asked; and units."""
    from relume.models.labels import parse_targets
    from relume.targets import Contrast

    units: list[TargetLike] = [_neuron(text) for text in neurons or ()]
    if versus is None:
        return units if units and not (target or ask) else common.targets_of(target, ask, opened) + units
    if ask:
        raise TargetError("--versus contrasts classes; write the contrast as --ask contrast:CLASS:CLASSES")
    classes = common.targets_of(target, None, opened)
    others = parse_targets(versus, opened.labels)
    if len(others) != 1:
        raise TargetError(f"--versus takes one class; got {versus!r}")
    return [Contrast(index, others[0]) for index in classes] + units


def _neuron(text: str) -> TargetLike:
    """Read a unit from the text of ``--neuron``."""
    from relume.targets import Neuron

    unit = re.fullmatch(r"(?P<layer>[^:]+):(?P<channel>\d+)(:(?P<place>\d+(,\d+)*))?", text.strip())
    if unit is None:
        raise TargetError(f"--neuron is LAYER:CHANNEL or LAYER:CHANNEL:Y,X, such as layer4:7:3,5; got {text!r}")
    place = unit["place"] and tuple(int(part) for part in unit["place"].split(","))
    return Neuron(unit["layer"], int(unit["channel"]), place or None)


def _finding(photo: Path, folder: Path, explained: Sequence[Explanation], *, brief: bool) -> Text:
    """Say in a few lines, or in one, what one photo's explanations show and where they are."""
    titles, doubts = "; ".join(e.title() for e in explained), list[str]()
    if brief:
        return Text.assemble(
            (printable(photo), "bold"), f"  {titles}{nothing_shown(explained)}  → ", (printable(folder), "green")
        )
    probable = explained[0].quantity == "probability"
    shown = [(f"{v:>6.1%}" if probable else f"score {significant(v)}", name) for _, name, v in explained[0].top(count=3)]
    top = [part for value, name in shown for part in ("\n  ", (value, "cyan"), f"  {name}")]
    for e in explained:
        whose = f", {e.title()}" if len(explained) > 1 else ""
        doubts += [f"\n  {e.infos[m].title}{whose}: {words}" for m in e.maps if (words := e.doubt(m))]
    return Text.assemble(
        (printable(photo), "bold"), *top, f"\n  explained: {titles}", *doubts, "\n  → ", (printable(folder), "green")
    )
