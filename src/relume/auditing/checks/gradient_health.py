"""Did the rule reach every rectifier, and does the gradient live? What a map is made of, before anybody looks at it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.auditing.subject import Question, parts
from relume.engine.coverage import Coverage
from relume.engine.reading import Reading
from relume.engine.trace import Trace
from relume.errors import GraphError
from relume.measures.similarity import Maps, Values
from relume.rules import Local

__all__ = ["Health", "measure_health"]


@dataclass(frozen=True, slots=True, eq=False)
class Health:
    """The rectifiers between score and input, and the gradient that passes through them.

    NaN or infinity in input, weights, scores or map need no share: each is an error before anything is audited.

    Attributes:
        coverage: which rectifiers ran, and which a rule reaches.
        silent: the share of all their values at which ``f(x) ≤ 0``, so that no gradient passes a guided ReLU; None if they
            could not be looked into.
        saturated: the share at which ``f(x) > 0`` and ``f'(x) = 0``: cut off above.
        dead: the share of the channels of maps ``(N, C, H, W)`` that are silent at every place in every picture of a batch.
        blank: the share of each map's pixels that are exactly zero, ``(N,)``.
        trouble: why rectifiers could not be looked into, if so.
    """

    coverage: Coverage
    silent: float | None
    saturated: float | None
    dead: float | None
    blank: Values
    trouble: str = ""


class _Looking:
    """A rule that passes the plain gradient on, and counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, grad_out: Tensor, local: Local) -> Tensor:
        pulled, active = local.pull(grad_out), local.active
        flat = local.pull(torch.ones_like(grad_out)) == 0
        self.counts.update(values=active.numel(), silent=int((~active).sum()), saturated=int((active & flat).sum()))
        if active.ndim == 4:
            self.counts.update(channels=active.shape[1], dead=int((~active).all(3).all(2).all(0).sum()))
        return pulled

    def share(self, part: str, whole: str) -> float | None:
        """How many of ``whole`` are ``part``."""
        return self.counts[part] / self.counts[whole] if self.counts[whole] else None


def measure_health(question: Question, original: Maps) -> Health:
    """Look at every rectifier while one plain gradient passes through the network."""
    looking, trouble = _Looking(), ""
    for images, classes in zip(parts(question.images, question.batch), parts(question.classes, question.batch), strict=True):
        trace = Trace.run(question.model, images, Reading(output=question.output))
        score = trace.score(classes)
        coverage = trace.coverage(score)
        try:
            trace.grad(score, [trace.images], looking, last=True)
        except GraphError as error:
            trouble = str(error)
    return Health(
        coverage,
        looking.share("silent", "values"),
        looking.share("saturated", "values"),
        looking.share("dead", "channels"),
        (~(original.saliency > 0)).mean((1, 2)),
        trouble,
    )
