"""Is the map about what the network learnt? Its weights are exchanged for random ones, and the map is to change with them.

Adebayo et al. 2018, arXiv:1810.03292: *Sanity checks for saliency maps*, section 3. What is random is a private copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from relume.errors import InputError, NonFiniteError
from relume.evidence.question import Question
from relume.evidence.similarity import SIMILARITIES, Maps, Similarities, Values
from relume.evidence.weights import How, own_copy, randomise_layer, restore, weight_layers

__all__ = ["Randomisation", "between_networks", "randomise"]

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
        floor: of two such networks to each other: what is alike whatever the weights.
        stages: the saliency at each stage of the cascade, ``(layers, N, H, W)``, if it was to be kept.
        overflowed: the stages at which the random network gave no finite map.
    """

    layers: tuple[str, ...]
    how: How
    cascade: Similarities
    alone: Similarities
    untrained: Similarities
    floor: Similarities
    stages: Values | None
    overflowed: tuple[str, ...]

    @property
    def late(self) -> int:
        """The stage at which the top nine tenths of the layers are random, counted from 0."""
        return max(round(LATE * len(self.layers)), 1) - 1

    def at(self, stage: int) -> Similarities:
        """The cascade's similarities at one stage, ``(N,)`` each."""
        return {key: values[stage] for key, values in self.cascade.items()}

    @property
    def mean(self) -> Similarities:
        """Each similarity averaged over the stages where it is defined, ``(N,)``: the area under its curve."""
        return {key: _mean(values) for key, values in self.cascade.items()}


def _mean(values: Values) -> Values:
    defined = ~np.isnan(values)
    counts = defined.sum(0)
    return np.where(counts > 0, np.where(defined, values, 0).sum(0) / np.maximum(counts, 1), np.nan)


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
    if how not in ("reset", "shuffle"):
        raise InputError(f"weights are made random by 'reset' or 'shuffle'; got {how!r}")
    layers = weight_layers(question.model, question.images[:1])
    network = own_copy(question.model)
    nothing = {key: np.full(len(original), np.nan) for key in SIMILARITIES}
    overflowed: list[str] = []

    def ask(stage: str) -> Maps | None:
        try:
            return question.maps(network)
        except NonFiniteError:
            overflowed.append(stage)
            return None

    singly: list[Similarities] = []
    for name in watched(layers) if alone else ():
        randomise_layer(network, name, generator, how)
        maps = ask(f"{name} alone")
        singly.append(nothing if maps is None else original.compare(maps))
        restore(network, question.model)
    gradually: list[Similarities] = []
    stages: list[Values] = []
    maps = None
    for name in watched(layers):
        randomise_layer(network, name, generator, how)
        maps = ask(name)
        gradually.append(nothing if maps is None else original.compare(maps))
        if keep:
            stages.append(np.full_like(original.saliency, np.nan) if maps is None else maps.saliency)
    for name in layers:
        randomise_layer(network, name, generator, how)
    other = ask("another random network")
    return Randomisation(
        tuple(layers),
        how,
        _stacked(gradually),
        _stacked(singly),
        gradually[-1],
        nothing if maps is None or other is None else maps.compare(other),
        np.stack(stages) if keep else None,
        tuple(overflowed),
    )


def _stacked(rows: Sequence[Similarities]) -> dict[str, Values]:
    return {key: np.stack([row[key] for row in rows]) for key in SIMILARITIES} if rows else {}


def between_networks(question: Question, original: Maps, other: nn.Module) -> Similarities:
    """How alike the maps of ``other`` are, a network of the same form: one trained on shuffled labels, say, ``(N,)`` each.

    Adebayo et al. 2018, section 4: such a network has learnt nothing of the classes, and its maps are to differ.
    """
    return original.compare(question.maps(other))
