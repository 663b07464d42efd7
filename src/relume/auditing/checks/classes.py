"""The check of other classes: the same images are explained for other classes, and a map about its class is to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from relume.auditing.checks.base import Check, Measure
from relume.auditing.drawing import Strip, Tile, heat, plane, similarity
from relume.auditing.subject import Subject
from relume.errors import InputError
from relume.measures.similarity import Maps, Similarities, defined_mean
from relume.pictures.scale import PERCENTILE, scale_of

if TYPE_CHECKING:
    from relume.auditing.report import AuditReport

__all__ = ["CLASSES", "ClassSensitivity", "class_sensitivity", "other_classes"]

#: The names of the other classes, by the part that each plays.
OTHERS: Mapping[str, str] = {"runner_up": "runner-up", "random_other": "random other", "least_likely": "least likely"}


@dataclass(frozen=True, slots=True, eq=False)
class ClassSensitivity:
    """The similarity of the maps of other classes to that of the class explained.

    Attributes:
        classes: by ``runner_up``, ``random_other`` and ``least_likely``, the class taken in each image, ``(N,)``.
        similarity: the same, for each of :data:`relume.measures.SIMILARITIES`, ``(N,)``. High is insensitive.
        maps: the maps of each.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, class_sensitivity
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = class_sensitivity(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> list(result.classes), result.similarity["runner_up"]["absolute"].shape
        (['runner_up', 'random_other', 'least_likely'], (2,))
    """

    classes: Mapping[str, Tensor]
    similarity: Mapping[str, Similarities]
    maps: Mapping[str, Maps] = field(repr=False)

    @property
    def mean(self) -> Similarities:
        """Return each similarity averaged over the other classes whose scores respond to the image, ``(N,)``."""
        rows = [*self.similarity.values()]
        return {key: defined_mean(np.stack([row[key] for row in rows])) for key in rows[0]}


def other_classes(scores: Tensor, classes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Choose three classes other than ``classes`` ``(N,)`` by ``scores`` ``(N, K)``: the highest, a random one, the lowest.

    The random class is that of the random logit test of Sixt et al. 2020, arXiv:1912.09818.

    Raises:
        InputError: the network has one class, and no other to compare with.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(
            f"the network has one score for each image (outputs of shape {tuple(scores.shape)}), so that there is no other "
            "class to compare with"
        )
    own, count = classes[:, None], scores.shape[1]
    drawn = torch.randint(count - 1, classes.shape, generator=generator).to(classes)
    return {
        "runner_up": scores.scatter(1, own, -torch.inf).argmax(1),
        "random_other": (classes + 1 + drawn) % count,
        "least_likely": scores.scatter(1, own, torch.inf).argmin(1),
    }


def class_sensitivity(subject: Subject) -> ClassSensitivity:
    """Explain the runner-up, a random other and the least likely class of each image, in one forward pass.

    Raises:
        InputError: the network has one class, or the target is no class.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, class_sensitivity
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = class_sensitivity(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> result.mean["absolute"].shape
        (2,)
    """
    if subject.classes is None:
        raise InputError("the target is no class, so that there is no other class to compare with")
    others = other_classes(subject.explanation.scores, subject.classes, subject.generator())
    maps = dict(zip(others, subject.maps_for(list(others.values())), strict=True))
    return ClassSensitivity(others, {role: subject.maps.compare(other) for role, other in maps.items()}, maps)


def _draw(result: ClassSensitivity, report: AuditReport, i: int) -> list[Strip]:
    """Draw the map of each class at one scale."""
    own, others = report.maps.saliency[i], {role: maps.saliency[i] for role, maps in result.maps.items()}
    finite = [plane(values).astype(np.float32) for values in (own, *others.values()) if np.isfinite(values).all()]
    full = max((scale_of(values) for values in finite), default=0.0)
    tiles = [Tile(report.target_name(i), "the class explained", heat(own, full))]
    for role, values in others.items():
        words = similarity(result.similarity[role]["absolute"][i], values)
        tiles.append(Tile(report.class_name(int(result.classes[role][i])), f"{OTHERS[role]}: {words}", heat(values, full)))
    return [Strip(tiles, f"full strength at {full:.3g}, the highest percentile {PERCENTILE:g} of these maps")]


CLASSES = Check(
    "The same image, explained for other classes",
    "Whether the map is another one for other classes.",
    class_sensitivity,
    {
        "classes": Measure(
            "similarity to the maps of other classes",
            None,
            "The mean similarity to the maps of the runner-up, a random other and the least likely class.",
            lambda result: result.mean["absolute"],
            caution="It does not tell which maps point at their object: classes that look alike have the same evidence.",
        )
    },
    _draw,
    citation="Sixt et al. 2020, arXiv:1912.09818",
)
