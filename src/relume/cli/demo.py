"""``relume demo``: every method on a drawn scene, by the network in the package."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from relume.cli.common import out, running
from relume.cli.failures import uninterrupted
from relume.cli.network import DEVICE, Network
from relume.cli.options import Asked, reached
from relume.text import decimal

if TYPE_CHECKING:
    from relume.explanation.result import Explanation

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = """Examples:

  relume demo

  relume demo --seed 7 --output seven
"""

PAIR = ("cat", "dog")

#: The methods that are shown: of the class activation maps one, since on this network they hardly differ.
METHODS = ("gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam")


def demo(
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="The scene to draw: any number not below zero.")] = 0,
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the results.")] = Path("out"),
    device: Annotated[str, DEVICE] = "auto",
) -> None:
    """Draw a scene with a cat and a dog, and explain both.

    Five methods explain each. It needs nothing but this package: the scene is drawn, and the network is inside.
    """
    from relume.demo import CLASSES, draw_scene
    from relume.explanation.saving import folder_files, write_targets
    from relume.pages.folder import check_writable
    from relume.pictures.canvas import png

    check_writable(output)
    scene = draw_scene(seed, PAIR)
    opened = Network(device=device).open(photos=False)
    targets = [CLASSES.index(name) for name in PAIR]
    explained = Asked().recorded(opened.compare(scene.picture, targets, METHODS), scene=seed)
    files = folder_files(explained)
    with uninterrupted():
        write_targets(output, files | {"scene.png": png(scene.picture)})
        running.stopped = f"stopped; the results are in {str(output)!r}"
    out.print(_scores(explained[0]), reached(explained[0]), _next_steps(output), sep="\n")


def _scores(e: Explanation) -> Table:
    """List the three highest classes with their scores and probabilities: cat, dog, and one that is not there."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("probability", justify="right")
    for index, name, probability in e.top(count=3):
        table.add_row(name, decimal(float(e.scores[0, index])), f"{probability:.1%}", style="bold" if name in PAIR else "dim")
    return table


def _next_steps(output: Path) -> Text:
    scene = output / "scene.png"
    return Text.assemble(
        ("\n→ ", "green"),
        (str(output / "overview.png"), "bold green"),
        "  both targets by every method: look at this first\n  ",
        (str(scene), "green"),
        "  the bare scene\n\nTry next:\n",
        f"  relume compare {shlex.quote(str(scene))} --target cat,dog\n",
        f"  relume explain {shlex.quote(str(scene))} --target cat --method all\n",
        "  relume demo --seed 1\n",
        "  relume evaluate --scenes 100\n",
        "  relume explain photo.jpg --model torchvision:resnet50",
    )
