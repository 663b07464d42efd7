"""The check of complexity: the map is made once more with every layer random, and is to become less orderly.

Hedström et al. 2024, arXiv:2405.02383: Efficient MPRT, which compares no two maps, but the entropy of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relume.auditing.checks.base import Check, Measure
from relume.auditing.checks.random_weights import own_copy, weight_layers
from relume.auditing.checks.randomisation import maps_at_random
from relume.auditing.subject import Subject
from relume.measures.similarity import Maps, Values

__all__ = ["COMPLEXITY", "Complexity", "discrete_entropy", "measure_complexity"]

#: The number of bins of a histogram.
BINS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Complexity:
    """The entropy of each map's histogram, ``(N,)`` in nats.

    Attributes:
        trained: of the map as it is; NaN where it is empty or constant.
        untrained: of the map by the network with every layer random; NaN where it gave none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_complexity
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> measure_complexity(Subject.of(network, torch.rand(2, 3, 8, 8), 0)).rise.shape
        (2,)
    """

    trained: Values
    untrained: Values

    @property
    def rise(self) -> Values:
        """Return the relative rise, ``(untrained - trained) / trained``, ``(N,)``."""
        return (self.untrained - self.trained) / self.trained


def discrete_entropy(heat: NDArray[np.floating]) -> float:
    """Compute ``-Σ p_b log p_b`` over :data:`BINS` equal bins between the lowest and the highest value; NaN if they are one."""
    if not np.isfinite(heat).all() or np.ptp(heat) == 0:
        return np.nan
    counts = np.histogram(heat, BINS)[0]
    shares = counts[counts > 0] / heat.size
    return float(-(shares * np.log(shares)).sum())


def measure_complexity(subject: Subject) -> Complexity:
    """Make the maps once more by a copy of the network with every layer random, and compute the entropy of both.

    Raises:
        ModelError: no layer of the network has weights.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_complexity
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> measure_complexity(Subject.of(network, torch.rand(2, 3, 8, 8), 0)).trained.shape
        (2,)
    """
    layers = weight_layers(subject.model, subject.images[:1])
    random = maps_at_random(subject, own_copy(subject.model), layers, subject.generator())
    return Complexity(_entropies(subject.maps), _entropies(random))


def _entropies(maps: Maps) -> Values:
    return np.array([discrete_entropy(heat) for heat in maps.saliency])


COMPLEXITY = Check(
    "The whole network is made random at once",
    "The entropy of the map's histogram before and after: a map of what the network learnt is more orderly than one of noise.",
    measure_complexity,
    {
        "complexity": Measure(
            "rise of entropy when all is random",
            None,
            "How much less orderly the map becomes when every layer is random, as a share of its entropy.",
            lambda result: result.rise,
            caution="It tells nothing of where the map points, and a map of noise cannot rise.",
        )
    },
    citation="Hedström et al. 2024, arXiv:2405.02383",
)
