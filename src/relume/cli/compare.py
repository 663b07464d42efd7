"""``relume compare``: targets and methods side by side, on a sheet and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relume.cli import common
from relume.cli.calibrations import Belief
from relume.cli.common import err, out
from relume.cli.failures import write_results
from relume.cli.network import Network
from relume.cli.options import METHODS, Asked, Drawing, nothing_shown, reached
from relume.cli.photos import Failures, Photos, comparisons, distinct_names, each_photo
from relume.text import printable

if TYPE_CHECKING:
    from relume.explanation.comparison import Comparison

__all__ = ["EXAMPLES", "compare"]

EXAMPLES = """Examples:

  relume compare cat_dog.jpg --model torchvision:resnet50 --target 243,282

  relume compare photos --model torchvision:resnet50 --method all --output comparison
"""

#: A page of more photos is better a run.
MANY = 24


@common.expanded
def compare(
    photos: Photos,
    *,
    network: Network,
    belief: Belief,
    target: common.Targets = None,
    ask: common.Questions = None,
    asked: Asked,
    drawing: Drawing,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where compare.html, sheet.png and sheet.pdf go.")] = Path("out"),
) -> None:
    """Compare targets and methods on a contact sheet and on a page.

    compare.html is one file that needs no internet: lay maps over the photo, read raw values under the pointer, download them.
    """
    from relume.explanation.comparison import Comparison, comparison_files
    from relume.explanation.layer_trouble import without_heat
    from relume.models.photos import find_photos
    from relume.pages.folder import check_writable

    check_writable(output)
    drawing.check()
    methods = asked.methods(METHODS)
    photos = find_photos(photos, output)
    if len(photos) > MANY:
        words = f"a page of {len(photos)} photos is large; relume run keeps any number, and goes on if it was stopped"
        err.print(Text(words, style="dim"))
    names = distinct_names(photos)
    compared: list[Comparison] = []
    opened = belief.calibrated(network.open(example=photos[0]))
    targets = common.targets_of(target, ask, opened)
    failures = Failures(asked.attempt(opened, targets, methods, network.layer))

    def keep(comparison: Comparison, path: Path) -> None:
        named = Comparison(tuple(asked.recorded(comparison, name=names[path])))
        compared.append(named.lighter())  # a hundred photos of twelve megapixels do not fit into memory

    results = comparisons(opened, photos, targets, methods, network.layer, asked)
    with common.tracked("comparing", results, len(photos)) as steps:
        each_photo(steps, failures, keep)
    if compared:
        compared = _together(compared, drawing)
        files = comparison_files(compared, kind=drawing.kind)
        write_results(output, files)
        without = [title for comparison in compared for e in comparison for title in without_heat(e)]
        closing = reached(compared[0][0], without=without)
        out.print(*map(_finding, compared), closing, _where(output, files, len(compared) * len(targets)), sep="\n")
    raise typer.Exit(failures.end(len(photos), "photos could not be explained"))


def _together(comparisons: list[Comparison], drawing: Drawing) -> list[Comparison]:
    """Draw all photos at the scale asked for, and let each map know the strongest of them."""
    from relume.explanation.comparison import Comparison
    from relume.explanation.result import compared

    explanations = iter(drawing.scaled(compared([e for comparison in comparisons for e in comparison])))
    return [Comparison(tuple(next(explanations) for _ in comparison)) for comparison in comparisons]


def _finding(comparison: Comparison) -> Text:
    """Say in a line what the network saw in a photo."""
    titles = "; ".join(e.title() for e in comparison)
    return Text.assemble((printable(comparison[0].provenance["file"]), "bold"), f"  {titles}{nothing_shown(comparison)}")


def _where(output: Path, files: Mapping[str, bytes], rows: int) -> Text:
    """Say where the results are."""
    from relume.explanation.comparison import PAGE
    from relume.explanation.sheet import MOST_ROWS

    whole = "" if rows <= MOST_ROWS else f": the first {MOST_ROWS} of {rows} rows as PNG, all of them as PDF"
    return Text.assemble(
        ("\n→ ", "green"),
        (str(output / PAGE), "bold green"),
        f"  open it in a browser ({len(files[PAGE]) / 1e6:.1f} MB)\n  ",
        (str(output / "sheet.png"), "green"),
        ", ",
        (str(output / "sheet.pdf"), "green"),
        f"  the contact sheet{whole}",
    )
