"""What can be said of maps at little cost, beside every result: are they about the class, are they more than edges?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from relume.answer import Evidence
from relume.evidence.baselines import sobel
from relume.evidence.similarity import spearman
from relume.maps import saliency, upsample

__all__ = ["glance"]


def glance(
    images: Tensor, maps: Mapping[str, Tensor], others: Mapping[str, Tensor] | None, runner_up: Tensor | None
) -> Evidence:
    """Compare the saliency of each map with that of the same method's for the runner-up, and with the picture's edges.

    Adebayo et al. 2018, arXiv:1810.03292, compare maps by Spearman's rank correlation, in [-1, 1].

    Args:
        images: the network's input, ``(N, C, *spatial)``.
        maps: each method's raw map.
        others: the same for the runner-up, if there is one.
        runner_up: that class in each image, ``(N,)``.
    """
    found = {method: _drawn(values, images) for method, values in maps.items()}
    edges: dict[str, tuple[float, ...]] = {}
    if images.ndim == 4:
        seen = np.stack([sobel(image) for image in images.detach().cpu().double().numpy()])
        edges = {method: _alike(seen, values) for method, values in found.items()}
    classes = {method: _alike(found[method], _drawn(values, images)) for method, values in (others or {}).items()}
    return Evidence(None if others is None or runner_up is None else tuple(runner_up.tolist()), classes, edges)


def _drawn(values: Tensor, images: Tensor) -> np.ndarray:
    """The saliency at the resolution of the images, ``(N, *spatial)``."""
    values = values.to("cpu", torch.promote_types(values.dtype, torch.float32))
    drawn = saliency(values) if values.ndim == images.ndim else upsample(values, images.shape[2:])
    return drawn.double().numpy()


def _alike(one: np.ndarray, other: np.ndarray) -> tuple[float, ...]:
    """The correlation of each pair; NaN where one of them is constant, which is like nothing, and not 0 like anything."""
    return tuple(spearman(a, b) if np.ptp(b) else np.nan for a, b in zip(one, other, strict=True))
