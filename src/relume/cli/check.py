"""``relume check``: what works with a network, and why the rest does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from relume.cli import common
from relume.cli.common import out
from relume.cli.network import Network
from relume.errors import InputError
from relume.text import json_of

if TYPE_CHECKING:
    from relume.checkup import Checkup
    from relume.models.opened import Opened
    from relume.pictures.preprocessing import Preprocessing

__all__ = ["EXAMPLES", "check"]

EXAMPLES = """Examples:

  relume check torchvision:resnet50

  relume check checkpoint.pth photo.jpg --arch timm:resnet18 --json
"""


@common.expanded
def check(
    model: Annotated[  # noqa: ARG001 - network has it
        str, typer.Argument(metavar="MODEL", help="The network, written as for --model of relume explain.")
    ],
    picture: Annotated[
        Path | None,
        typer.Argument(
            metavar="PICTURE", help="A picture, volume or other file to try it on. [default: a drawn scene]", readable=False
        ),
    ] = None,
    *,
    network: Network,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Try every method on a network, and say which work.

    It also says why the others do not, and shows the network's rectifiers and which of them a rule reaches, the layer that
    Grad-CAM reads and others, preprocessing, labels, and the cost of an explanation.
    """
    from relume.checkup import check as examine
    from relume.demo import draw_scene
    from relume.engine.diagnosis import other_axes

    opened = network.open(example=picture)
    photo, image = opened.input_of(draw_scene(0).picture if picture is None else common.read_photo(picture))
    preprocessing = opened.preprocessing_of(photo)
    try:
        checkup = examine(opened.model, image[None], network.layer, activation=opened.activation, output=opened.output)
    except InputError as raised:
        error = other_axes(opened.model, image[None]) or raised
        if picture is not None:
            raise error from raised
        given = f"it was tried on a drawn scene, {tuple(image.shape)}; name a file of yours: relume check MODEL FILE"
        raise InputError(f"{error}; {given}") from raised
    if as_json:
        labelled = None if opened.labels is None else list(opened.labels)
        typer.echo(json_of({**opened.provenance, "labels": labelled, **checkup.as_dict()}), nl=False)
    else:
        _show(
            opened, preprocessing, checkup, "--activation" if network.activation != "auto" else "what is known of the network"
        )
    raise typer.Exit(0 if checkup.works else 1)


def _show(opened: Opened, preprocessing: Preprocessing, checkup: Checkup, known_by: str) -> None:
    """Print the report."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for title, lines in _lines(opened, preprocessing, checkup, known_by).items():
        for i, line in enumerate(lines):
            table.add_row("" if i else title, Text(line) if isinstance(line, str) else line)  # names are no markup
    out.print(table)


def _lines(opened: Opened, preprocessing: Preprocessing, checkup: Checkup, known_by: str) -> dict[str, list[Text | str]]:
    """Write the lines of the report, by their title."""
    mode = "; in training mode, explained as in evaluation mode" if checkup.training else ""
    size = f"{checkup.parameters:,} parameters, {checkup.dtype} on {checkup.device}"
    chosen = f" ({checkup.layer_choice})" if checkup.layer_choice else ""
    others = [f"others: {', '.join(checkup.candidates[:6])}"] if checkup.candidates else []
    rows = checkup.coverage.rows if checkup.coverage else ()
    prepared = [f"{key} {value}" for key, value in preprocessing.as_dict().items() if value not in (None, False)]
    several = any("--scores" in words for words in checkup.troubles.values())
    no_scores = "not known until --scores names the scores" if several else ""
    passes, memory = f"1 forward and {checkup.backward_passes} backward passes", f"{checkup.kept_bytes / 2**20:.1f} MiB"
    return {
        "network": [f"{opened.name}: {checkup.form}, {size}{mode}"],
        "preprocessing": [", ".join(prepared)],
        "returns": [checkup.outputs],
        "targets": [", ".join(checkup.targets) or no_scores or "a callable: no other target fits"],
        "activation": [_activation(opened, checkup, known_by, no_scores)],
        "labels": ["none" if opened.labels is None else f"{len(opened.labels)}: {', '.join(opened.labels[:3])}, …"],
        "rectifiers": list(map(str, rows)),
        "layer": [f"{checkup.layer or 'none'}{chosen}", *others],
        "cost": [f"{passes}; {memory} kept between them"] if checkup.works else [],
        "prepared": _prepared(checkup),
        "methods": _methods(checkup),
    }


def _methods(checkup: Checkup) -> list[Text | str]:
    """List the methods; those that do not work for the same reason share a line."""
    by: dict[str, list[str]] = {}
    for key in common.method_keys(["all"], ""):
        by.setdefault(checkup.troubles.get(key) or key, []).append(key)
    return [
        Text.assemble(("✗ ", "red"), f"{', '.join(keys)}: {words}")
        if keys[0] in checkup.troubles
        else Text.assemble(("✓ ", "green"), words)
        for words, keys in by.items()
    ]


def _activation(opened: Opened, checkup: Checkup, known_by: str, no_scores: str) -> str:
    """Say what makes probabilities of the scores, and how that is known."""
    if checkup.activation is None:
        return no_scores or "not known: no class scores are seen in what it returns"
    if checkup.are_probabilities:
        return "none: the network ends in a softmax or sigmoid, and its scores are probabilities"
    if checkup.are_probabilities is None:
        return "none: nothing tells what the scores are; --activation softmax or sigmoid does"
    return f"{checkup.activation}, by {'the log-softmax at its end' if opened.activation == 'auto' else known_by}"


def _prepared(checkup: Checkup) -> list[Text | str]:
    """Say what preparing the network does, and why some BatchNorms stay, each reason once."""
    if checkup.preparation is None:
        return [f"it cannot be: {checkup.unprepared}"]
    reasons = Counter(checkup.preparation.kept.values())
    return [str(checkup.preparation), *(f"{count} not folded: {reason}" for reason, count in reasons.items())]
