"""The command ``relume audit``: whether maps may be believed."""

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
from relume.cli.calibrations import Belief
from relume.cli.common import complain, err, out
from relume.cli.failures import write_results
from relume.cli.network import Network
from relume.cli.photos import Failures, Photos, distinct_names, each_photo
from relume.errors import InputError
from relume.methods.names import DEFAULT_METHODS
from relume.text import decimal, printable

if TYPE_CHECKING:
    from relume.auditing import AuditReport
    from relume.auditing.fail_if import Condition
    from relume.auditing.subject import Progress as ProgressOfChecks
    from relume.auditing.view import AuditView
    from relume.methods.wrapper import MethodLike
    from relume.models.opened import Opened
    from relume.pictures.photo import Photo
    from relume.pictures.recording import Recording
    from relume.targets import TargetLike

__all__ = ["EXAMPLES", "audit"]

#: Takes the name of what is audited, and gives what sees the progress of its checks.
Bars: TypeAlias = "Callable[[str], AbstractContextManager[ProgressOfChecks]]"

EXAMPLES = """Examples:

  relume audit cat_dog.jpg --model torchvision:resnet50 --method guided_backprop,guided_gradcam

  relume audit scene.png --checks edges,classes,stability

  relume audit photos --model package.module:factory --method gradcam --fail-if "cascade>0.5" --fail-if "stability<0.6"
"""

METHODS = ",".join(DEFAULT_METHODS)
KEYS = 15  # the width of the column of names
TITLES = 24  # the least width of the column of titles; longer ones go on below


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The options of an audit, the same for each map."""

    checks: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Checks, or measures of theirs, between commas: coverage, classes, randomisation, complexity, edges, "
            "stability, faithfulness. [default: all of them]",
        ),
    ] = None
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class, by index or name. [default: the predicted class]")
    ] = None
    ask: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:ARGS",
            help="Something else than a class, as for relume explain: regression:up, segmentation:CLASS, detection:CLASS.",
        ),
    ] = None
    smooth: Annotated[
        int | None,
        typer.Option(metavar="SAMPLES", help="Audit SmoothGrad: the mean of each method's maps over so many noisy copies."),
    ] = None
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", help="Seed of everything random: the same gives the same measures.")
    ] = 0
    how: Annotated[str, typer.Option(metavar="HOW", help="How layers are made random: reset, or shuffle.")] = "reset"
    batch_size: Annotated[int, typer.Option(metavar="NUMBER", help="Images that go through the network at once.")] = 16
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help='Exit with code 3 if a map meets it: "randomisation>0.8". May be repeated.'),
    ] = None

    def keys(self) -> list[str]:
        """Return the keys of the checks.

        Raises:
            InputError: there is no such check.
        """
        from relume.auditing.checks.table import CHECKS, checks_of

        names = [*CHECKS] if self.checks is None else [name.strip() for name in self.checks.split(",") if name.strip()]
        return list(checks_of(names, "--checks"))

    def conditions(self) -> list[Condition]:
        """Return the conditions that no map is to meet.

        Raises:
            InputError: no condition, or one on a measure of a check that is not made.
        """
        from relume.auditing.checks.table import checks_of
        from relume.auditing.fail_if import Condition

        conditions = [Condition.parse(text) for text in self.fail_if or ()]
        for condition in conditions:
            (check,) = checks_of([condition.measure])
            if check not in self.keys():
                raise InputError(f"--fail-if {condition} needs the check {check}, which --checks leaves out; name it there too")
        return conditions

    def methods(self, keys: Sequence[str]) -> list[MethodLike]:
        """Return the methods, each of them smoothed if that is asked for.

        Raises:
            InputError: fewer than one noisy copy.
        """
        from relume.methods.averaged import Smooth

        if self.smooth is None:
            return [*keys]
        if self.smooth < 1:
            raise InputError(f"--smooth takes the number of noisy copies, from 1 on; got {self.smooth}")
        return [Smooth(key, self.smooth, batch_size=self.batch_size) for key in keys]

    def target_of(self, opened: Opened) -> TargetLike:
        """Return the class, or what else is asked; None for the predicted class.

        Raises:
            InputError: several were named.
            TargetError: there is no class of this name, or no such question.
        """
        if self.target is not None and self.ask is not None:
            raise InputError("an audit is about one target of each image; give --target or --ask")
        targets = common.targets_of([self.target] if self.target else None, [self.ask] if self.ask else None, opened)
        if len(targets) > 1:
            raise InputError(f"an audit is about one class of each image, and --target was {self.target!r}; give one")
        return targets[0]


@common.expanded
def audit(
    photos: Photos,
    *,
    network: Network,
    belief: Belief,
    method: Annotated[list[str] | None, common.method_option(METHODS)] = None,
    examined: Examined,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where audit.json, audit.png and index.html go.")] = Path("out"),
) -> None:
    """Test whether maps may be believed, with a verdict on each.

    Maps are made again with random weights, for other classes, after small changes and with pixels taken out. For each photo
    and method you get the measures, a verdict in a sentence, and a page that shows what they rest on.
    """
    from relume.auditing.page import audit_files
    from relume.auditing.subject import check_how
    from relume.models.photos import find_photos, in_batches
    from relume.pages.folder import check_writable

    check_writable(output)
    conditions = examined.conditions()
    check_how(examined.how)
    methods = examined.methods(common.method_keys(method, METHODS))
    photos = find_photos(photos, output)
    names = distinct_names(photos)
    opened = belief.calibrated(network.open(example=photos[0]))
    if network.labels is not None:
        opened.check_labels()
    target = examined.target_of(opened)
    options: dict[str, Any] = {"target": target, "layer": network.layer, "checks": examined.keys(), "seed": examined.seed}
    options |= {"how": examined.how, "batch_size": examined.batch_size, "calibration": opened.calibration}
    audits: list[dict[str, Any]] = []
    naming = ""
    groups: list[list[AuditView]] = []
    failures = Failures(lambda photo: opened.explain(photo, target, methods, network.layer, evidence=None))

    def keep(reports: list[AuditReport], _: Path) -> None:
        nonlocal naming
        views = [report.view() for report in reports]  # without the maps at every stage
        audits.extend([report.as_dict() for report in reports])
        groups.append(views)
        naming = reports[0].naming("--activation {}")

    def ask(batch: Sequence[tuple[Photo | Recording, Path]]) -> list[list[AuditReport]]:
        return [[_audited(p, path, names[path], opened, m, options, progress) for m in methods] for p, path in batch]

    with _bars(len(photos) * len(methods)) as progress:
        each_photo(in_batches(photos, 1, lambda path: (common.read_photo(path), path), ask), failures, keep)
    broken = [line for audited in audits for line in _broken(audited, conditions)]
    data = {"audits": audits, "fail_if": [str(condition) for condition in conditions], "broken": broken}
    if groups:
        write_results(output, audit_files(groups, {"network": opened.provenance, **data}))
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
    photo: Photo | Recording,
    path: Path,
    name: str,
    opened: Opened,
    method: MethodLike,
    options: Mapping[str, Any],
    bars: Bars,
) -> AuditReport:
    """Audit one method's map of a photo."""
    import relume
    from relume.pictures.recording import Recording

    _, image = opened.input_of(photo)
    options = {"activation": opened.activation, "labels": opened.labels, "output": opened.output, **options}
    key = method if isinstance(method, str) else method.maps[0].key
    with bars(f"{name}: {key}") as progress:
        report = relume.audit(opened.model, image[None], method=method, progress=progress, **options)
    provenance = {"file": str(path), **report.provenance}
    pictures = None if isinstance(photo, Recording) else [opened.preprocessing.view(photo.picture)]
    return dataclasses.replace(report, model=opened.name, name=name, provenance=provenance, pictures=pictures)


@contextmanager
def _bars(total: int) -> Iterator[Bars]:
    """Show two bars, of all audits and of the check that goes on, with the time left; a line for each audit in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        whole = progress.add_task("auditing", total=total, visible=total > 1)

        @contextmanager
        def bar(words: str) -> Iterator[ProgressOfChecks]:
            if not err.is_terminal:
                err.print(Text(f"auditing {words}"))
            part = progress.add_task(words, total=None)

            def seen(check: str, items: Sequence[Any]) -> Iterable[Any]:
                progress.reset(part, total=len(items), description=f"{words}, {check}")
                for item in items:
                    yield item
                    progress.advance(part)

            try:
                yield seen
            finally:
                progress.remove_task(part)
            progress.advance(whole)

        yield bar


def _broken(audited: Mapping[str, Any], conditions: Sequence[Condition]) -> list[str]:
    """Say which conditions a map meets."""
    (picture,) = audited["pictures"]
    known = {key: value for key, value in picture["measures"].items() if value is not None}
    met = [condition.broken(known, empty=picture["empty"]) for condition in conditions]
    file = printable(audited["provenance"]["file"])
    return [f"{file}, {audited['method']}: {words}" for words in met if words is not None]


def _cell(value: float, view: AuditView) -> str:
    """Return a measure in few letters."""
    if not math.isnan(value):
        return decimal(value)
    return "empty" if view.empty else "–"


def _show(views: Sequence[AuditView]) -> None:
    """Print the measures of one photo, a column for each method, and the verdict on each map."""
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
        measure = row[0].measure
        cells = [
            Text(_cell(cell.value, view), style="bold red" if cell.beyond else "")
            for cell, view in zip(row, views, strict=True)
        ]
        table.add_row(row[0].key, measure.title, measure.arrow, *cells, Text(row[0].limit, style="dim"))
    out.print(Text.assemble((views[0].name, "bold"), f"  {views[0].subject}"))
    out.print(table, "", sep="\n", width=max(out.width, KEYS + TITLES + 5 + sum(width + 2 for width in widths) + 8))
    for view in views:
        about = ", ".join(view.about[1:])
        out.print(Text.assemble((view.method, "bold"), f"  {about}".rstrip() + "\n", view.verdict.text))
        out.print(*(Text(note, style="dim") for note in view.notes), "", sep="\n")
