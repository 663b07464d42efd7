"""``relume audit``: may these maps be believed?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from relume.cli import common
from relume.cli.common import complain, err, out
from relume.cli.failures import write_results
from relume.cli.network import Network
from relume.cli.photos import Failures, Photos, distinct_names, each_photo
from relume.errors import InputError
from relume.text import decimal, printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from relume.auditing import AuditReport
    from relume.auditing.checks.table import Watch
    from relume.auditing.fail_if import Condition
    from relume.auditing.view import AuditView
    from relume.models.opened import Opened
    from relume.pictures.photo import Photo

__all__ = ["EXAMPLES", "audit"]

#: Told what is audited, the hook that looks on.
Watching: TypeAlias = "Callable[[str], AbstractContextManager[Watch]]"

EXAMPLES = """Examples:

  relume audit cat_dog.jpg --model torchvision:resnet50 --method guided_backprop,guided_gradcam

  relume audit scene.png --checks edges,classes,stability

  relume audit photos --model package.module:factory --method gradcam --fail-if "cascade>0.5" --fail-if "stability<0.6"
"""

METHODS = "guided_backprop,guided_gradcam"
KEYS = 15  # the width of the column of names
TITLES = 24  # the least width of the column of titles; longer ones go on below


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What the command line asks of each map."""

    checks: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="coverage, edges, classes, stability, faithfulness, randomisation, or figures of theirs, between commas. "
            "[default: all of them]",
        ),
    ] = None
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class, by index or name. [default: the predicted class]")
    ] = None
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Of everything random: the same gives the same figures.")] = 0
    how: Annotated[str, typer.Option(metavar="HOW", help="How layers are made random: reset, or shuffle.")] = "reset"
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION", help='Exit with code 3 if a map\'s figure is such: "randomisation>0.8". May be repeated.'
        ),
    ] = None

    def chosen(self) -> list[str]:
        """The checks.

        Raises:
            InputError: there is no such check.
        """
        from relume.auditing.checks.table import CHECKS, checks_of

        names = [*CHECKS] if self.checks is None else [name.strip() for name in self.checks.split(",") if name.strip()]
        return checks_of(names, "--checks")

    def conditions(self) -> list[Condition]:
        """What is not to be.

        Raises:
            InputError: no condition, or one on a figure of a check that is not made.
        """
        from relume.auditing.checks.table import FIGURES
        from relume.auditing.fail_if import Condition

        conditions = [Condition.parse(text) for text in self.fail_if or ()]
        for condition in conditions:
            if (needed := FIGURES[condition.figure].check) not in self.chosen():
                raise InputError(
                    f"--fail-if {condition} needs the check {needed}, which --checks leaves out; name it there too"
                )
        return conditions

    def index(self, labels: Sequence[str] | None) -> int | None:
        """The class.

        Raises:
            InputError: there is none of this name, or several were named.
        """
        from relume.models.labels import parse_targets

        if self.target is None:
            return None
        classes = parse_targets(self.target, labels)
        if len(classes) > 1:
            raise InputError(f"an audit is about one class of each picture, and --target was {self.target!r}; give one")
        return classes[0]


@common.expanded
def audit(
    photos: Photos,
    *,
    network: Network,
    method: Annotated[list[str] | None, common.method_option(METHODS)] = None,
    examined: Examined,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where audit.json, audit.png and index.html go.")] = Path("out"),
) -> None:
    """Find out whether maps may be believed: random weights, other classes, edges, small changes, pixels taken out.

    For each photo and method the figures, a verdict in a sentence, and a page that shows what they rest on.
    """
    from relume.auditing.checks.random_weights import check_how
    from relume.auditing.page import audit_files
    from relume.models.photos import find_photos, in_batches
    from relume.pages.folder import check_writable

    check_writable(output)
    conditions = examined.conditions()
    methods = common.method_keys(method, METHODS)
    check_how(examined.how)
    photos = find_photos(photos, output)
    names = distinct_names(photos)
    opened = network.open()
    if network.labels is not None:
        opened.check_labels()
    target = examined.index(opened.labels)
    options = {"target": target, "layer": network.layer, "checks": examined.chosen()}
    options |= {"seed": examined.seed, "how": examined.how}
    audits: list[dict[str, Any]] = []
    naming = ""
    groups: list[list[AuditView]] = []
    failures = Failures(lambda photo: opened.explain(photo, target, methods, network.layer, evidence=False))

    def keep(reports: list[AuditReport], _: Path) -> None:
        nonlocal naming
        views = [report.view() for report in reports]  # without the maps at every stage
        audits.extend([report.as_dict() for report in reports])
        groups.append(views)
        naming = reports[0].naming("--activation {}")

    def ask(batch: Sequence[tuple[Photo, Path]]) -> list[list[AuditReport]]:
        ((photo, path),) = batch
        return [_audited(photo.picture, {"file": str(path), "name": names[path]}, opened, methods, options, watch)]

    with _watching(len(photos) * len(methods)) as watch:
        each_photo(in_batches(photos, 1, lambda path: (common.read_photo(path), path), ask), failures, keep)
    broken = [line for audited in audits for line in _broken(audited, conditions)]
    facts = {"audits": audits, "fail_if": [str(condition) for condition in conditions], "broken": broken}
    if groups:
        write_results(output, audit_files(groups, {"network": opened.provenance, **facts}))
    for views in groups:
        _show(views)
    if naming:
        out.print(Text(naming, style="dim"))
    if groups:
        out.print(Text.assemble(("→ ", "green"), (str(output / "index.html"), "bold green"), "  open it in a browser"))
    for line in broken:
        complain(line)
    code = failures.end(len(photos), "photos could not be audited")
    raise typer.Exit(3 if broken else code)  # a condition that holds counts more than a photo that could not be audited


def _audited(
    picture: Image,
    known: Mapping[str, str],
    opened: Opened,
    methods: Sequence[str],
    options: Mapping[str, Any],
    watch: Watching,
) -> list[AuditReport]:
    """The audits of one photo, by each method."""
    from relume.auditing import audit as examine

    view = opened.preprocessing.view(picture)
    image = opened.image(view)[None]
    options = {"activation": opened.activation, "labels": opened.labels, "output": opened.output, **options}
    found = []
    for method in methods:
        with watch(f"{known['name']}: {method}") as watched:
            report = examine(opened.model, image, method=method, watched=watched, **options)
        facts = {**known, **report.facts}
        found.append(dataclasses.replace(report, model=opened.name, facts=facts, pictures=[view]))
    return found


@contextmanager
def _watching(total: int) -> Iterator[Watching]:
    """Two bars, if there is somebody to see them: of all audits, and of the check that goes on, each with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        whole = progress.add_task("auditing", total=total, visible=total > 1)

        @contextmanager
        def watch(words: str) -> Iterator[Watch]:
            part = progress.add_task(words, total=None)

            def watched(check: str, items: Sequence[Any]) -> Iterable[Any]:
                progress.reset(part, total=len(items), description=f"{words}, {check}")
                for item in items:
                    yield item
                    progress.advance(part)

            try:
                yield watched
            finally:
                progress.remove_task(part)
            progress.advance(whole)

        yield watch


def _broken(audited: Mapping[str, Any], conditions: Sequence[Condition]) -> list[str]:
    """Which conditions a map meets, in words."""
    (picture,) = audited["pictures"]
    known = {key: value for key, value in picture["figures"].items() if value is not None}
    met = [condition.broken(known, empty=picture["empty"]) for condition in conditions]
    return [f"{printable(audited['file'])}, {audited['method']}: {words}" for words in met if words is not None]


def _cell(value: float, view: AuditView) -> str:
    """A figure in few letters."""
    if not math.isnan(value):
        return decimal(value)
    return "empty" if view.empty else "–"


def _show(views: Sequence[AuditView]) -> None:
    """The figures of one photo, a column for each method, and what is to be said of each map."""
    from relume.auditing.view import side_by_side

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    widths = [max(map(len, view.method.split())) for view in views]
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("", min_width=TITLES)
    table.add_column("", no_wrap=True)
    for view, width in zip(views, widths, strict=True):
        table.add_column(view.method, justify="right", min_width=width)
    table.add_column("limit", no_wrap=True)
    for row in side_by_side(views):
        (figure, limit), low = (row[0].figure, row[0].limit), row[0].figure.better == "low"
        cells = [
            Text(_cell(cell.value, view), style="bold red" if cell.beyond else "")
            for cell, view in zip(row, views, strict=True)
        ]
        held = f"{'<' if low else '>'} {limit.value:.2f}" if limit else ""
        table.add_row(row[0].key, figure.title, "↓" if low else "↑", *cells, Text(held, style="dim"))
    out.print(Text.assemble((views[0].name, "bold"), f"  {views[0].subject}"))
    out.print(table, "", sep="\n", width=max(out.width, KEYS + TITLES + 5 + sum(width + 2 for width in widths) + 8))
    for view in views:
        out.print(Text.assemble((view.method, "bold"), f"  {', '.join(view.about[1:])}".rstrip() + "\n", view.verdict.text))
        out.print(*(Text(note, style="dim") for note in view.notes), "", sep="\n")
