"""``relume compare``: targets and methods side by side, on a sheet and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from relume.cli import common
from relume.cli.common import out
from relume.cli.failures import write_results
from relume.cli.network import Network
from relume.cli.options import METHODS, Asked, Drawing, explain_photo, nothing_shown, reached
from relume.cli.photos import Failures, Photos, distinct_names, each_photo, pictures_in
from relume.text import printable

if TYPE_CHECKING:
    from relume.explanation.result import Explanation
    from relume.pictures.photo import Photo

__all__ = ["EXAMPLES", "compare"]

EXAMPLES = """Examples:

  relume compare cat_dog.jpg --model torchvision:resnet50 --target 243,282

  relume compare photos --model torchvision:resnet50 --method all --output comparison
"""


@common.expanded
def compare(
    photos: Photos,
    *,
    network: Network,
    target: common.Targets = None,
    asked: Asked,
    drawing: Drawing,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where sheet.png, sheet.pdf and index.html go.")] = Path("out"),
) -> None:
    """Compare targets and methods: a contact sheet, and a page to look at maps and values closely.

    index.html is one file that needs no network: lay maps over the photo, read raw values under the pointer, download them.
    """
    from relume.explanation.comparison import Compared, comparison_files
    from relume.explanation.result import compared
    from relume.models.labels import parse_targets
    from relume.pages.folder import check_writable

    check_writable(output)
    drawing.check()
    methods = asked.methods(METHODS)
    photos = pictures_in(photos, output)
    names = distinct_names(photos)
    shown: list[Compared] = []
    opened = network.open()
    targets = [None] if not target else [*parse_targets(",".join(target), opened.labels)]
    failures = Failures(lambda photo: ask(photo, Path()))

    def ask(photo: Photo, path: Path) -> list[Explanation]:
        source = {"file": str(path), "name": names.get(path, ""), **asked.facts}
        return explain_photo(photo, opened, targets, methods, network.layer, source)

    def keep(explained: list[Explanation], _: Path) -> None:
        shown.append(Compared.of(explained))

    with common.tracked("comparing", photos, len(photos)) as steps:
        each_photo(steps, failures, ask, keep)
    if shown:
        rows = compared([e for photo in shown for e in photo.targets])
        scaled = iter(drawing.scaled(rows))
        files = comparison_files([photo._replace(targets=[next(scaled) for _ in targets]) for photo in shown], drawing.kind)
        write_results(output, files)
        rest = iter(rows)
        explained = [[next(rest) for _ in targets] for _ in shown]
        findings = [
            Text.assemble(
                (printable(e[0].provenance["file"]), "bold"), f"  {'; '.join(one.title() for one in e)}{nothing_shown(e)}"
            )
            for e in explained
        ]
        without = [each for one in rows for each in one.without_gradcam()]
        closing = reached(explained[0][0], without=without)
        out.print(*findings, closing, _where(output, files, len(rows)), sep="\n")
    raise typer.Exit(failures.end(len(photos), "photos could not be explained"))


def _where(output: Path, files: Mapping[str, bytes], rows: int) -> Text:
    from relume.explanation.sheet import MOST_ROWS

    whole = "" if rows <= MOST_ROWS else f": the first {MOST_ROWS} of {rows} rows as PNG, all of them as PDF"
    return Text.assemble(
        ("\n→ ", "green"),
        (str(output / "index.html"), "bold green"),
        f"  open it in a browser ({len(files['index.html']) / 1e6:.1f} MB)\n  ",
        (str(output / "sheet.png"), "green"),
        ", ",
        (str(output / "sheet.pdf"), "green"),
        f"  the contact sheet{whole}",
    )
