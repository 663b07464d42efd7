"""How far a map may be believed: vetoes for the single map, and what a calibration on this network says of its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relume.engine.coverage import Coverage
from relume.explanation.calibration import FEW, Calibration, Scores
from relume.maps import MapInfo
from relume.measures.statistics import Estimate
from relume.methods.base import Method
from relume.methods.wrapper import AnyMethod, Wrapper
from relume.rules import gradient

__all__ = [
    "LEVELS",
    "PREDICTION",
    "UNCALIBRATED",
    "Level",
    "Verdict",
    "nothing",
    "reference",
    "said",
    "unguided",
    "verdict_of",
    "verdicts_of",
]

Level: TypeAlias = Literal["points", "partly", "edges", "uncalibrated", "unguided", "unstable", "nothing"]

#: The name of each level, in a few words.
LEVELS: Mapping[Level, str] = {
    "points": "points at its object",
    "partly": "partly",
    "edges": "no better than edges",
    "uncalibrated": "not calibrated",
    "unguided": "not all rectifiers guided",
    "unstable": "unstable",
    "nothing": "nothing",
}

#: A method points at its object if the heaviest cell is the right one at least this often, by the lower end of the interval.
POINTS = 0.9


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence about a map, and its kind.

    Attributes:
        level: ``points``, ``partly`` or ``edges`` is what a calibration on this network says of the map's method: it points at
            its object, it does so partly, or it is no better than edges. ``uncalibrated`` if there is none. The others are
            vetoes: ``nothing`` if the map is empty or the same everywhere; ``unguided`` if the rule did not reach every
            rectifier; ``unstable`` if the map changes under noise that nobody sees.
        text: the sentence, with the measures it rests on.

    Example:
        >>> import relume, torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> print(relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"]).verdict("gradient"))
        Not calibrated on this network: relume calibrate PHOTOS.
    """

    level: Level
    text: str

    def __str__(self) -> str:
        return self.text


#: The verdict where there is no calibration.
UNCALIBRATED = Verdict("uncalibrated", "Not calibrated on this network: relume calibrate PHOTOS.")


#: What the probability that a result shows is about.
PREDICTION = "a probability tells how far to doubt the prediction, not its map"


def nothing(*, zero: bool, remark: str = "") -> Verdict:
    """Return the verdict on a map that is the same everywhere; if it is ``zero``, it is empty, and ``remark`` says why."""
    if not zero:
        return Verdict("nothing", "The map is the same everywhere: it shows nothing, and nothing can be read from it.")
    why = f" {remark[0].upper()}{remark[1:]}." if remark else ""
    return Verdict("nothing", f"This map is empty: there is nothing to believe or doubt.{why}")


def said(verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return each verdict once, after its level and the titles of the maps that have it."""
    titles: dict[Verdict, list[str]] = {}
    for title, verdict in verdicts.items():
        titles.setdefault(verdict, []).append(title)
    return [v.text if v == UNCALIBRATED else f"{', '.join(names)}: {LEVELS[v.level]}. {v}" for v, names in titles.items()]


def reference(calibration: Calibration) -> dict[str, str | int | None]:
    """Return what a result records of its calibration, as plain data."""
    c = calibration
    return {"fingerprint": c.fingerprint, "layer": c.layer, "mosaics": c.mosaics, "photos": c.photos, "grid": c.grid}


def verdicts_of(
    methods: Sequence[AnyMethod], calibration: Calibration | None, coverage: Coverage, layer: str | None
) -> dict[str, Verdict]:
    """Judge every map of ``methods`` by the coverage and the calibration, which are the same for all images."""
    verdicts: dict[str, Verdict] = {}
    for method in methods:
        for info in method.maps:
            verdicts[info.key] = UNCALIBRATED
            if calibration is not None:
                verdicts[info.key] = verdict_of(calibration, info, layer if method.needs_layer else None)
            if coverage.unguided and _is_guided(method.inner if isinstance(method, Wrapper) else method):
                verdicts[info.key] = unguided(coverage)
    return verdicts


def _is_guided(method: Method) -> bool:
    return any(rule is not gradient for _, rule in method.needs)


def unguided(coverage: Coverage) -> Verdict:
    """Return the verdict on a map of a rule that did not reach every rectifier."""
    total = coverage.guided + coverage.unguided
    return Verdict(
        "unguided",
        f"{coverage.unguided} of {total} rectifiers were not guided: where these run, the map follows the plain gradient.",
    )


def verdict_of(c: Calibration, info: MapInfo, layer: str | None = None) -> Verdict:
    """Return the verdict of a calibration on a map; if its method reads a layer, it must be the calibrated one."""
    title = info.title
    if info.key not in c.methods:
        return Verdict("uncalibrated", "This method is not in the calibration of this network: relume calibrate PHOTOS.")
    if layer is not None and layer != c.layer:
        return Verdict(
            "uncalibrated", f"Calibrated at layer {c.layer}, not at {layer}: relume calibrate PHOTOS --layer {layer}."
        )
    scores, edges, cells = c.methods[info.key], c.baselines["sobel_edges"].mass, c.grid**2
    if scores.note != info.note:
        return Verdict("uncalibrated", f"{title} was calibrated otherwise ({scores.note}; here {info.note}).")
    level, end = _level(scores, edges)
    few = " (few)" if c.mosaics < FEW else ""
    empty = f"; {scores.empty} of {c.photos} maps were empty" if scores.empty else ""
    return Verdict(
        level,
        f"On this network, in {c.mosaics} mosaics{few} of {c.photos} {c.pictures}, {title} put {scores.mass} of its map "
        f"on the right one of {NUMBERS.get(cells, cells)} (chance {1 / cells:.2f}; edges {edges.mean:.2f}); the heaviest cell "
        f"was right in {round(scores.heaviest.mean * c.photos)} of {c.photos}{empty}. {end}",
    )


def _level(scores: Scores, edges: Estimate) -> tuple[Level, str]:
    """Find the level of a method, and a sentence on what it means; an interval of NaN gives no better level than edges."""
    if scores.heaviest.low >= POINTS:
        return "points", "This speaks for the method on this network, not for this one map."
    if round(scores.mass.low, 2) > round(edges.high, 2):  # a difference that no figure of the sentence shows is none
        return "partly", "This speaks in part for the method on this network, and not for this one map."
    return "edges", "This speaks against the method on this network: it is no better than edges."


#: Counts of cells in words.
NUMBERS: Mapping[int, str] = {4: "four", 9: "nine"}
