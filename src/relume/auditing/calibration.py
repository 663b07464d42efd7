"""Where the limits of the verdict come from: ``python -m relume.auditing.calibration``.

On scenes of the demo world it is known what each map shows. The limits are chosen on half of the scenes; how well they, and
each figure alone, separate maps that localise from maps that do not is measured on the other half.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from scipy import stats
from torch import Tensor

from relume.auditing.checks.table import FIGURES, run_checks
from relume.auditing.subject import Question
from relume.auditing.verdict import LIMITS, Limit, margin
from relume.demo.network import load_network
from relume.evaluation.run import Sample
from relume.evaluation.samples import scene_samples
from relume.measures.localisation import Truth, share
from relume.measures.similarity import Values
from relume.methods.base import METHODS, Method
from relume.methods.gradients import Gradients
from relume.models.sources import open_model
from relume.rules import gradient

__all__ = ["LOCALISES", "Case", "auc", "cases", "halfway", "youden"]

#: A map localises if so much of what falls on things falls on those of its class: half-way between the two heaps that
#: docs/comparison.md found, Grad-CAM and Guided Grad-CAM at 0.96 and more, the others at 0.75 and less.
LOCALISES = 0.9

#: Faithfulness takes minutes, and the verdict does not rest on it.
MADE = ("edges", "classes", "stability", "randomisation")


def _noise(found: Gradients) -> Tensor:
    return torch.randn_like(found.inputs[gradient])


#: A method that answers anything with noise: what no audit may believe.
NOISE = Method("noise", frozenset({("input", gradient)}), _noise)


@dataclass(frozen=True, slots=True)
class Case:
    """One map: the method, the number of its scene, whether it ``localises``, and the figures of its audit."""

    method: str
    scene: int
    localises: bool
    figures: Mapping[str, float]


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """The chance that a good one's value is higher than a bad one's, ties half: the area under the ROC curve.

    Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    return float(stats.mannwhitneyu(good, bad).statistic) / (len(good) * len(bad))


def youden(good: Sequence[float], bad: Sequence[float]) -> float:
    """The value that best has good ones below it and bad ones above: the cut of the highest ``sensitivity + specificity - 1``.

    Youden 1950. It lies half-way between two of the values.
    """
    values = np.unique([*good, *bad])
    cuts = (values[1:] + values[:-1]) / 2
    return float(max(cuts, key=lambda cut: np.mean(np.less(good, cut)) - np.mean(np.less(bad, cut))))


def halfway(high: Sequence[float], low: Sequence[float]) -> float:
    """Half-way between the lowest of what is to be high and the highest of what is to be low."""
    return (min(high) + max(low)) / 2


def cases(samples: Sequence[Sample], *, seed: int = 0) -> list[Case]:
    """The audit of every method, and of noise, on each sample's most probable class, beside the truth."""
    network, images = load_network(), torch.stack([sample.image for sample in samples])
    found: list[Case] = []
    for method in (*METHODS.values(), NOISE):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            question, answer = Question.ask(network, images, method, activation="sigmoid")
            checks = run_checks(question, answer, MADE, seed=seed, alone=False)
        figures: dict[str, Values] = {k: f.of(getattr(checks, f.check)) for k, f in FIGURES.items() if f.check in MADE}
        for i, sample in enumerate(samples):
            target = sample.targets.get(int(question.classes[i]))
            if target is not None and not checks.original.empty[i]:
                truth = Truth(target, sample.things)
                right = share(checks.original.saliency[i], truth.target, truth.things)
                found.append(Case(method.key, i, right >= LOCALISES, {k: float(v[i]) for k, v in figures.items()}))
    return found


def limits(fitted: Sequence[Case]) -> dict[str, Limit]:
    """The limits that these cases suggest: those of stability half-way to noise, the others by Youden's index."""
    real, noise = [c for c in fitted if c.method != NOISE.key], [c for c in fitted if c.method == NOISE.key]
    steady = {key: halfway(_split(real, key)[0], [c.figures[key] for c in noise]) for key in ("stability", "shift")}
    telling = {key: youden(*_split(real, key)) for key in ("classes", "cascade")}
    return {k: Limit(v, "high") for k, v in steady.items()} | {k: Limit(v, "low") for k, v in telling.items()}


def _split(of: Sequence[Case], key: str) -> tuple[list[float], list[float]]:
    """A figure where it is defined: of the cases that localise, and of the others."""
    known = [c for c in of if not np.isnan(c.figures[key])]
    return [c.figures[key] for c in known if c.localises], [c.figures[key] for c in known if not c.localises]


def main(
    scenes: Annotated[int, typer.Option(min=4, help="How many held-out scenes, half to choose, half to measure.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random; its millions are the scenes' seeds.")] = 3,
) -> None:
    """Choose the limits of the verdict, and say how well they separate maps that localise from maps that do not."""
    out = Console(highlight=False, soft_wrap=True)
    samples = [load() for load in itertools.islice(scene_samples(scenes, seed, open_model("demo", "cpu")), scenes)]
    found = cases(samples, seed=seed)
    fitted, held = ([c for c in found if c.scene % 2 == half] for half in (0, 1))
    chosen = limits(fitted)
    for key, limit in chosen.items():
        out.print(f"{key}: limit {limit.value:.2f}, in the package {LIMITS[key].value:.2f}")
    held = [dataclasses.replace(c, figures={**c.figures, "margin": margin(c.figures, chosen)}) for c in held]
    out.print(f"\n{len(held)} maps held out, {sum(c.localises for c in held)} of them localise\n")
    out.print("| figure | AUC | without noise |\n|---|---|---|")
    for key in ("margin", *(key for key in FIGURES if key in found[0].figures)):
        sign = 1 if key == "margin" or FIGURES[key].better == "high" else -1
        pairs = (_split([c for c in held if c.method != left_out], key) for left_out in ("", NOISE.key))
        out.print(
            f"| {key} | {' | '.join(f'{auc([sign * v for v in good], [sign * v for v in bad]):.2f}' for good, bad in pairs)} |"
        )
    out.print("\n| method | localise | verdict: about the class |\n|---|---|---|")
    for method in (*METHODS, NOISE.key):
        of = [c for c in held if c.method == method]
        out.print(f"| {method} | {sum(c.localises for c in of)} of {len(of)} | {sum(c.figures['margin'] >= 0 for c in of)} |")


if __name__ == "__main__":
    typer.run(main)
