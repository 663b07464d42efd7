"""A photo explained, drawn as the command line says, and written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from relume.cli.common import method_keys, method_option
from relume.cli.failures import write_results
from relume.errors import InputError, ModelError

if TYPE_CHECKING:
    from relume.explanation.result import Explanation
    from relume.methods.averaged import Repeated
    from relume.models.opened import Opened
    from relume.pictures.photo import Photo
    from relume.targets.base import TargetLike

__all__ = [
    "METHODS",
    "Asked",
    "Drawing",
    "check_labels",
    "explain_photo",
    "nothing_shown",
    "reached",
    "write_explained",
]

METHODS = "guided_backprop,gradcam,guided_gradcam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks of each picture."""

    method: Annotated[list[str] | None, method_option(METHODS)] = None
    smooth: Annotated[
        int | None,
        typer.Option(
            metavar="SAMPLES",
            help="Smooth every method: mean (SmoothGrad) and variance (VarGrad) of its maps over so many noisy copies.",
        ),
    ] = None
    noise: Annotated[
        float | None,
        typer.Option(metavar="LEVEL", help="That noise, as a share of the range of the network's input. [default: 0.15]"),
    ] = None
    rectifiers: Annotated[str, typer.Option(metavar="WHICH", help="all, or relu: apply rules to the ReLU family alone.")] = (
        "all"
    )

    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence/--no-evidence", help="Compare each map with the runner-up's and with edges, at twice the cost."
        ),
    ] = True

    def methods(self, default: str) -> list[str | Repeated]:
        """The methods, each of them smoothed if that is asked for.

        Raises:
            InputError: an unknown method, or noise that is none.
        """
        from relume.methods.averaged import Smooth

        keys = method_keys(self.method, default)
        if self.smooth is not None and self.smooth < 1:
            raise InputError(f"--smooth takes the number of noisy copies, from 1 on; got {self.smooth}")
        if self.noise is not None and not 0 < self.noise < float("inf"):
            raise InputError(f"--noise is a share of the input's range above zero, such as 0.15; got {self.noise:g}")
        if self.smooth is not None:
            return [Smooth(key, self.smooth, Smooth.noise if self.noise is None else self.noise) for key in keys]
        if self.noise is not None:
            raise InputError("--noise is the noise of --smooth; give that too, such as --smooth 25")
        return [*keys]

    @property
    def facts(self) -> dict[str, Any]:
        """What a result records of it."""
        from relume.methods.averaged import Smooth

        smooth = {"samples": self.smooth, "noise": Smooth.noise if self.noise is None else self.noise, "seed": 0}
        return {"rectifiers": self.rectifiers, "evidence": self.evidence} | ({} if self.smooth is None else {"smooth": smooth})


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What the command line says of the pictures."""

    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="colour, diverging, positive, negative, absolute, over, masked or contours. [default: what suits each map]",
        ),
    ] = None
    scale: Annotated[
        str,
        typer.Option(
            metavar="SCALE",
            help="own: each map's percentile at full strength; shared: the same for all pictures of a method; or the value.",
        ),
    ] = "own"
    percentile: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER", help="Which percentile of a map's magnitudes is drawn at full strength. [default: 99.5]"
        ),
    ] = None

    def check(self) -> None:
        """Refuse what cannot be drawn, before any work is done for it.

        Raises:
            InputError: an unknown kind, a scale that is no scale, a percentile that is none.
        """
        from relume.pictures.kinds import KINDS

        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"--kind is one of {', '.join(KINDS)}; got {self.kind!r}")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise InputError(f"--percentile is a number above 0, up to 100; got {self.percentile:g}")
        if self.percentile is not None and self.scale not in ("own", "shared"):
            raise InputError("--percentile finds the scale, and --scale gives it; leave one of them out")
        try:
            self.scaled([])
        except (InputError, ValueError):
            raise InputError(f"--scale is own, shared or a value above zero; got {self.scale!r}") from None

    def scaled(self, explained: Sequence[Explanation]) -> list[Explanation]:
        """The explanations at the scale asked for; a shared one is shared among them."""
        from relume.explanation.result import Scale, share
        from relume.pictures.scale import PERCENTILE

        words: dict[str, Scale] = {"own": "own", "shared": "shared"}
        scale = words.get(self.scale) or float(self.scale)
        return share(explained, scale, percentile=PERCENTILE if self.percentile is None else self.percentile)


def explain_photo(
    photo: Photo,
    opened: Opened,
    targets: Sequence[TargetLike],
    methods: Sequence[str | Repeated],
    layer: str | None,
    source: Mapping[str, Any],
) -> list[Explanation]:
    """A photo's explanations for each target, knowing where they come from: ``source``, which may say ``rectifiers``."""
    rectifiers, evidence = source.get("rectifiers", "all"), source.get("evidence", True)
    explained = opened.compare(photo, targets, methods, layer, rectifiers=rectifiers, evidence=evidence)
    return [dataclasses.replace(e, source={**e.source, **source}) for e in explained]


def check_labels(opened: Opened) -> None:
    """Refuse labels that are not one for each class, before a long run begins: explains one empty picture.

    Raises:
        ModelError: there are more or fewer.
    """
    from PIL import Image

    from relume.pictures.photo import Photo

    try:
        explain_photo(Photo.whole(Image.new("RGB", (256, 256))), opened, [None], ["gradient"], None, {"evidence": False})
    except ModelError:
        raise
    except Exception:  # noqa: BLE001 - the photos may be other pictures, and what is wrong with them is said then
        return


def write_explained(
    explained: Sequence[Explanation],
    folder: Path,
    *,
    kind: str | None = None,
    size: int | None = None,
    extra: Mapping[str, bytes] | None = None,
    then: Callable[[], None] = lambda: None,
) -> None:
    """Write a photo's explanations, a folder for each target, with their overview and ``extra`` files, all or nothing."""
    from relume.explanation.result import sheet
    from relume.explanation.storage import written
    from relume.pages.folder import recover
    from relume.pictures.figure import figure_bytes

    recover(folder)  # before what is there is looked at
    files, stale = dict(extra or {}), set()
    for e in explained:
        drawn = e.files(kind=kind, size=size, figure=False)
        files |= {f"{_slug(e)}/{name}": content for name, content in drawn.items()}
        # pictures of an earlier run by other methods would stand beside facts that are not theirs
        stale |= {f"{_slug(e)}/{name}" for name in written(folder / _slug(e))}
    files["overview.png"] = figure_bytes(sheet(explained, kind=kind))
    write_results(folder, files, stale=stale - files.keys(), then=then)


def _slug(e: Explanation) -> str:
    """A folder name for what is explained: ``243-bull-mastiff``, ``243-bull-mastiff-not-281-tabby``, ``layer4-channel-7``."""
    if e.target is None:
        return _plain(e.unit or "score")
    slug = _class_slug(e, int(e.target[0]))
    return slug if e.versus is None else f"{slug}-not-{_class_slug(e, int(e.versus[0]))}"


def _class_slug(e: Explanation, index: int) -> str:
    name = _plain(e.name(index).partition(",")[0])
    return str(index) if name in ("", str(index)) else f"{index}-{name}"


def _plain(text: str) -> str:
    return re.sub("-+", "-", "".join(c if c.isalnum() else "-" for c in text.casefold()))[:60].strip("-")


def nothing_shown(explained: Sequence[Explanation]) -> str:
    """Name the methods whose map of a photo is empty, or weak beside others, for the end of a line; nothing if none is."""
    from relume.methods.names import method_name

    def short(e: Explanation, method: str) -> str:
        """The reason why a map is empty, without what to try."""
        return re.split(r"[;:] | \(", e.remarks.get(method, ("",))[0])[0] if any(e.empty(method)) else ""

    def named(said: str, found: Callable[[Explanation, str], bool]) -> str:
        names: dict[str, list[str]] = {}  # by what is said of them
        for m in explained[0].maps:
            if some := [e for e in explained if found(e, m)]:
                of = f"{len(some)} of {len(explained)}" if len(explained) > 1 else ""
                why = " or ".join(dict.fromkeys(short(e, m) for e in some))
                names.setdefault(": ".join(part for part in (of, why) if part), []).append(method_name(m))
        groups = [", ".join(methods) + (f" ({words})" if words else "") for words, methods in names.items()]
        return f"  {said}: {', '.join(groups)}" if groups else ""

    return named("empty", lambda e, m: any(e.empty(m))) + named("weak here", lambda e, m: bool(e.weak_here(m)))


def reached(e: Explanation, *, without: Sequence[bool] = ()) -> Text:
    """Say what is the same for every photo of one network: the layer read and why, the rectifiers guided, what scores are.

    Where the layer chosen leaves most maps ``without`` Grad-CAM, another one is named.
    """
    how = f" ({why}; --layer names another)" if (why := e.source.get("layer_choice")) else ""
    lines = [f"layer {e.layer}{how}"] if e.layer else []
    lines += [f"{row.count} {row.kind} {'guided' if row.guided else f'not guided: {row.why}'}" for row in e.coverage.rows]
    lines += [e.naming("--activation {}"), e.trouble_with_layer(without, "--layer {}")]
    return Text("\n" + "\n".join(line for line in lines if line))
