"""Does the network need what the map points at? Pixels are taken out in its order, and the class is to fall.

It is to fall faster than where chance, or the picture's edges, say what goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from relume.auditing.checks.removal import Pixels, blurred, imputed, order, plain
from relume.auditing.subject import Question, parts
from relume.engine.inputs import pick
from relume.engine.replica import replicate
from relume.measures.baselines import sobel
from relume.measures.similarity import Maps, Values
from relume.targets.activation import Quantity, Resolved, activated
from relume.targets.outputs import class_scores

__all__ = ["CURVES", "Faithfulness", "area", "measure_faithfulness"]

#: For each curve the shares of pixels at which it is taken.
CURVES: Mapping[str, Values] = MappingProxyType(
    {"deletion": np.linspace(0, 1, 33), "insertion": np.linspace(0, 1, 33), "road": np.linspace(0, 0.9, 10)}
)


@dataclass(frozen=True, slots=True, eq=False)
class Faithfulness:
    """The class's probability, or score, as pixels go, or come, in the order of the map, of chance, and of the picture's edges.

    Attributes:
        curves: for each of :data:`CURVES` and each order (``method``, ``random``, ``edges``) the values ``(N, steps)``.
        gain: for each curve and each of ``random`` and ``edges``, the area between it and the method's, ``(N,)``: positive
            where the map knows better which pixels matter; NaN where it is the same everywhere, and has no order. In [-1, 1]
            for probabilities, in the unit of the score for scores.
        quantity: what the curves are of: ``probability``, or ``score`` where the network has no probabilities.
    """

    curves: Mapping[str, Mapping[str, Values]]
    gain: Mapping[str, Mapping[str, Values]]
    quantity: Quantity


def area(shares: Values, curve: Values) -> Values:
    """The mean height of curves ``(…, steps)`` over the shares ``(steps,)``, by the trapezoidal rule: Petsiuk et al. 2018."""
    mean: Values = np.trapezoid(curve, shares) / (shares[-1] - shares[0])
    return mean


def measure_faithfulness(
    question: Question,
    original: Maps,
    generator: torch.Generator,
    activation: Resolved = "none",
    quantity: Quantity = "score",
    watched: Callable[[Sequence[int]], Iterable[int]] = lambda pictures: pictures,
) -> Faithfulness:
    """Take pixels out and put them in, in three orders, and see what the network says: one forward pass for each batch.

    * *Deletion* (Petsiuk et al. 2018, arXiv:1806.07421): the first pixels become the picture's mean colour.
    * *Insertion* (the same): the first pixels come back into a blurred picture.
    * *ROAD* (Rong et al. 2022, arXiv:2202.00449): the first pixels are imputed from their neighbours, so that their shape is
      not seen.

    Args:
        question: the method, network and pictures.
        original: their maps.
        generator: of the random order, of the order of ties and of the noise.
        activation: what makes probabilities of the network's scores.
        quantity: what it makes, as :attr:`relume.Explanation.quantity` has it.
        watched: may look on as the pictures go by.
    """
    network = replicate(question.model)
    found: dict[str, dict[str, list[Values]]] = {kind: {} for kind in CURVES}
    for i in watched(range(len(original))):
        image = question.images[i].detach().cpu().double().numpy()
        drawn = torch.rand(original.saliency[i].shape, generator=generator).double().numpy()
        heats = {"method": np.nan_to_num(original.saliency[i]), "random": drawn, "edges": sobel(image)}
        for name, heat in heats.items():
            first = order(heat, generator)
            for kind, shares in CURVES.items():
                pictures = (_perturbed(kind, image, first[: round(share * heat.size)], generator) for share in shares)
                found[kind].setdefault(name, []).append(_watch(network, question, i, pictures, activation))
    curves = {kind: {name: np.stack(rows) for name, rows in by.items()} for kind, by in found.items()}
    for by in curves.values():
        by["method"][original.empty] = np.nan
    return Faithfulness(curves, {kind: _gain(kind, by) for kind, by in curves.items()}, quantity)


def _perturbed(kind: str, image: Values, pixels: Pixels, generator: torch.Generator) -> Values:
    """The picture with ``pixels`` taken out, or put into its blur."""
    if kind == "road":
        return imputed(image, pixels, generator)
    before, after = (image, plain(image)) if kind == "deletion" else (blurred(image), image)
    flat = before.reshape(len(image), -1).copy()
    flat[:, pixels] = after.reshape(len(image), -1)[:, pixels]
    return flat.reshape(image.shape)


@torch.no_grad()
def _watch(network: torch.nn.Module, question: Question, i: int, pictures: Iterable[Values], activation: Resolved) -> Values:
    """The probability, or score, of picture ``i``'s class in each of ``pictures``."""
    inputs = torch.from_numpy(np.stack(list(pictures))).to(question.images)
    found = [class_scores(pick(network(part), question.output), len(part)) for part in parts(inputs, question.batch)]
    values: Values = activated(torch.cat(found).cpu().double(), activation)[:, int(question.classes[i])].numpy()
    return values


def _gain(kind: str, curves: Mapping[str, Values]) -> dict[str, Values]:
    """The area between the method's curve and each other: what falls is to fall faster, what rises to rise faster."""
    sign = 1 if kind == "insertion" else -1
    areas = {name: area(CURVES[kind], rows) for name, rows in curves.items()}
    return {name: sign * (areas["method"] - areas[name]) for name in areas if name != "method"}
