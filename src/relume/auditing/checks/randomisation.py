"""Is the map about what the network learnt? Its weights are exchanged for random ones, and the map is to change with them.

Adebayo et al. 2018, arXiv:1810.03292: *Sanity checks for saliency maps*, section 3. What is random is a private copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from relume.auditing.checks.random_weights import How, check_how, own_copy, randomise_layer, restore, weight_layers
from relume.auditing.subject import Question
from relume.errors import NonFiniteError
from relume.measures.similarity import SIMILARITIES, Maps, Similarities, Values, defined_mean

__all__ = ["Randomisation", "between_networks", "randomise"]

#: How often a layer is drawn anew while the score of the network does not respond to the pictures.
TRIES = 8

#: The share of layers, from the output down, after which the verdict looks at the map.
LATE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Randomisation:
    """How alike maps stay while layer after layer is made random. The last axis are the ``N`` pictures.

    Attributes:
        layers: every layer with weights, from the output down.
        how: by the layer's own ``reset_parameters`` where it has one (``reset``), or by shuffling its weights.
        cascade: with the layers up to each one random, ``(layers, N)`` for each of :data:`SIMILARITIES`.
        alone: with only that layer random, the same; empty if not asked for.
        untrained: of the first of two networks of which every layer is random, and the network itself.
        random_pair: of two such networks to each other: what is alike whatever the weights. It is no bound: a map may be less
            like that of a random network than two of these are like each other.
        stages: the saliency at each stage of the cascade, ``(layers, N, H, W)``, if it was to be kept.
        lost: the stages at which the random network gave no map for a picture: it overflowed, or its score did not respond,
            however often the layer was drawn. They are in no average.
    """

    layers: tuple[str, ...]
    how: How
    cascade: Similarities
    alone: Similarities
    untrained: Similarities
    random_pair: Similarities
    stages: Values | None
    lost: tuple[str, ...]

    @property
    def late(self) -> Similarities:
        """The cascade's similarities when the top nine tenths of the layers are random, ``(N,)`` each."""
        stage = max(round(LATE * len(self.layers)), 1) - 1
        return {key: values[stage] for key, values in self.cascade.items()}

    @property
    def mean(self) -> Similarities:
        """Each similarity averaged over the stages where it is defined, ``(N,)``: the area under its curve."""
        return {key: defined_mean(values) for key, values in self.cascade.items()}


def randomise(
    question: Question,
    original: Maps,
    generator: torch.Generator,
    *,
    how: How = "reset",
    alone: bool = True,
    keep: bool = False,
    watched: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Randomisation:
    """Make a copy of the network random, cascading from the output down, and each layer alone; compare the maps.

    One copy serves all stages. The class explained stays the one decided on the network as it is.

    Args:
        question: the method, network and pictures.
        original: their maps by the network as it is.
        generator: of the random weights.
        how: ``reset`` by each layer's own scheme, shuffling the weights of layers that have none; or ``shuffle`` all.
        alone: whether layers are made random one by one too.
        keep: whether the maps at each stage of the cascade are kept.
        watched: may look on as the layers go by, once for each pass over them.

    Raises:
        ModelError: no layer of the network has weights.
        InputError: there is no such way to make weights random.
    """
    check_how(how)
    layers = weight_layers(question.model, question.images[:1])
    network = own_copy(question.model)
    lost: list[str] = []

    def ask(stage: str, names: Sequence[str]) -> Maps:
        maps = _drawn(question, original, network, names, generator, how)
        if not np.isfinite(maps.saliency).all():
            lost.append(stage)
        return maps

    singly: list[Similarities] = []
    for name in watched(layers) if alone else ():
        singly.append(original.compare(ask(f"{name} alone", [name])))
        restore(network, question.model)
    gradually: list[Similarities] = []
    stages: list[Values] = []
    for name in watched(layers):
        maps = ask(name, [name])
        gradually.append(original.compare(maps))
        if keep:
            stages.append(maps.saliency)
    random_pair = maps.compare(ask("another random network", layers))
    kept = np.stack(stages) if keep else None
    return Randomisation(
        tuple(layers), how, _stacked(gradually), _stacked(singly), gradually[-1], random_pair, kept, tuple(lost)
    )


def _drawn(
    question: Question, original: Maps, network: nn.Module, names: Iterable[str], generator: torch.Generator, how: How
) -> Maps:
    """The maps with some layers drawn once more, and again while most scores do not respond to their pictures."""
    maps = original.unknown()
    for _ in range(TRIES):
        for name in names:
            randomise_layer(network, name, generator, how)
        try:
            maps = question.maps(network)
        except NonFiniteError:
            continue
        if np.isfinite(maps.saliency).all((1, 2)).mean() > 0.5:
            break
    return maps


def _stacked(rows: Sequence[Similarities]) -> dict[str, Values]:
    return {key: np.stack([row[key] for row in rows]) for key in SIMILARITIES} if rows else {}


def between_networks(question: Question, original: Maps, other: nn.Module) -> Similarities:
    """How alike the maps of ``other`` are, a network of the same form: one trained on shuffled labels, say, ``(N,)`` each.

    Adebayo et al. 2018, section 4: such a network has learnt nothing of the classes, and its maps are to differ.
    """
    return original.compare(question.maps(other))
