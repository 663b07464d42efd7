"""The check of the gradient: whether the rule reaches every rectifier, and what share of their values lets it pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.auditing.checks.base import Check
from relume.auditing.subject import Subject, parts
from relume.engine.coverage import Coverage
from relume.engine.reading import Reading
from relume.engine.trace import Trace
from relume.errors import GraphError
from relume.measures.similarity import Values
from relume.rules import Local

__all__ = ["COVERAGE", "Health", "measure_health"]


@dataclass(frozen=True, slots=True, eq=False)
class Health:
    """The rectifiers between score and input, and the gradient that passes through them.

    NaN or infinity in input, weights, scores or map need no share: each is an error before anything is audited.

    Attributes:
        coverage: which rectifiers ran, and which a rule reaches.
        silent: the share of all their values at which ``f(x) ≤ 0``, so that no gradient passes a guided ReLU; None if they
            could not be looked into.
        saturated: the share at which ``f(x) > 0`` and ``f'(x) = 0``: cut off above.
        dead: the share of the channels of maps ``(N, C, *spatial)``, of as many axes as the images, that are silent at every
            place in every image of a batch.
        blank: the share of each map's pixels that are exactly zero, ``(N,)``.
        trouble: why rectifiers could not be looked into, if so.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_health
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> result = measure_health(Subject.of(network, torch.rand(2, 3, 8, 8), 0))
        >>> 0 <= result.silent <= 1, result.saturated, result.blank.shape
        (True, 0.0, (2,))
    """

    coverage: Coverage
    silent: float | None
    saturated: float | None
    dead: float | None
    blank: Values
    trouble: str = ""


class _Counting:
    """A rule that passes the plain gradient on, and counts; a map has ``ndim`` axes."""

    def __init__(self, ndim: int) -> None:
        self.counts: Counter[str] = Counter()
        self._ndim = ndim

    def __call__(self, grad_out: Tensor, local: Local) -> Tensor:
        pulled, active = local.pull(grad_out), local.active
        flat = local.pull(torch.ones_like(grad_out)) == 0
        self.counts.update(values=active.numel(), silent=int((~active).sum()), saturated=int((active & flat).sum()))
        if active.ndim == self._ndim:
            self.counts.update(channels=active.shape[1], dead=int((~active).flatten(2).all(2).all(0).sum()))
        return pulled

    def share(self, part: str, whole: str) -> float | None:
        """Return the share of ``whole`` that is ``part``; None if there is no whole."""
        return self.counts[part] / self.counts[whole] if self.counts[whole] else None


def measure_health(subject: Subject) -> Health:
    """Count every rectifier's values while one plain gradient passes through the network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject, measure_health
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> measure_health(Subject.of(network, torch.rand(2, 3, 8, 8), 0)).coverage.guided
        1
    """
    counting, trouble, size = _Counting(subject.images.ndim), "", subject.batch_size
    for number, images in enumerate(parts(subject.images, size)):
        target = subject.target.rows(slice(number * size, number * size + len(images)))
        trace = Trace.run(subject.model, images, Reading(output=subject.output))
        score = trace.score(target)
        coverage = trace.coverage(score)
        try:
            trace.grad(score, [trace.images], counting, last=True)
        except GraphError as error:
            trouble = str(error)
    return Health(
        coverage,
        counting.share("silent", "values"),
        counting.share("saturated", "values"),
        counting.share("dead", "channels"),
        (~(subject.maps.saliency > 0)).reshape(len(subject.maps), -1).mean(1),
        trouble,
    )


COVERAGE = Check(
    "The rectifiers",
    "A rule that does not reach a rectifier leaves its gradient as it is.",
    measure_health,
    notes=lambda result: [f"{result.coverage.guided} rectifiers guided, {result.coverage.unguided} not"],
    citation="Springenberg et al. 2015, arXiv:1412.6806",
)
