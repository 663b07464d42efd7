"""``relume check``: the doctor."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from relume.cli import common
from relume.cli.common import out
from relume.cli.network import Network

if TYPE_CHECKING:
    from relume.checkup import Checkup
    from relume.models.opened import Opened

__all__ = ["EXAMPLES", "check"]

EXAMPLES = """Examples:

  relume check torchvision:resnet50

  relume check checkpoint.pth photo.jpg --arch timm:resnet18 --json
"""


@common.expanded
def check(
    model: Annotated[  # noqa: ARG001 - network has it
        str, typer.Argument(metavar="MODEL", help="The network, as for --model of relume explain.")
    ],
    picture: Annotated[
        Path | None,
        typer.Argument(metavar="PICTURE", help="What to try it on; a drawn scene without one.", readable=False),
    ] = None,
    *,
    network: Network,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Try every method on a network and say what works, what does not and why.

    Which rectifiers ran and which a rule reaches, the layer that Grad-CAM would read and the others, preprocessing, labels, the
    form of the network, and the cost of an explanation.
    """
    from relume.checkup import check as examine
    from relume.demo import draw_scene

    opened = network.open()
    seen = draw_scene(0).picture if picture is None else common.read_photo(picture).picture
    image = opened.image(opened.preprocessing.view(seen))[None]
    found = examine(opened.model, image, network.layer, activation=opened.activation, output=opened.output)
    if as_json:
        labelled = None if opened.labels is None else list(opened.labels)
        typer.echo(json.dumps({**opened.provenance, "labels": labelled, **found.as_dict()}, indent=2, ensure_ascii=False))
    else:
        _show(opened, found, "--activation" if network.activation != "auto" else "what is known of the network")
    raise typer.Exit(0 if found.works else 1)


def _show(opened: Opened, found: Checkup, said_by: str) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for title, lines in _lines(opened, found, said_by).items():
        for i, line in enumerate(lines):
            table.add_row("" if i else title, Text(line) if isinstance(line, str) else line)  # names are no markup
    out.print(table)


def _lines(opened: Opened, found: Checkup, said_by: str) -> dict[str, list[Text | str]]:
    mode = "; in training mode, explained as in evaluation mode" if found.training else ""
    size = f"{found.parameters:,} parameters, {found.dtype} on {found.device}"
    chosen = f" ({found.layer_choice})" if found.layer_choice else ""
    others = [f"others: {', '.join(found.candidates[:6])}"] if found.candidates else []
    rows = found.coverage.rows if found.coverage else ()
    return {
        "network": [f"{opened.name}: {found.form}, {size}{mode}"],
        "preprocessing": [", ".join(f"{key} {value}" for key, value in opened.preprocessing.as_dict().items())],
        "returns": [found.outputs],
        "activation": [_activation(opened, found, said_by)],
        "labels": ["none" if opened.labels is None else f"{len(opened.labels)}: {', '.join(opened.labels[:3])}, …"],
        "rectifiers": [f"{r.count} {r.kind} {'guided' if r.guided else f'not guided: {r.why}'}" for r in rows],
        "layer": [f"{found.layer or 'none'}{chosen}", *others],
        "cost": [f"1 forward and {found.backward_passes} backward passes; {found.kept_bytes / 2**20:.1f} MiB kept between them"]
        if found.works
        else [],
        "prepared": _prepared(found),
        "methods": _methods(found),
    }


def _methods(found: Checkup) -> list[Text | str]:
    """Which methods work, and of those that do not all with the same trouble in one line."""
    by: dict[str, list[str]] = {}
    for key in common.method_keys(["all"], ""):
        by.setdefault(found.troubles.get(key) or key, []).append(key)
    return [
        Text.assemble(("✗ ", "red"), f"{', '.join(keys)}: {words}")
        if keys[0] in found.troubles
        else Text.assemble(("✓ ", "green"), words)
        for words, keys in by.items()
    ]


def _activation(opened: Opened, found: Checkup, said_by: str) -> str:
    """Say what makes probabilities of the scores, and where that is known from."""
    if found.activation is None:
        several = any("--scores" in words for words in found.troubles.values())
        return (
            "not known until --scores names the scores" if several else "not known: no class scores are seen in what it returns"
        )
    if found.are_probabilities:
        return "none: the network ends in a softmax or sigmoid, and its scores are probabilities"
    if found.are_probabilities is None:
        return "none: nothing tells what the scores are; --activation softmax or sigmoid does"
    return f"{found.activation}, by {'the log-softmax at its end' if opened.activation == 'auto' else said_by}"


def _prepared(found: Checkup) -> list[Text | str]:
    """What preparing the network does, and which BatchNorms stay, each reason once."""
    if found.preparation is None:
        return [f"it cannot be: {found.unprepared}"]
    reasons = Counter(found.preparation.kept.values())
    return [str(found.preparation), *(f"{count} not folded: {reason}" for reason, count in reasons.items())]
