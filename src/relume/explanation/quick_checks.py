"""What can be said of maps at little cost, beside every result: are they about the class, are they more than edges?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relume.maps import MapInfo, Place, saliency_at
from relume.measures.baselines import sobel
from relume.measures.similarity import spearman

__all__ = ["Evidence", "glance"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The cheap checks of each map: Spearman's rank correlation of its saliency, by method, for each image, in [-1, 1].

    High is insensitive: a map that is alike for another class says little about this one. NaN where one of the two, map or
    picture, is the same everywhere. ``relume.audit`` has more checks, and a verdict.

    Attributes:
        runner_up: the highest class but the one explained in each image; None if the network has no other.
        classes: with the same method's map for the runner-up.
        edges: with Sobel's edges of the network's input.
    """

    runner_up: tuple[int, ...] | None
    classes: Mapping[str, tuple[float, ...]]
    edges: Mapping[str, tuple[float, ...]]

    def __getitem__(self, some: slice) -> Evidence:
        classes, edges = ({m: values[some] for m, values in kind.items()} for kind in (self.classes, self.edges))
        return Evidence(None if self.runner_up is None else self.runner_up[some], classes, edges)


def glance(
    images: Tensor,
    maps: Mapping[str, Tensor],
    infos: Mapping[str, MapInfo],
    others: Mapping[str, Tensor] | None,
    runner_up: Tensor | None,
) -> Evidence:
    """Compare the saliency of each map with that of the same method's for the runner-up, and with the picture's edges.

    Adebayo et al. 2018, arXiv:1810.03292, compare maps by Spearman's rank correlation, in [-1, 1].

    Args:
        images: the network's input, ``(N, C, *spatial)``.
        maps: each method's raw map.
        infos: the description of each.
        others: the same for the runner-up, if there is one.
        runner_up: that class in each image, ``(N,)``.
    """
    found = {method: _drawn(values, infos[method].place, images) for method, values in maps.items()}
    edges: dict[str, tuple[float, ...]] = {}
    if images.ndim == 4:
        seen = np.stack([sobel(image) for image in images.detach().cpu().double().numpy()])
        edges = {method: _alike(seen, values) for method, values in found.items()}
    classes = {
        method: _alike(found[method], _drawn(values, infos[method].place, images)) for method, values in (others or {}).items()
    }
    return Evidence(None if others is None or runner_up is None else tuple(runner_up.tolist()), classes, edges)


def _drawn(values: Tensor, place: Place, images: Tensor) -> np.ndarray:
    """The saliency at the resolution of the images, ``(N, *spatial)``."""
    values = values.to("cpu", torch.promote_types(values.dtype, torch.float32))
    return saliency_at(values, place, images.shape[2:]).double().numpy()


def _alike(one: np.ndarray, other: np.ndarray) -> tuple[float, ...]:
    """The correlation of each pair; NaN where one of them is constant, which is like nothing, and not 0 like anything."""
    return tuple(spearman(a, b) if np.ptp(b) else np.nan for a, b in zip(one, other, strict=True))
