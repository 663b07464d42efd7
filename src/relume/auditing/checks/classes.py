"""Is the map about the class? The same pictures are explained for other classes, and the maps are to differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relume.auditing.subject import Question
from relume.errors import InputError
from relume.measures.similarity import SIMILARITIES, Maps, Similarities, defined_mean

__all__ = ["ClassSensitivity", "class_sensitivity", "other_classes"]


@dataclass(frozen=True, slots=True, eq=False)
class ClassSensitivity:
    """How alike the maps of other classes are to that of the class explained.

    Attributes:
        classes: by ``runner_up``, ``random_other`` and ``least_likely``, the class taken in each picture, ``(N,)``.
        similarity: the same, for each of :data:`SIMILARITIES`, ``(N,)``. High is insensitive.
        maps: the maps of each.
    """

    classes: Mapping[str, Tensor]
    similarity: Mapping[str, Similarities]
    maps: Mapping[str, Maps]

    @property
    def mean(self) -> Similarities:
        """Each similarity averaged over the other classes whose scores respond to the picture, ``(N,)``."""
        return {key: defined_mean(np.stack([found[key] for found in self.similarity.values()])) for key in SIMILARITIES}


def other_classes(scores: Tensor, classes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Of ``scores`` ``(N, K)`` the highest class but that of ``classes`` ``(N,)``, one of the others at random, and the lowest.

    The random class is that of the random logit test of Sixt et al. 2020, arXiv:1912.09818.

    Raises:
        InputError: the network has one class, and no other to compare with.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(
            f"the network has one score for each picture (outputs of shape {tuple(scores.shape)}), so that there is no other "
            "class to compare with"
        )
    own, known = classes[:, None], scores.shape[1]
    drawn = torch.randint(known - 1, classes.shape, generator=generator).to(classes)
    return {
        "runner_up": scores.scatter(1, own, -torch.inf).argmax(1),
        "random_other": (classes + 1 + drawn) % known,
        "least_likely": scores.scatter(1, own, torch.inf).argmin(1),
    }


def class_sensitivity(question: Question, original: Maps, scores: Tensor, generator: torch.Generator) -> ClassSensitivity:
    """Explain the runner-up, a random other and the least likely class of each picture, in one forward pass.

    Args:
        question: the method, network and pictures.
        original: the maps of the classes explained.
        scores: all class scores, ``(N, K)``.
        generator: of the random class.

    Raises:
        InputError: the network has one class.
    """
    others = other_classes(scores, question.classes, generator)
    maps = dict(zip(others, question.maps_of(list(others.values())), strict=True))
    return ClassSensitivity(others, {role: original.compare(found) for role, found in maps.items()}, maps)
