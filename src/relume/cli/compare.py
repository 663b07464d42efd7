"""``relume compare``: targets and methods side by side, on a sheet and on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from relume.text import encoded, printable

if TYPE_CHECKING:
    from relume.explanation.result import Explanation
    from relume.pages.comparison import MapView, PhotoView
    from relume.pictures.photo import Photo

__all__ = ["EXAMPLES", "compare"]

EXAMPLES = """Examples:

  relume compare cat_dog.jpg --model torchvision:resnet50 --target 243,282

  relume compare photos --model torchvision:resnet50 --method all --output comparison
"""

ROWS = 6  # on a page of the PDF


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
    from relume.explanation.answer import compared
    from relume.models.labels import parse_targets
    from relume.pages.folder import check_writable

    check_writable(output)
    drawing.check()
    methods = asked.methods(METHODS)
    photos = pictures_in(photos, output)
    names = distinct_names(photos)
    explained: list[list[Explanation]] = []
    opened = network.open()
    targets = [None] if not target else [*parse_targets(",".join(target), opened.labels)]
    failures = Failures(lambda photo: ask(photo, Path()))

    def ask(photo: Photo, path: Path) -> list[Explanation]:
        source = {"file": str(path), "name": names.get(path, ""), **asked.facts}
        return explain_photo(photo, opened, targets, methods, network.layer, source)

    def keep(found: list[Explanation], _: Path) -> None:
        explained.append([_lighter(e) for e in found])

    with common.tracked("comparing", photos, len(photos)) as steps:
        each_photo(steps, failures, ask, keep)
    if explained:
        together = iter(compared([e for targets in explained for e in targets]))
        explained = [[next(together) for _ in targets] for targets in explained]
        files = _files(explained, drawing)
        write_results(output, files)
        findings = [
            Text.assemble(
                (printable(e[0].source["file"]), "bold"), f"  {'; '.join(one.title() for one in e)}{nothing_shown(e)}"
            )
            for e in explained
        ]
        without = [each for e in explained for one in e for each in one.without_gradcam()]
        closing = reached(explained[0][0], without=without)
        out.print(*findings, closing, _where(output, files, sum(len(e) for e in explained)), sep="\n")
    raise typer.Exit(failures.end(len(photos), "photos could not be explained"))


def _lighter(e: Explanation) -> Explanation:
    """The same, with a photo no larger than it is shown here: a hundred of twelve megapixels do not fit into memory."""
    from relume.pages.comparison import LONGEST

    assert e.photos is not None, "explain_photo gives it"
    (photo,) = e.photos
    size = photo.picture.size, photo.box
    return replace(e, photos=[replace(photo.fitted(LONGEST), content=None)], source={**e.source, "photo": size})


def _files(explained: Sequence[Sequence[Explanation]], drawing: Drawing) -> dict[str, bytes]:
    """The sheet, as a picture and as pages, and the page."""
    from relume.explanation.result import sheet
    from relume.pages.comparison import compare_page
    from relume.pictures.figure import figure_bytes, pages

    rows = drawing.scaled([e for targets in explained for e in targets])
    taken = iter(rows)
    views = [_photo_view([next(taken) for _ in targets], drawing.kind) for targets in explained]
    sheets = (sheet(rows[start : start + ROWS], kind=drawing.kind) for start in range(0, len(rows), ROWS))
    return {
        "sheet.png": figure_bytes(sheet(rows, kind=drawing.kind)),
        "sheet.pdf": pages(sheets),
        "index.html": encoded(compare_page(views, title="relume")),
    }


def _photo_view(targets: Sequence[Explanation], kind: str | None) -> PhotoView:
    from relume.pages.comparison import PhotoView, TargetView

    first = targets[0]
    assert first.photos is not None, "explain_photo gives it"
    photo, (size, box) = first.photos[0], first.source["photo"]
    facts = {
        "model": first.model,
        "weights": first.source["weights"] or "the network's own",
        "layer": first.layer or "none",
        "coverage": first.reached,
        "rectifiers": first.source["rectifiers"],
        "scores": first.scores_are,
        "scale": str(first.scaling),
    }
    if photo.notes:
        facts["file"] = "; ".join(photo.notes)
    if smooth := first.source.get("smooth"):
        facts["smoothed"] = f"{smooth['samples']} noisy copies, noise {smooth['noise']:g}, seed {smooth['seed']}"
    return PhotoView(
        name=first.source["name"],
        photo=photo.picture,
        size=size,
        box=box,
        targets=[TargetView(e.title(), [_map_view(e, m, kind) for m in e.maps]) for e in targets],
        top=[(name, value) for _, name, value in first.top()],
        quantity=first.quantity,
        facts=facts,
    )


def _map_view(e: Explanation, method: str, kind: str | None) -> MapView:
    """A map as a layer; what shows the photo itself, as heat."""
    import numpy as np

    from relume.maps import array
    from relume.pages.comparison import MapView
    from relume.pictures import kinds as render

    drawing, full, values = e.kind(method, kind), e.scale(method)[0], e.drawn(method)
    heat = drawing.key in ("over", "masked", "contours")
    drawn = str(e.scaling) + (", drawn as heat" if heat and drawing.key != "over" else "")
    low, high = drawing.ends or (0, 1)
    ramp = np.linspace(low, high, 256, dtype=np.float32)[None]
    return MapView(
        key=method,
        name=e.infos[method].title,
        values=array(e[method][0].float()),
        layer=render.layer(values, full) if heat else drawing.draw(values, full, None).convert("RGBA"),
        bar=render.layer(ramp, 1) if heat else drawing.draw(ramp, 1, None),
        ends=(low * full, high * full),
        legend="; ".join(part for part in (drawn if values.any() else "", e.doubt(method)) if part),
        note="; ".join(words for words in (e.remark(method), e.weak_here(method)) if words),
    )


def _where(output: Path, files: Mapping[str, bytes], rows: int) -> Text:
    from relume.explanation.result import MOST_ROWS

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
