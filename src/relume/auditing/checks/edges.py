"""Is the map more than an edge detector? It is compared with edges of the picture, and with the picture itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from relume.auditing.subject import Question
from relume.measures.baselines import sobel
from relume.measures.similarity import Maps, Similarities, Values

__all__ = ["EdgeSimilarity", "canny", "edge_similarity"]


@dataclass(frozen=True, slots=True, eq=False)
class EdgeSimilarity:
    """How alike the maps are to what knows nothing of the class: ``(N,)`` for each of :data:`SIMILARITIES`.

    Attributes:
        similarity: to the ``sobel`` and ``canny`` edges of the picture and to the ``input`` itself, less its mean colour (Nie
            et al. 2018, arXiv:1805.07039: guided backpropagation recovers the image). NaN in a picture of one colour.
        maps: these.
    """

    similarity: Mapping[str, Similarities]
    maps: Mapping[str, Maps]


def canny(image: Values) -> Values:
    """Canny's edges of the mean over channels, stretched to [0, 1]: ``(C, H, W)`` to zeros and ones ``(H, W)``.

    Canny 1986, doi:10.1109/TPAMI.1986.4767851, with ``σ = 1`` and thresholds 0.1 and 0.2 of the gradient.
    """
    from skimage import feature

    grey = image.mean(axis=0, dtype=np.float64)
    low, high = grey.min(), grey.max()
    edges: Values = feature.canny((grey - low) / (high - low or 1.0)).astype(np.float64)  # type: ignore[no-untyped-call]
    return edges


def edge_similarity(question: Question, original: Maps) -> EdgeSimilarity:
    """Compare the maps with the edges of their pictures. No pass through the network."""
    images = question.images.detach().cpu().to(torch.promote_types(question.images.dtype, torch.float32))
    arrays = images.numpy()
    found = {name: np.stack([np.float64(edges(i)) for i in arrays]) for name, edges in (("sobel", sobel), ("canny", canny))}
    edges = {name: Maps(each, each) for name, each in found.items()}
    centred = images - images.mean((2, 3), keepdim=True)
    maps = edges | {"input": Maps.of(centred, tuple(images.shape[2:]))}
    return EdgeSimilarity({name: found.compare(original.defined()) for name, found in maps.items()}, maps)
