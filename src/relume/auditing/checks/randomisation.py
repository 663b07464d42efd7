"""The check of randomisation: the network's weights are exchanged for random ones, and the map is to change with them.

Adebayo et al. 2018, arXiv:1810.03292: *Sanity checks for saliency maps*, section 3. The random weights are those of a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from relume.auditing.checks.base import Check, Measure
from relume.auditing.checks.random_weights import own_copy, randomise_layer, restore, weight_layers
from relume.auditing.drawing import Chart, Curve, Strip, Tile, heat, similarity
from relume.auditing.subject import How, Subject
from relume.errors import NonFiniteError
from relume.measures.similarity import Maps, Similarities, Values, defined_mean
from relume.pictures.scale import PERCENTILE

if TYPE_CHECKING:
    from relume.auditing.report import AuditReport

__all__ = ["RANDOMISATION", "Randomisation", "between_networks", "maps_at_random", "randomise"]

#: How often a layer is drawn anew while the score of the network does not respond to the images.
TRIES = 8

#: The share of layers, from the output down, after which `late` compares the maps.
LATE = 0.9

#: What no measure of randomisation means: Binder et al. 2023.
RANKS_NOTHING = (
    "It ranks no methods (Binder et al. 2023): a map of noise changes most, and layers below keep what they pick out."
)

#: How many stages of the cascade are drawn, beside the map as it is.
STAGES = 6


@dataclass(frozen=True, slots=True, eq=False)
class Randomisation:
    """The similarity of maps while layer after layer is made random. The last axis has the ``N`` images.

    Attributes:
        layers: every layer with weights, from the output down.
        how: by the layer's own ``reset_parameters`` where it has one (``reset``), or by shuffling its weights.
        cascade: with the layers up to each one random, ``(layers, N)`` for each of :data:`relume.measures.SIMILARITIES`.
        alone: with only that layer random, the same; empty if layers were not made random one by one.
        untrained: of the network itself and the first of two networks of which every layer is random.
        random_pair: of two such networks to each other, whatever the weights. It is no bound: a map may be less similar to that
            of a random network than two of these are to each other.
        stages: the saliency at each stage of the cascade, ``(layers, N, *spatial)``.
        lost: the stages at which the random network gave no map for an image: it overflowed, or its score did not respond,
            however often the layer was drawn. They are in no average.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, randomise
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = randomise(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> result.how, result.stages.shape, result.lost
        ('reset', (2, 2, 8, 8), ())
    """

    layers: tuple[str, ...]
    how: How
    cascade: Similarities
    alone: Similarities
    untrained: Similarities
    random_pair: Similarities
    stages: Values = field(repr=False)
    lost: tuple[str, ...]

    @property
    def late(self) -> Similarities:
        """Return the cascade's similarities when the top nine tenths of the layers are random, ``(N,)`` each."""
        stage = max(round(LATE * len(self.layers)), 1) - 1
        return {key: values[stage] for key, values in self.cascade.items()}

    @property
    def mean(self) -> Similarities:
        """Return each similarity averaged over the stages where it is defined, ``(N,)``: the area under its curve."""
        return {key: defined_mean(values) for key, values in self.cascade.items()}


def randomise(subject: Subject, *, alone: bool = True) -> Randomisation:
    """Make a copy of the network random, each layer alone, then one after the other from the output down; compare the maps.

    One copy serves all stages. The class explained stays the one decided on the network as it is.

    Args:
        subject: the network, its images and their maps.
        alone: whether layers are made random one by one too.

    Raises:
        ModelError: no layer of the network has weights.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, randomise
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = randomise(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> result.layers, result.cascade["absolute"].shape
        (('3', '0'), (2, 2))
    """
    layers = weight_layers(subject.model, subject.images[:1])
    network, generator = own_copy(subject.model), subject.generator()
    singly: list[Similarities] = []
    cascade: list[Similarities] = []
    stages: list[Values] = []
    lost: list[str] = []
    for name in subject.progress("randomisation", layers) if alone else ():
        maps = maps_at_random(subject, network, [name], generator)
        singly.append(subject.maps.compare(maps))
        lost += [f"{name} alone"] * _incomplete(maps)
        restore(network, subject.model)
    for name in subject.progress("randomisation", layers):
        maps = maps_at_random(subject, network, [name], generator)
        cascade.append(subject.maps.compare(maps))
        stages.append(maps.saliency)
        lost += [name] * _incomplete(maps)
    other = maps_at_random(subject, network, layers, generator)
    lost += ["another random network"] * _incomplete(other)
    pair = maps.compare(other)
    return Randomisation(
        tuple(layers), subject.how, _stacked(cascade), _stacked(singly), cascade[-1], pair, np.stack(stages), tuple(lost)
    )


def _incomplete(maps: Maps) -> bool:
    return not np.isfinite(maps.saliency).all()


def maps_at_random(subject: Subject, network: nn.Module, names: Iterable[str], generator: torch.Generator) -> Maps:
    """Make the maps with some layers drawn once more, and again while most scores do not respond to their images."""
    maps = subject.maps.unknown()
    for _ in range(TRIES):
        for name in names:
            randomise_layer(network, name, generator, subject.how)
        try:
            maps = subject.maps_of(network)
        except NonFiniteError:
            continue
        if np.isfinite(maps.saliency.reshape(len(maps), -1)).all(1).mean() > 0.5:
            break
    return maps


def _stacked(rows: Sequence[Similarities]) -> dict[str, Values]:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} if rows else {}


def between_networks(subject: Subject, other: nn.Module) -> Similarities:
    """Compare the maps with those of ``other``, a network of the same form: one trained on shuffled labels, say, ``(N,)`` each.

    Adebayo et al. 2018, section 4: such a network has learnt nothing of the classes, and its maps are to differ.

    Example:
        >>> import copy
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, between_networks
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> subject = Subject.of(network, torch.rand(1, 3, 8, 8), 0)
        >>> float(between_networks(subject, copy.deepcopy(network))["absolute"][0].round(6))
        1.0
    """
    return subject.maps.compare(subject.maps_of(other))


def _draw(result: Randomisation, report: AuditReport, i: int) -> list[Strip | Chart]:
    """Draw the map at some stages of the cascade, and its similarity at all of them, from 1 with no layer random."""
    values, count = result.cascade["absolute"][:, i], len(result.layers)
    drawn = sorted({round(share * count / STAGES) for share in range(1, STAGES + 1)} - {0})
    tiles = [Tile("as it is", "no layer random", heat(report.maps.saliency[i]))]
    for k in drawn:
        name, stage = result.layers[k - 1] or "the network's own", result.stages[k - 1, i]
        words = f"{k} of {count} random: {similarity(values[k - 1], stage)}"
        tiles.append(Tile(f"to {name}" if len(name) <= 24 else f"to …{name[-23:]}", words, heat(stage)))
    strip = Strip(
        tiles,
        f"each map at its own percentile {PERCENTILE:g}, since ranks are compared; those of a random network may be a thousand "
        "times weaker",
    )
    curve = np.concatenate([[np.nan if report.maps.empty[i] else 1.0], values])
    lines = {"random pair": float(result.random_pair["absolute"][i])}
    if "stability" in report.checks:
        lines = {"small noise": float(report.checks["stability"].noise["absolute"][i])} | lines
    lines = {name: value for name, value in lines.items() if not math.isnan(value)}
    low = min(0.0, math.floor(5 * np.nanmin([*curve, *lines.values(), 0.0])) / 5)
    curves = [Curve("method", np.arange(count + 1, dtype=np.float64), curve)]
    chart = Chart("Similarity to the map as it is", "layers made random", "similarity", curves, low, 1.0, lines, [0, *drawn])
    return [strip, chart]


def _notes(result: Randomisation) -> list[str]:
    if not result.lost:
        return []
    stages = f"{len(result.lost)} stages, {result.lost[0]} the first," if len(result.lost) > 1 else result.lost[0]
    return [f"{stages} gave no map, and count in no average"]


RANDOMISATION = Check(
    "Layer after layer is made random, from the output down",
    "A map of what the network learnt falls apart at once; a map that follows structure of the image stays. Small noise: the "
    "similarity under noise that nobody sees. Random pair: the similarity of the maps of two random networks.",
    randomise,
    {
        "randomisation": Measure(
            "similarity with 9/10 of the layers random",
            None,
            "A map of what the network learnt is lost when its weights are.",
            lambda result: result.late["absolute"],
            caution=RANKS_NOTHING,
        ),
        "cascade": Measure(
            "mean similarity as layers become random",
            None,
            "The area under the curve of the cascade: how long the map outlives the weights.",
            lambda result: result.mean["absolute"],
            caution=RANKS_NOTHING,
        ),
        "untrained": Measure(
            "similarity to an untrained network's map",
            None,
            "A map that a network without training draws too was not learnt.",
            lambda result: result.untrained["absolute"],
            caution=RANKS_NOTHING,
        ),
    },
    _draw,
    _notes,
    citation="Adebayo et al. 2018, arXiv:1810.03292; Binder et al. 2023, arXiv:2211.12486",
)
