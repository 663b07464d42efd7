"""The check of faithfulness: pixels are taken out in the map's order, and the score of the class is to fall.

It is to fall faster than where chance, or the edges of the image, say which pixels go first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from relume.auditing.checks.base import Check, Measure
from relume.auditing.checks.removal import Pixels, blurred, imputed, order, plain
from relume.auditing.drawing import ROLES, Chart, Curve, number
from relume.auditing.subject import Subject
from relume.engine.inputs import pick
from relume.engine.replica import replicate
from relume.measures.baselines import sobel
from relume.measures.similarity import Values
from relume.targets.activation import Quantity, activated
from relume.targets.outputs import class_scores

if TYPE_CHECKING:
    from relume.auditing.report import AuditReport

__all__ = ["CURVES", "FAITHFULNESS", "Faithfulness", "area", "measure_faithfulness"]

#: For each curve the shares of pixels at which it is taken.
CURVES: Mapping[str, Values] = MappingProxyType(
    {"deletion": np.linspace(0, 1, 33), "insertion": np.linspace(0, 1, 33), "road": np.linspace(0, 0.9, 10)}
)

#: The name of each curve, and of its horizontal axis.
TITLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "deletion": ("Deletion", "share of pixels set to the mean colour"),
        "insertion": ("Insertion", "share of pixels back in the blurred image"),
        "road": ("ROAD", "share of pixels filled from neighbours"),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Faithfulness:
    """The class's probability, or score, as pixels go, or come, in the order of the map, of chance, and of the image's edges.

    Attributes:
        curves: for each of :data:`CURVES` and each order (``method``, ``random``, ``edges``) the values ``(N, steps)``.
        gain: for each curve and each of ``random`` and ``edges``, the area between it and the method's, ``(N,)``: positive
            where the map knows better which pixels matter; NaN where it is the same everywhere, and has no order. In [-1, 1]
            for probabilities, in the unit of the score for scores.
        quantity: ``probability``, or ``score`` where the network has no probabilities.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_faithfulness
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = measure_faithfulness(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> list(result.curves), list(result.gain["road"]), result.quantity
        (['deletion', 'insertion', 'road'], ['random', 'edges'], 'score')
    """

    curves: Mapping[str, Mapping[str, Values]]
    gain: Mapping[str, Mapping[str, Values]]
    quantity: Quantity


def area(shares: Values, curve: Values) -> Values:
    """Return the mean height of curves ``(…, steps)`` over the shares ``(steps,)``, by the trapezoidal rule: Petsiuk et al."""
    mean: Values = np.trapezoid(curve, shares) / (shares[-1] - shares[0])
    return mean


def measure_faithfulness(subject: Subject) -> Faithfulness:
    """Take pixels out and put them in, in three orders, and record the score of the class.

    * *Deletion* (Petsiuk et al. 2018, arXiv:1806.07421): the first pixels become the image's mean colour.
    * *Insertion* (the same): the first pixels come back into a blurred image.
    * *ROAD* (Rong et al. 2022, arXiv:2202.00449): the first pixels are filled from their neighbours, so that their shape is
      not seen.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_faithfulness
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = measure_faithfulness(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> result.curves["road"]["method"].shape, result.gain["road"]["random"].shape
        ((2, 10), (2,))
    """
    network, generator, maps = replicate(subject.model), subject.generator(), subject.maps
    values: dict[str, dict[str, list[Values]]] = {kind: {} for kind in CURVES}
    for i in subject.progress("faithfulness", range(len(maps))):
        image = subject.images[i].detach().cpu().double().numpy()
        drawn = torch.rand(maps.saliency[i].shape, generator=generator).double().numpy()
        heats = {"method": np.nan_to_num(maps.saliency[i]), "random": drawn, "edges": sobel(image)}
        for name, heat in heats.items():
            first = order(heat, generator)
            for kind, shares in CURVES.items():
                images = (_perturbed(kind, image, first[: round(share * heat.size)], generator) for share in shares)
                values[kind].setdefault(name, []).append(_scores(network, subject, i, images))
    curves = {kind: {name: np.stack(rows) for name, rows in by.items()} for kind, by in values.items()}
    for by in curves.values():
        by["method"][maps.empty] = np.nan
    gain = {kind: _gain(kind, by) for kind, by in curves.items()}
    return Faithfulness(curves, gain, "score" if subject.classes is None else subject.explanation.quantity)


def _perturbed(kind: str, image: Values, pixels: Pixels, generator: torch.Generator) -> Values:
    """Take ``pixels`` out of the image, or put them into its blur."""
    if kind == "road":
        return imputed(image, pixels, generator)
    before, after = (image, plain(image)) if kind == "deletion" else (blurred(image), image)
    flat = before.reshape(len(image), -1).copy()
    flat[:, pixels] = after.reshape(len(image), -1)[:, pixels]
    return flat.reshape(image.shape)


@torch.no_grad()
def _scores(network: torch.nn.Module, subject: Subject, i: int, images: Iterable[Values]) -> Values:
    """Return the probability, or score, of the class of image ``i`` in each of ``images``."""
    remaining, outputs = iter(images), []
    while some := list(islice(remaining, subject.batch_size)):  # all of them at once may be more than memory holds
        outputs.append((pick(network(torch.from_numpy(np.stack(some)).to(subject.images)), subject.output), len(some)))
    if subject.classes is None:
        target = subject.target.rows(slice(i, i + 1))
        own = [(target.repeated(count) or target).scores(returned) for returned, count in outputs]
        of_target: Values = torch.cat(own).cpu().double().numpy()
        return of_target
    scores = torch.cat([class_scores(returned, count) for returned, count in outputs]).cpu().double()
    values: Values = activated(scores, subject.explanation.activation)[:, int(subject.classes[i])].numpy()
    return values


def _gain(kind: str, curves: Mapping[str, Values]) -> dict[str, Values]:
    """Return the area between the method's curve and each other: deletion is to fall faster, insertion to rise faster."""
    sign = 1 if kind == "insertion" else -1
    areas = {name: area(CURVES[kind], rows) for name, rows in curves.items()}
    return {name: sign * (areas["method"] - areas[name]) for name in areas if name != "method"}


def _draw(result: Faithfulness, _: AuditReport, i: int) -> list[Chart]:
    """Draw the three orders of each curve; scores of all charts have one scale."""
    charts = []
    scores = np.concatenate([rows[i] for by in result.curves.values() for rows in by.values()])
    low, high = (0.0, 1.0) if result.quantity == "probability" else _ends(scores)
    for kind, by in result.curves.items():
        title, x = TITLES[kind]
        gain = result.gain[kind]["random"][i]
        words = f"{number(gain)} over random order" if np.isfinite(gain) else "the map has no order"
        curves = [Curve(role, CURVES[kind], by[role][i]) for role in reversed([*ROLES])]
        charts.append(Chart(f"{title}: {words}", x, result.quantity, curves, low, high))
    return charts


def _ends(values: Values) -> tuple[float, float]:
    """Return round numbers between which all ``values`` lie."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    step = 10.0 ** math.floor(math.log10((high - low) or abs(high) or 1)) / 2
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return low, high if high > low else low + step


def _read(kind: str, over: str) -> Callable[[Faithfulness], Values]:
    return lambda result: result.gain[kind][over]


FAITHFULNESS = Check(
    "The pixels that the map points at",
    "How sure the network is of the class as pixels go, or come back, in three orders. A map that knows which pixels matter "
    "makes the curve fall sooner, or rise sooner, than a random order does.",
    measure_faithfulness,
    {
        "deletion": Measure(
            "deletion: gain over random order",
            "high",
            "How much sooner the class falls when pixels turn to the mean colour in the map's order.",
            _read("deletion", "random"),
        ),
        "insertion": Measure(
            "insertion: gain over random order",
            "high",
            "How much sooner the class rises as pixels come back into the blurred image.",
            _read("insertion", "random"),
        ),
        "road": Measure(
            "ROAD: gain over random order",
            "high",
            "The same as deletion, with pixels filled from their neighbours, so that their shape is not seen.",
            _read("road", "random"),
        ),
        "road_edges": Measure(
            "ROAD: gain over order of edges",
            "high",
            "The same against the order of the image's edges.",
            _read("road", "edges"),
        ),
    },
    _draw,
    citation="Petsiuk et al. 2018, arXiv:1806.07421; Rong et al. 2022, arXiv:2202.00449",
)
