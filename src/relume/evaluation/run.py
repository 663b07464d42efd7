"""The comparison of methods against ground truth, over scenes or a user's own pictures with masks."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from relume.engine.inputs import Output
from relume.errors import InputError, NonFiniteError
from relume.evaluation import table as estimates
from relume.evaluation.table import Column, Rows
from relume.explanation.comparison import compare
from relume.explanation.result import Explanation
from relume.measures.baselines import BASELINES, REFERENCE, TITLES
from relume.measures.localisation import MEASURES, Map, Mask, Truth, measure, rank_correlation
from relume.measures.statistics import Estimate, estimate
from relume.methods.base import METHODS, method_title
from relume.methods.wrapper import MethodLike, resolve_methods
from relume.pages.folder import write_folder
from relume.pictures.figure import figure_bytes
from relume.text import encoded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLUMNS", "Evaluation", "Sample", "evaluate"]

COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        **{key: Column(m.title, m.better) for key, m in MEASURES.items()},
        "class_correlation": Column("correlation between classes", "low"),
    }
)

#: The columns by what they are about.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Class discrimination": ("mass_accuracy", "rank_accuracy", "right_thing", "class_correlation"),
        "Resolution": ("correlation_length", "boundary", "within"),
        "Noise and pointing": ("noise", "local_noise", "pointing", "pointing_tolerant"),
    }
)

#: A bootstrap of fewer pictures than these is no confidence interval.
FEW = 10


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture with its truth.

    Attributes:
        name: what it is called.
        image: the network's input, ``(C, H, W)``.
        targets: for each class to explain, where it is, ``(H, W)``.
        things: where anything is, ``(H, W)``.

    Raises:
        InputError: no class to explain, or a mask of another size than the image, or an empty one.
    """

    name: str
    image: Tensor
    targets: Mapping[int, Mask]
    things: Mask

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError(f"the sample {self.name!r} has no class to explain; give at least one")
        # of integers, a mask would pick rows instead of pixels
        object.__setattr__(self, "targets", {index: np.asarray(mask).astype(bool) for index, mask in self.targets.items()})
        object.__setattr__(self, "things", np.asarray(self.things).astype(bool))
        size = tuple(self.image.shape[1:])
        for mask in (*self.targets.values(), self.things):
            if mask.shape != size or not mask.any():
                seen = f"shape {mask.shape}" if mask.shape != size else "no pixel"
                raise InputError(f"a mask of the sample {self.name!r} has {seen}, and the image is {size}; give one that fits")


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How well each method's maps show what is there.

    Attributes:
        methods: the keys of the methods.
        rows: by the key of each method, baseline and the blurred mask, an estimate for each of :data:`COLUMNS`.
        empty: how many maps of each row were zero everywhere and so are in no average.
        pictures: how many pictures were explained.
        targets: how many classes of them, in all.
        skipped: which pictures could not be explained, and why.
        facts: where this comes from, as plain data.
    """

    methods: tuple[str, ...]
    rows: Rows
    empty: Mapping[str, int]
    pictures: int
    targets: int
    skipped: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def title(self, key: str) -> str:
        """Return what tables call a row."""
        return method_title(key) if key in self.methods else TITLES[key]

    @property
    def _titled(self) -> dict[str, Mapping[str, Estimate]]:
        return {self.title(key): row for key, row in self.rows.items()}

    @property
    def groups(self) -> dict[str, dict[str, Column]]:
        """The columns by what they are about."""
        return {group: {key: COLUMNS[key] for key in keys} for group, keys in GROUPS.items()}

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know, in sentences."""
        about = "; ".join(
            f"{key} {self.facts[key]}" for key in ("model", "weights", "layer", "data", "seed") if self.facts.get(key)
        )
        pictures, classes = _counted(self.pictures, "picture"), _counted(self.targets, "class", "es")
        reference = TITLES[REFERENCE[0]].capitalize()
        notes = [
            f"{pictures}, {classes} explained; means over pictures, bootstrap 95 % intervals.",
            *([f"{about[0].upper()}{about[1:]}."] if about else []),
            f"{reference}: the truth, as coarse as a Grad-CAM, for comparison. Arrows say what is better.",
        ]
        if self.pictures < FEW:
            notes.append(f"Intervals from fewer than {FEW} pictures are too narrow: take them as the spread of what was seen.")
        for key, count in self.empty.items():
            if count:
                notes.append(f"Zero everywhere and left out: {count} of {self.targets} maps by {self.title(key)}.")
        return notes

    def markdown(self) -> str:
        """The tables, in Markdown."""
        tables = (f"### {group}\n\n{estimates.markdown(self._titled, columns)}\n" for group, columns in self.groups.items())
        return "".join(tables) + "".join(f"* {note}\n" for note in self.notes)

    def figure(self) -> Figure:
        """The figures with their intervals as a matplotlib figure."""
        return estimates.figure(self._titled, self.groups, [self.title(m) for m in self.methods], " ".join(self.notes))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; what is undefined is null."""
        figures = {
            method: {
                key: {"mean": _or_none(e.mean), "low": _or_none(e.low), "high": _or_none(e.high), "pictures": e.count}
                for key, e in row.items()
            }
            for method, row in self.rows.items()
        }
        return {
            "pictures": self.pictures,
            "targets": self.targets,
            "skipped": list(self.skipped),
            "methods": list(self.methods),
            "names": {key: self.title(key) for key in self.rows},
            "figures": figures,
            "empty_maps": dict(self.empty),
            **self.facts,
            "versions": {"relume": version("relume"), "torch": torch.__version__},
        }

    def save(self, directory: str | Path) -> Path:
        """Write ``evaluation.json``, ``.md`` and ``.png`` into ``directory``, all or nothing, and return it.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
        """
        files = {
            "evaluation.json": encoded(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"),
            "evaluation.md": encoded(self.markdown()),
            "evaluation.png": figure_bytes(self.figure()),
        }
        return write_folder(Path(directory), files)


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count} {what}{plural if count != 1 else ''}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _unless_finite(_: Sample, error: Exception) -> str | None:
    return str(error) if isinstance(error, NonFiniteError) else None


def evaluate(
    model: nn.Module,
    samples: Iterable[Sample],
    methods: Iterable[MethodLike] = tuple(METHODS),
    layer: nn.Module | str | None = None,
    *,
    output: Output = None,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    skip: Callable[[Sample, Exception], str | None] = _unless_finite,
) -> Evaluation:
    """Compare methods on pictures whose truth is known, beside baselines that know nothing and the truth itself, blurred.

    One forward pass for each picture, one backward pass for each rule and class. The same arguments give the same figures.

    Args:
        model: the network.
        samples: pictures with masks; of each, every class in ``targets`` is explained.
        methods: keys of :data:`relume.METHODS`, :class:`~relume.Method` objects, or wrappers of either.
        layer: Grad-CAM's target layer, as for :func:`relume.explain`.
        output: which part of what the network returns holds the scores, as for :func:`relume.explain`.
        seed: of the random baseline and the bootstrap.
        facts: further provenance, as plain data.
        skip: told of a picture that could not be explained, and of the error, gives the reason that is said in ``skipped``; or
            None, by which the error is raised. By default pictures in which something is not finite are skipped.

    Raises:
        InputError: there is nothing to evaluate; or as :func:`relume.explain`.
    """
    if seed < 0:
        raise InputError(f"a seed is a number not below zero; got {seed}")
    asked, rng = resolve_methods(methods), np.random.default_rng(seed)
    keys = [info.key for method in asked for info in method.maps]
    if taken := [key for key in keys if key in TITLES]:
        raise InputError(f"{taken[0]!r} is the key of a baseline that methods are compared with; give the method another")
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    empty: Counter[str] = Counter()
    pictures, targets, read = 0, 0, None
    skipped: list[str] = []
    for sample in samples:
        try:
            explained = compare(model, sample.image[None], list(sample.targets), asked, layer, output=output, evidence=None)
        except Exception as error:
            if (reason := skip(sample, error)) is None:
                raise
            skipped.append(f"{sample.name!r}: {reason}")
            continue
        pictures, targets = pictures + 1, targets + len(sample.targets)
        truths = [Truth(mask, sample.things) for mask in sample.targets.values()]
        read = explained[0].layer
        for name, maps in _maps(explained, sample, truths, rng).items():
            empty[name] += sum(not heat.any() for heat in maps)
            for key, value in _score(maps, truths).items():
                scores[name][key].append(value)
    if not pictures:
        raise InputError("; ".join(skipped) or "there is no picture to evaluate; give at least one")
    rows = {name: {key: estimate(values[key], seed) for key in COLUMNS} for name, values in scores.items()}
    return Evaluation(
        tuple(keys),
        rows,
        dict(empty),
        pictures,
        targets,
        tuple(skipped),
        {"seed": seed, "layer": read, **(facts or {})},
    )


def _maps(
    explained: Sequence[Explanation], sample: Sample, truths: Sequence[Truth], rng: np.random.Generator
) -> dict[str, list[Map]]:
    """The saliency of every class of one picture, by the key of its row."""
    image = sample.image.float().cpu().numpy()
    maps = {m: [e.saliency(m)[0].cpu().double().numpy() for e in explained] for m in explained[0].maps}
    maps |= {name: [baseline(image, rng) for _ in truths] for name, baseline in BASELINES.items()}
    return maps | {REFERENCE[0]: [REFERENCE[1](truth) for truth in truths]}


def _score(maps: Sequence[Map], truths: Sequence[Truth]) -> dict[str, float]:
    """Each measure of one picture's maps by one method, averaged over its classes, or pairs of classes."""
    measured = [measure(heat, truth) for heat, truth in zip(maps, truths, strict=True)]
    scores = {key: _mean([m[key] for m in measured]) for key in MEASURES}
    return scores | {"class_correlation": _mean([rank_correlation(a, b) for a, b in combinations(maps, 2)])}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return sum(defined) / len(defined) if defined else np.nan
