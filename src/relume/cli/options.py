"""Options of the commands that explain photos, and lines about their results."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.text import Text

from relume.cli.common import method_keys, method_option
from relume.errors import InputError
from relume.methods.names import DEFAULT_METHODS

if TYPE_CHECKING:
    from relume.explanation.request import Options
    from relume.explanation.result import Explanation
    from relume.methods.wrapper import MethodLike
    from relume.models.opened import Opened
    from relume.pictures.photo import Photo
    from relume.targets import TargetLike

__all__ = [
    "METHODS",
    "Asked",
    "Drawing",
    "nothing_shown",
    "reached",
]

METHODS = ",".join(DEFAULT_METHODS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options for how photos are explained."""

    method: Annotated[list[str] | None, method_option(METHODS)] = None
    smooth: Annotated[
        int | None,
        typer.Option(
            metavar="SAMPLES",
            help="Smooth every method: average its maps over so many noisy copies of the photo (SmoothGrad), beside their "
            "variance (VarGrad).",
        ),
    ] = None
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL", help="Noise of --smooth, as a share of the range of the network's input. [default: 0.15]"
        ),
    ] = None
    competing: Annotated[
        int | None,
        typer.Option(
            metavar="RIVALS",
            min=1,
            help="Let each map compete with those of so many other classes: what speaks for several is taken out (VAR).",
        ),
    ] = None
    rectifiers: Annotated[
        str, typer.Option(metavar="WHICH", help="Where rules apply: all rectifiers, or relu, the ReLU family alone.")
    ] = "all"

    evidence: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Compare maps: quick, each with edges, and Grad-CAM with the one for the runner-up class; full, each with the "
            "one for the runner-up too, which doubles the backward passes; or none.",
        ),
    ] = "quick"

    batch_size: Annotated[
        int,
        typer.Option(metavar="NUMBER", min=1, help="How many photos run through the network at once; fewer need less memory."),
    ] = 8

    def methods(self, default: str) -> list[MethodLike]:
        """Return the methods, each of them smoothed with ``--smooth``, or in competition with ``--competing``.

        Raises:
            InputError: an unknown method, samples or noise out of range, or options that do not go together.
        """
        from relume.methods.averaged import Smooth
        from relume.methods.competing import Competing

        keys = method_keys(self.method, default)
        if self.smooth is not None and self.smooth < 1:
            raise InputError(f"--smooth takes the number of noisy copies, from 1 on; got {self.smooth}")
        if self.noise is not None and not 0 < self.noise < float("inf"):
            raise InputError(f"--noise is a share of the input's range above zero, such as 0.15; got {self.noise:g}")
        if self.smooth is not None and self.competing is not None:
            raise InputError("--smooth and --competing each make another map of every method; give one of them")
        if self.smooth is not None:
            return [Smooth(key, self.smooth, Smooth.noise if self.noise is None else self.noise) for key in keys]
        if self.noise is not None:
            raise InputError("--noise is the noise of --smooth; give that too, such as --smooth 25")
        return [*keys] if self.competing is None else [Competing(key, self.competing) for key in keys]

    @property
    def options(self) -> Options:
        """Return the options of :meth:`relume.models.Opened.compare`."""
        return {
            "rectifiers": cast('Literal["all", "relu"]', self.rectifiers),
            "evidence": self._evidence,
            "batch_size": self.batch_size,
        }

    @property
    def _evidence(self) -> Literal["quick", "full"] | None:
        choices: dict[str, Literal["quick", "full"] | None] = {"quick": "quick", "full": "full", "none": None}
        if self.evidence not in choices:
            raise InputError(f"--evidence is {', '.join(choices)}; got {self.evidence!r}")
        return choices[self.evidence]

    def attempt(
        self, opened: Opened, targets: Sequence[TargetLike], methods: Sequence[MethodLike], layer: str | None
    ) -> Callable[[Photo], object]:
        """Return a function that explains one photo as all are explained."""
        return lambda photo: opened.compare(photo, targets, methods, layer, **self.options)

    def recorded(self, explanations: Iterable[Explanation], **more: Any) -> list[Explanation]:
        """Return explanations whose provenance holds these options, and ``more``."""
        from relume.methods.averaged import Smooth

        noise = Smooth.noise if self.noise is None else self.noise
        smooth = {} if self.smooth is None else {"smooth": {"samples": self.smooth, "noise": noise, "seed": 0}}
        competing = {} if self.competing is None else {"competing": {"rivals": self.competing}}
        provenance = {"evidence": self.options["evidence"], **smooth, **competing, **more}
        return [dataclasses.replace(e, provenance={**e.provenance, **provenance}) for e in explanations]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The options for how maps are drawn."""

    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Kind of picture: colour, diverging, positive, negative, absolute, over, masked or contours. "
            "[default: what suits each map]",
        ),
    ] = None
    scale: Annotated[
        str,
        typer.Option(
            metavar="SCALE",
            help="Value drawn at full strength: own, each map's percentile; shared, one for all maps of a method; or a number.",
        ),
    ] = "own"
    percentile: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="Percentile of a map's magnitudes that is drawn at full strength. [default: 99.5]"),
    ] = None

    def check(self) -> None:
        """Refuse options that cannot be drawn by, before any work is done.

        Raises:
            InputError: an unknown kind, or a scale or percentile out of range.
        """
        from relume.pictures.kinds import KINDS

        if self.kind is not None and self.kind not in KINDS.names():
            raise InputError(f"--kind is one of {', '.join(KINDS.names())}; got {self.kind!r}")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise InputError(f"--percentile is a number above 0, up to 100; got {self.percentile:g}")
        if self.percentile is not None and self.scale not in ("own", "shared"):
            raise InputError("--percentile finds the scale, and --scale gives it; leave one of them out")
        try:
            self.scaled([])
        except (InputError, ValueError):
            raise InputError(f"--scale is own, shared or a value above zero; got {self.scale!r}") from None

    def scaled(self, explained: Sequence[Explanation]) -> list[Explanation]:
        """Return the explanations drawn at the scale of ``--scale``; a shared one is shared among them."""
        from relume.explanation.result import Scale
        from relume.explanation.scales import share
        from relume.pictures.scale import PERCENTILE

        words: dict[str, Scale] = {"own": "own", "shared": "shared"}
        scale = words.get(self.scale) or float(self.scale)
        return share(explained, scale, percentile=PERCENTILE if self.percentile is None else self.percentile)


def nothing_shown(explained: Sequence[Explanation]) -> str:
    """Name the methods whose map of a photo is empty, or weak beside others, for the end of a line; nothing if none is."""
    empty: dict[str, list[str]] = {}  # titles of methods, by how many of the maps are so, and why
    weak: dict[str, list[str]] = {}
    for method, info in explained[0].infos.items():
        without = [e for e in explained if any(e.empty(method))]
        # the reason, without the advice that follows it
        reasons = [re.split(r"[;:] | \(", e.remarks.get(method, ("",))[0])[0] for e in without]
        _count(empty, info.title, len(without), len(explained), " or ".join(dict.fromkeys(reasons)))
        _count(weak, info.title, sum(bool(e.weak_here(method)) for e in explained), len(explained))
    return _listed("empty", empty) + _listed("weak here", weak)


def _count(groups: dict[str, list[str]], title: str, count: int, total: int, reason: str = "") -> None:
    """Add a method to the group of those with as many such maps for the same reason."""
    if count:
        share = f"{count} of {total}" if total > 1 else ""
        groups.setdefault(": ".join(part for part in (share, reason) if part), []).append(title)


def _listed(word: str, groups: Mapping[str, Sequence[str]]) -> str:
    """Write groups of methods, each with its reason."""
    parts = [", ".join(titles) + (f" ({reason})" if reason else "") for reason, titles in groups.items()]
    return f"  {word}: {', '.join(parts)}" if parts else ""


def reached(e: Explanation, *, without: Sequence[str] = ()) -> Text:
    """Report what is the same for every photo: layer and why, rectifiers, what the scores are, how far to believe the maps.

    If the chosen layer leaves most images ``without`` a map, another one is named.
    """
    from relume.explanation.layer_trouble import trouble_with_layer

    how = f" ({why}; --layer names another)" if (why := e.layer_choice) else ""
    lines = [f"layer {e.layer}{how}"] if e.layer else []
    lines += list(map(str, e.coverage.rows))
    lines += [*e.beliefs, e.naming("--activation {}"), trouble_with_layer(e, without, "--layer {}")]
    return Text("\n" + "\n".join(line for line in lines if line))
