"""The evaluation of methods on images whose truth is known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
import torch

from relume.engine.inputs import Model
from relume.errors import ImageError, InputError, ModelError, NonFiniteError
from relume.evaluation.report import COLUMNS, Evaluation
from relume.evaluation.samples import Loader, Sample
from relume.evaluation.sources import open_samples
from relume.explanation.comparison import compare
from relume.explanation.request import Layers, ReadingOptions, with_options
from relume.explanation.result import Explanation
from relume.measures.baselines import BASELINES
from relume.measures.localisation import MEASURES, Map, Truth, measure, rank_correlation
from relume.measures.statistics import Estimate, estimate, mean_of_defined
from relume.methods.base import METHODS
from relume.methods.gradients import Fuse
from relume.methods.wrapper import MethodLike, resolve_methods
from relume.models.opened import Opened

__all__ = ["Skip", "evaluate", "skip_unusable"]

#: A function of a sample (None if it could not be loaded) and its error: the reason to report, or None to raise the error.
Skip: TypeAlias = Callable[[Sample | None, Exception], str | None]


class EvaluationOptions(ReadingOptions, total=False):
    """The options of an evaluation, described in :func:`relume.explain`."""

    fuse: Fuse


def skip_unusable(_: Sample | None, error: Exception) -> str | None:
    """Skip an image that cannot be read, and one that overflows; raise all else."""
    return str(error) if isinstance(error, NonFiniteError | ImageError) else None


@with_options(EvaluationOptions)
def evaluate(
    model: Model | Opened,
    samples: str | Path | Iterable[Sample | Loader] = "scenes",
    methods: Iterable[MethodLike] | None = None,
    layer: Layers = None,
    *,
    seed: int = 0,
    skip: Skip = skip_unusable,
    provenance: Mapping[str, Any] | None = None,
    **options: Unpack[EvaluationOptions],
) -> Evaluation:
    """Measure methods' maps against ground truth, beside baselines that know nothing and the truth itself, blurred.

    One forward pass for each image, one backward pass for each rule and class. The same arguments give the same measures.

    Args:
        model: a network, or what :func:`relume.open_model` returns.
        samples: a spec as for :func:`relume.evaluation.open_samples`, ``scenes:100`` or a folder of photos with masks, which
            needs an opened model; or :class:`relume.evaluation.Sample` objects, or functions that load one each; if one
            fails, the others are still evaluated.
        methods: keys of :data:`relume.METHODS`, :class:`relume.Method` objects, or wrappers, whose every map is measured; all
            registered methods if None.
        layer: Grad-CAM's target layer, as for :func:`relume.explain`.
        seed: seeds the random baseline and the bootstrap, and tells which scenes are drawn.
        skip: is given a sample that could not be explained, None if it could not be loaded, and the error; it returns the
            reason to list in :attr:`relume.evaluation.Evaluation.skipped`, or None to raise the error. Without it, images that
            cannot be read or that overflow are skipped.
        provenance: further provenance, as plain data.
        options: as for :func:`relume.explain`; of an opened model, ``output`` is its own.

    Raises:
        InputError: there is nothing to evaluate; or as :func:`relume.explain`.
        ModelError: an opened model has more or fewer labels than classes.

    Example:
        >>> import relume
        >>> opened = relume.open_model("demo")
        >>> evaluation = relume.evaluate(opened, "scenes:2", ["guided_backprop", relume.Smooth("gradient", samples=2)])
        >>> evaluation.methods
        ('guided_backprop', 'smooth_gradient', 'vargrad_gradient')
        >>> evaluation.rows["guided_backprop"]["mass_accuracy"].count
        2
    """
    if seed < 0:
        raise InputError(f"a seed is a number not below zero; got {seed}")
    resolved = resolve_methods(list(METHODS) if methods is None else methods)
    titles = {info.key: info.title for method in resolved for info in method.maps}
    if taken := [key for key in titles if key in BASELINES]:
        raise InputError(f"{taken[0]!r} is the key of a baseline that methods are compared with; give the method another")
    opened = model if isinstance(model, Opened) else None
    origin: dict[str, Any] = {"seed": seed, **({} if opened is None else opened.provenance)}
    if isinstance(samples, str | Path):
        if opened is None:
            raise InputError(f"the samples {str(samples)!r} are prepared for a network; give what relume.open_model returns")
        origin["data"], samples = str(samples), open_samples(samples, opened, seed)
    tally, skipped = _Tally(seed), list[str]()
    for item in samples:
        sample = None
        try:
            sample = item if isinstance(item, Sample) else item()
            explanations = _explain(model, sample, resolved, layer, options)
        except Exception as error:
            reason = skip(sample, error)
            if reason is None:
                raise
            skipped.append(reason if sample is None else f"{sample.name!r}: {reason}")
        else:
            _check_labels(opened, explanations[0])
            tally.add(sample, explanations)
    if not tally.samples:
        raise InputError("; ".join(skipped) or "there is no image to evaluate on; give at least one sample")
    versions = {"relume": version("relume"), "torch": torch.__version__}
    return Evaluation(
        rows=tally.rows(),
        titles={**titles, **{key: baseline.title for key, baseline in BASELINES.items()}},
        methods=tuple(titles),
        samples=tally.samples,
        targets=tally.targets,
        empty=dict(tally.empty),
        skipped=tuple(skipped),
        provenance={**origin, "layer": tally.layer, "versions": versions, **(provenance or {})},
    )


def _explain(
    model: Model | Opened, sample: Sample, methods: Sequence[MethodLike], layer: Layers, options: EvaluationOptions
) -> Sequence[Explanation]:
    """Explain every class of a sample from one forward pass."""
    if isinstance(model, Opened):
        options = {"output": model.output, **options}
        model = model.model
    return compare(model, sample.image[None], list(sample.targets), methods, layer, evidence=None, **options)


def _check_labels(opened: Opened | None, e: Explanation) -> None:
    if opened is not None and opened.labels is not None and e.scores.ndim == 2 and len(opened.labels) != e.scores.shape[1]:
        raise ModelError(
            f"{len(opened.labels)} labels were given for a network of {e.scores.shape[1]} classes; give one line for each"
        )


class _Tally:
    """The measures of each row's maps, image after image."""

    def __init__(self, seed: int) -> None:
        """Begin with no image; ``seed`` is that of random baselines and of the bootstrap."""
        self.samples, self.targets = 0, 0
        self.layer: str | None = None
        self.empty: Counter[str] = Counter()
        self._seed, self._rng = seed, np.random.default_rng(seed)
        self._scores: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, sample: Sample, explanations: Sequence[Explanation]) -> None:
        """Measure the maps of one image, by methods and baselines."""
        truths = [Truth(mask, sample.things) for mask in sample.targets.values()]
        self.samples, self.targets, self.layer = self.samples + 1, self.targets + len(truths), explanations[0].layer
        image = sample.image.float().cpu().numpy()
        maps = {m: [e.saliency(m)[0].cpu().double().numpy() for e in explanations] for m in explanations[0].maps}
        maps |= {key: [baseline.draw(image, truth, self._rng) for truth in truths] for key, baseline in BASELINES.items()}
        for name, heats in maps.items():
            self.empty[name] += sum(not heat.any() for heat in heats)
            for key, value in _measure(heats, truths).items():
                self._scores[name][key].append(value)

    def rows(self) -> dict[str, dict[str, Estimate]]:
        """Estimate every measure of every row."""
        return {name: {key: estimate(measures[key], self._seed) for key in COLUMNS} for name, measures in self._scores.items()}


def _measure(heats: Sequence[Map], truths: Sequence[Truth]) -> dict[str, float]:
    """Compute each measure of one image's maps by one method, averaged over its classes, or pairs of classes."""
    measures = [measure(heat, truth) for heat, truth in zip(heats, truths, strict=True)]
    means = {key: mean_of_defined([m[key] for m in measures]) for key in MEASURES}
    return means | {"class_correlation": mean_of_defined([rank_correlation(a, b) for a, b in combinations(heats, 2)])}
