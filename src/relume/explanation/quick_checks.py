"""The cheap checks beside every result: is a map about the class explained, is it more than edges of the image?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from relume.maps import MapInfo, array, saliency_at
from relume.measures.baselines import sobel
from relume.measures.similarity import correlation
from relume.text import decimal

__all__ = ["Evidence", "quick_checks"]

Values: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
Similarities: TypeAlias = Mapping[str, tuple[float, ...]]

#: A similarity from which two maps are called almost the same, and one from which they are called similar.
ALMOST_THE_SAME, SIMILAR = 0.8, 0.5

#: The number of values from which a map is ranked by 16 bits of each: a similarity changes by less than 0.001.
LARGE = 1 << 13


@dataclass(frozen=True, slots=True)
class Evidence:
    """The cheap checks of each map: the similarity of its saliency to others, by key of the map, for each image.

    A similarity is Spearman's rank correlation, in [-1, 1]. It describes a map and does not judge it: on photographs it
    does not tell which maps point at their object (docs/belief.md). NaN if one of the two is the same value everywhere.
    :func:`relume.audit` has more checks.

    Attributes:
        runner_up: the highest class but the one explained in each image; None if no map is compared with that for another.
        coarse: with ``evidence="quick"``, the similarity of Grad-CAM to that for the runner-up, both as coarse as the layer.
        classes: with ``evidence="full"``, the similarity to the same method's map for the runner-up.
        edges: the similarity to Sobel's edges of the network's input.

    Example:
        >>> from relume.explanation.quick_checks import Evidence
        >>> evidence = Evidence((7,), {}, {"gradient": (0.83,)}, {"gradient": (0.29,)})
        >>> print(evidence.sentence("gradient", 0, "Great Dane"))
        almost the same as the map for Great Dane (similarity 0.83), different from edges (0.29)
    """

    runner_up: tuple[int, ...] | None
    coarse: Similarities
    classes: Similarities
    edges: Similarities

    @property
    def kinds(self) -> dict[str, Similarities]:
        """The similarities of each kind, by the attribute that has them."""
        return {"coarse": self.coarse, "classes": self.classes, "edges": self.edges}

    def __getitem__(self, some: slice) -> Evidence:
        kinds = {name: {m: values[some] for m, values in kind.items()} for name, kind in self.kinds.items()}
        return Evidence(None if self.runner_up is None else self.runner_up[some], **kinds)

    def sentence(self, key: str, sample: int, runner_up: str) -> str:
        """Say how similar one map is to the map for the class called ``runner_up``, and to edges; empty if nothing is known."""
        compared = (
            (f"the coarse map for {runner_up}", self.coarse.get(key)),
            (f"the map for {runner_up}", self.classes.get(key)),
            ("edges", self.edges.get(key)),
        )
        words: list[str] = []
        for name, values in compared:
            if values is not None and not math.isnan(value := values[sample]):
                how = (
                    "almost the same as" if value >= ALMOST_THE_SAME else "similar to" if value >= SIMILAR else "different from"
                )
                words.append(f"{how} {name} ({'' if words else 'similarity '}{decimal(value)})")
        return ", ".join(words)


def quick_checks(
    images: Tensor,
    maps: Mapping[str, Tensor],
    infos: Mapping[str, MapInfo],
    others: Mapping[str, Tensor] | None = None,
    runner_up: Tensor | None = None,
    *,
    coarse: bool = False,
) -> Evidence:
    """Compare the saliency of each map with that of the same method's map for the runner-up, and with edges of the images.

    Adebayo et al. 2018, arXiv:1810.03292, compare maps by Spearman's rank correlation, in [-1, 1].

    Args:
        images: the network's input, ``(N, C, *spatial)``; without a spatial axis it has no edges.
        maps: the raw maps.
        infos: the description of each.
        others: the maps for the runner-up, if there are any.
        runner_up: that class in each image, ``(N,)``.
        coarse: compare the maps of ``others``, which are of a layer, at the resolution of the layer.
    """

    def ranked(key: str, values: Tensor) -> Values:
        values = values.to("cpu", torch.promote_types(values.dtype, torch.float32))
        return _ranks(saliency_at(values, infos[key].place, images.shape[2:]).numpy())

    ranks = {key: ranked(key, values) for key, values in maps.items()}
    edges: Similarities = {}
    if images.ndim > 2:
        of_images = np.stack([sobel(image) for image in images.detach().cpu().double().numpy()])
        of_images = _ranks(of_images if images.dtype == torch.float64 else of_images.astype(np.float32))
        edges = {key: _similarities(of_images, values) for key, values in ranks.items()}
    if others is None or runner_up is None:
        return Evidence(None, {}, {}, edges)
    pairs = {
        key: (_ranks(array(maps[key])), _ranks(array(other))) if coarse else (ranks[key], ranked(key, other))
        for key, other in others.items()
    }
    similar = {key: _similarities(*pair) for key, pair in pairs.items()}
    return Evidence(tuple(runner_up.tolist()), similar if coarse else {}, {} if coarse else similar, edges)


def _ranks(values: Values) -> Values:
    """Rank the magnitudes of each image, ties at their mean rank: a map is ranked once, whatever it is compared with."""
    flat = np.abs(values).reshape(len(values), -1)
    if flat.dtype != np.float32 or flat.shape[1] < LARGE:
        return stats.rankdata(flat, axis=1)
    return np.stack([_ranks_of_large(row) for row in flat])


def _ranks_of_large(values: Values) -> Values:
    """Rank float32 values, none negative, in a quarter of the time of sorting them; neighbours may count as equal.

    The bits of such values, read as integers, are in their order. What they differ in is cut to 16 bits, and counted.
    """
    bits = values.view(np.int32)
    below = np.min(bits, where=bits > 0, initial=np.iinfo(np.int32).max) - 1
    places = np.maximum(bits, below) - below
    places >>= max(0, int(places.max()).bit_length() - 16)
    counts = np.bincount(places)
    middle: Values = np.cumsum(counts) - (counts - 1) / 2
    return middle[places]


def _similarities(one: Values, other: Values) -> tuple[float, ...]:
    """Compute the correlation of each pair of ranks; NaN where one of them is constant, which is similar to nothing."""
    return tuple(correlation(a, b) if np.ptp(b) else np.nan for a, b in zip(one, other, strict=True))
