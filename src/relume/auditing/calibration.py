"""The origin of the verdict's limits: ``python -m relume.auditing.calibration``.

On scenes of the demo world it is known what each map shows. The limits are chosen on half of the scenes; how well they, and
each measure alone, separate maps that localise from maps that do not is measured on the other half.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from scipy import stats
from torch import Tensor

from relume.auditing.checks.base import Measure
from relume.auditing.checks.randomisation import randomise
from relume.auditing.checks.table import CHECKS, limits_of, measures_of, run_checks
from relume.auditing.subject import Subject
from relume.auditing.verdict import margin
from relume.demo.network import load_network
from relume.evaluation import Sample, open_samples
from relume.measures.localisation import Truth, share
from relume.methods.base import METHODS, Method
from relume.methods.gradients import Gradients
from relume.models.sources import open_model
from relume.rules import gradient

__all__ = ["LOCALISES", "Case", "auc", "cases", "halfway", "youden"]

#: A map localises if so much of what falls on things falls on those of its class: half-way between the two heaps that
#: docs/comparison.md found, Grad-CAM and Guided Grad-CAM at 0.96 and more, the others at 0.75 and less.
LOCALISES = 0.9

#: The checks that are made: faithfulness takes minutes, and the verdict does not rest on it.
MADE = {key: CHECKS[key] for key in ("classes", "edges", "stability")} | {
    "randomisation": dataclasses.replace(CHECKS["randomisation"], make=functools.partial(randomise, alone=False))
}

#: The methods that are audited: of the class activation maps one, since several of them are the same map on this network.
CALIBRATED = ("gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam")


def _noise(gradients: Gradients) -> Tensor:
    return torch.randn_like(gradients.inputs[gradient])


#: A method that answers anything with noise, which no audit may believe.
NOISE = Method("noise", frozenset({("input", gradient)}), _noise)


@dataclass(frozen=True, slots=True)
class Case:
    """One map: the method, the number of its scene, whether it ``localises``, and the measures of its audit."""

    method: str
    scene: int
    localises: bool
    measures: Mapping[str, float]


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Return the area under the ROC curve: the chance that a good one's value is higher than a bad one's, ties half.

    Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    return float(stats.mannwhitneyu(good, bad).statistic) / (len(good) * len(bad))


def youden(good: Sequence[float], bad: Sequence[float]) -> float:
    """Return the value that best has good ones below and bad ones above: the highest ``sensitivity + specificity - 1``.

    Youden 1950. It lies half-way between two of the values.
    """
    values = np.unique([*good, *bad])
    cuts = (values[1:] + values[:-1]) / 2
    return float(max(cuts, key=lambda cut: np.mean(np.less(good, cut)) - np.mean(np.less(bad, cut))))


def halfway(high: Sequence[float], low: Sequence[float]) -> float:
    """Return the value half-way between the lowest of ``high`` and the highest of ``low``."""
    return (min(high) + max(low)) / 2


def cases(samples: Sequence[Sample], *, seed: int = 0) -> list[Case]:
    """Audit every method, and noise, on each sample's most probable class, and compare with the truth."""
    network, images = load_network(), torch.stack([sample.image for sample in samples])
    audited: list[Case] = []
    for method in (*(METHODS[key] for key in CALIBRATED), NOISE):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            subject = Subject.of(network, images, method=method, activation="sigmoid", seed=seed)
            results, _ = run_checks(subject, MADE)
        measures = {key: m.read(results[name]) for name, check in MADE.items() for key, m in check.measures.items()}
        for i, sample in enumerate(samples):
            assert subject.classes is not None, "predicted classes are audited"
            target = sample.targets.get(int(subject.classes[i]))
            if target is not None and not subject.maps.empty[i]:
                truth = Truth(target, sample.things)
                right = share(subject.maps.saliency[i], truth.target, truth.things)
                values = {key: float(v[i]) for key, v in measures.items()}
                audited.append(Case(method.key, i, right >= LOCALISES, values))
    return audited


def limits(fitted: Sequence[Case]) -> dict[str, Measure]:
    """Choose limits by these cases: those of stability half-way to noise, the others by Youden's index."""
    real, noise = [c for c in fitted if c.method != NOISE.key], [c for c in fitted if c.method == NOISE.key]
    values = {key: halfway(_split(real, key)[0], [c.measures[key] for c in noise]) for key in ("stability", "shift")}
    values |= {key: youden(*_split(real, key)) for key in ("classes", "cascade")}
    measures = measures_of(MADE)
    chosen = {key: dataclasses.replace(limit, value=values[key]) for key, limit in limits_of(measures).items()}
    return {key: dataclasses.replace(measures[key], limit=limit) for key, limit in chosen.items()}


def _split(audited: Sequence[Case], key: str) -> tuple[list[float], list[float]]:
    """Return a measure where it is defined: of the cases that localise, and of the others."""
    known = [c for c in audited if not np.isnan(c.measures[key])]
    return [c.measures[key] for c in known if c.localises], [c.measures[key] for c in known if not c.localises]


def main(
    scenes: Annotated[int, typer.Option(min=4, help="How many held-out scenes, half to choose, half to measure.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random; its millions are the scenes' seeds.")] = 3,
) -> None:
    """Choose the limits of the verdict, and print how well they separate maps that localise from maps that do not."""
    out = Console(highlight=False, soft_wrap=True)
    samples = [load() for load in open_samples(f"scenes:{scenes}", open_model("demo"), seed)]
    audited, measures = cases(samples, seed=seed), measures_of(MADE)
    fitted, held = ([c for c in audited if c.scene % 2 == half] for half in (0, 1))
    chosen = limits(fitted)
    for key, limit in limits_of(measures).items():
        out.print(f"{key}: limit {limits_of(chosen)[key].value:.2f}, in the package {limit.value:.2f}")
    held = [dataclasses.replace(c, measures={**c.measures, "margin": margin(c.measures, chosen)}) for c in held]
    out.print(f"\n{len(held)} maps held out, {sum(c.localises for c in held)} of them localise\n")
    out.print("| measure | AUC | without noise |\n|---|---|---|")
    for key in ("margin", *measures):
        sign = 1 if key == "margin" or measures[key].better == "high" else -1
        pairs = (_split([c for c in held if c.method != left_out], key) for left_out in ("", NOISE.key))
        out.print(
            f"| {key} | {' | '.join(f'{auc([sign * v for v in good], [sign * v for v in bad]):.2f}' for good, bad in pairs)} |"
        )
    out.print("\n| method | localise | verdict: about the class |\n|---|---|---|")
    for method in (*CALIBRATED, NOISE.key):
        own = [c for c in held if c.method == method]
        positive = sum(c.measures["margin"] >= 0 for c in own)
        out.print(f"| {method} | {sum(c.localises for c in own)} of {len(own)} | {positive} |")


if __name__ == "__main__":
    typer.run(main)
