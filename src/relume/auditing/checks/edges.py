"""The check of edges: a map is compared with edges of its image, and with the image itself, which need no network."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from relume.auditing.checks.base import Check, Measure
from relume.auditing.drawing import Strip, Tile, heat, number
from relume.auditing.subject import Subject
from relume.measures.baselines import sobel
from relume.measures.similarity import Maps, Similarities, Values
from relume.pictures.scale import PERCENTILE

if TYPE_CHECKING:
    from relume.auditing.report import AuditReport

__all__ = ["EDGES", "EdgeSimilarity", "canny", "edge_similarity"]

TITLES: Mapping[str, str] = {"sobel": "Sobel's edges", "canny": "Canny's edges", "input": "the image itself"}


@dataclass(frozen=True, slots=True, eq=False)
class EdgeSimilarity:
    """The similarity of the maps to pictures that know nothing of the class: ``(N,)`` for each of the similarities.

    Attributes:
        similarity: to the ``sobel`` and ``canny`` edges of the image and to the ``input`` itself, less its mean colour (Nie et
            al. 2018, arXiv:1805.07039: guided backpropagation recovers the image). NaN in an image of one colour. ``canny`` is
            there for images of two axes alone.
        maps: these pictures.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, edge_similarity
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = edge_similarity(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> list(result.similarity), result.similarity["sobel"]["absolute"].shape
        (['sobel', 'canny', 'input'], (2,))
    """

    similarity: Mapping[str, Similarities]
    maps: Mapping[str, Maps] = field(repr=False)

    @property
    def edges(self) -> Values:
        """Return the highest similarity to an edge detector that found an edge."""
        rows = [values["absolute"] for name, values in self.similarity.items() if name != "input"]
        return functools.reduce(np.fmax, rows)


def canny(image: Values) -> Values:
    """Find Canny's edges of the mean over channels, stretched to [0, 1]: ``(C, H, W)`` to zeros and ones ``(H, W)``.

    Canny 1986, doi:10.1109/TPAMI.1986.4767851, with ``σ = 1`` and thresholds 0.1 and 0.2 of the gradient.
    """
    from skimage import feature

    grey = image.mean(axis=0, dtype=np.float64)
    low, high = grey.min(), grey.max()
    edges: Values = feature.canny((grey - low) / (high - low or 1.0)).astype(np.float64)  # type: ignore[no-untyped-call]
    return edges


def edge_similarity(subject: Subject) -> EdgeSimilarity:
    """Compare the maps with the edges of their images, without a pass through the network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, edge_similarity
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> edge_similarity(Subject.of(network, torch.rand(2, 3, 8, 8), 0)).edges.shape
        (2,)
    """
    images = subject.images.detach().cpu().to(torch.promote_types(subject.images.dtype, torch.float32))
    detectors = {"sobel": sobel} | ({"canny": canny} if images.ndim == 4 else {})
    edges = {name: np.stack([np.float64(detect(image)) for image in images.numpy()]) for name, detect in detectors.items()}
    centred = images - images.mean(tuple(range(2, images.ndim)), keepdim=True)
    maps = {name: Maps(values, values) for name, values in edges.items()}
    maps |= {"input": Maps.of(centred, tuple(images.shape[2:]))}
    return EdgeSimilarity({name: other.compare(subject.maps.defined()) for name, other in maps.items()}, maps)


def _draw(result: EdgeSimilarity, report: AuditReport, i: int) -> list[Strip]:
    tiles = [Tile("the map", "", heat(report.maps.saliency[i]))]
    for key, maps in result.maps.items():
        tiles.append(Tile(TITLES[key], f"similarity {number(result.similarity[key]['absolute'][i])}", heat(maps.saliency[i])))
    return [Strip(tiles, f"each at its own percentile {PERCENTILE:g}, since they have no common unit")]


def _notes(result: EdgeSimilarity) -> list[str]:
    return [] if "canny" in result.similarity else ["Canny's edges are defined in two axes, and were left out"]


EDGES = Check(
    "Pictures that need no network",
    "Edges, and the image less its mean colour.",
    edge_similarity,
    {
        "edges": Measure(
            "similarity to edges (Sobel or Canny)",
            None,
            "An edge detector needs no network.",
            lambda result: result.edges,
            caution="It does not tell whether these are the edges of the right object: a map may well follow those.",
        ),
        "input": Measure(
            "similarity to the image itself",
            None,
            "A map that gives the image back says little about the network.",
            lambda result: result.similarity["input"]["absolute"],
            caution="It does not tell where the map is strong: a bright object makes both similar.",
        ),
    },
    _draw,
    _notes,
    citation="Adebayo et al. 2018, arXiv:1810.03292; Nie et al. 2018, arXiv:1805.07039",
)
