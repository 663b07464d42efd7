"""The audit: checks made of one method's maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from relume.auditing.checks.table import CHECKS, checks_of, run_checks
from relume.auditing.report import AuditReport
from relume.auditing.subject import BATCH_SIZE, How, Progress, Subject, unseen
from relume.engine.inputs import Output
from relume.explanation.calibration import Calibration
from relume.explanation.request import Layers
from relume.explanation.result import Explanation
from relume.measures.similarity import Values
from relume.methods.wrapper import MethodLike
from relume.targets import TargetLike
from relume.targets.activation import Activation, activated

__all__ = ["audit"]


def audit(  # noqa: PLR0913 - each is a choice of the caller's
    model: nn.Module,
    images: Tensor,
    target: TargetLike = None,
    method: MethodLike = "guided_backprop",
    layer: Layers = None,
    *,
    checks: Collection[str] | None = None,
    seed: int = 0,
    how: How = "reset",
    activation: Activation = "auto",
    labels: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
    output: Output = None,
    calibration: Calibration | None = None,
    progress: Progress = unseen,
) -> AuditReport:
    """Check whether one method's maps may be believed.

    Raw maps are compared, never pictures. The network is never touched: what is made random is a private copy.

    Args:
        model: the network.
        images: ``(N, C, *spatial)`` with one to three spatial axes, preprocessed as the network expects: pictures, signals,
            volumes, video.
        target: as for :func:`relume.explain`, but for functions and units inside the network; decided once, and kept.
        method: a key of :data:`relume.METHODS`, a :class:`relume.Method`, or a wrapper such as ``relume.Smooth("gradient")``,
            whose first map is audited. Give ``Smooth`` no generator of its own: each call would draw other noise.
        layer: Grad-CAM's target layer, as for :func:`relume.explain`.
        checks: the checks to make: keys of :data:`relume.auditing.CHECKS`, or of their measures, such as ``cascade``; all of
            them if None.
        seed: of everything random; the same arguments give the same measures.
        how: weights are made random by each layer's own ``reset``, or by ``shuffle``.
        activation: what the network's scores are, as for :func:`relume.explain`; where they are no probabilities, the score of
            the class is recorded as pixels go.
        labels: class names by index, to be shown.
        batch_size: how many images go through the network at once.
        output: which part of what the network returns holds the scores, as for :func:`relume.explain`.
        calibration: a :class:`relume.Calibration` of this network, from which the verdict follows.
        progress: sees the progress of long checks: called with the key of a check and the items that it goes through, and gives
            them one by one.

    Raises:
        RelumeError: as :func:`relume.explain`; or the model is no module, the images have no spatial axis or more than three,
            the target is no score of the outputs. A check that this network cannot be put to is left out, and the report says
            why.

    Example:
        >>> import torch
        >>> import relume
        >>> layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)
        >>> network = torch.nn.Sequential(*layers)
        >>> report = relume.audit(network, torch.rand(2, 3, 8, 8), target=1, checks=["classes", "edges"])
        >>> {key: values.shape for key, values in report.measures.items()}
        {'classes': (2,), 'edges': (2,), 'input': (2,)}
    """
    chosen = checks_of([*CHECKS] if checks is None else checks)
    subject = Subject.of(
        model, images, target, method, layer,
        batch_size=batch_size, activation=activation, labels=labels, output=output, seed=seed, how=how,
        calibration=calibration, progress=progress,
    )  # fmt: skip
    return _report(subject, *run_checks(subject, chosen), labels)


def _report(
    subject: Subject, results: Mapping[str, Any], skipped: Mapping[str, str], labels: Sequence[str] | None
) -> AuditReport:
    explanation = subject.explanation
    return AuditReport(
        method=subject.info.key,
        title=subject.info.title,
        model=explanation.model,
        layers=subject.layers,
        classes=subject.classes,
        scores=explanation.score.cpu().double().numpy(),
        probabilities=_probabilities(explanation, subject.classes),
        outputs=explanation.scores.shape[1] if explanation.scores.ndim == 2 else 1,
        descriptions=_descriptions(subject),
        are_probabilities=explanation.are_probabilities,
        images=subject.images,
        maps=subject.maps,
        checks=results,
        skipped=skipped,
        labels=labels,
        provenance={**explanation.provenance, "activation": explanation.activation, "seed": subject.seed, "how": subject.how},
        remarks=explanation.remarks.get(subject.info.key, ()),
        belief=explanation.belief[subject.info.key],
    )


def _descriptions(subject: Subject) -> Sequence[str] | None:
    """Say what is explained in each image; nothing where it is a class, which has a name."""
    e = subject.explanation
    return None if subject.classes is not None else [e.title(i).rpartition(", ")[0] for i in range(len(e))]


def _probabilities(explanation: Explanation, classes: Tensor | None) -> Values | None:
    """Return the probability of each image's class; None where the network has scores alone."""
    if explanation.quantity == "score" or classes is None:
        return None
    scores = explanation.scores.cpu().double()  # in this order: MPS has no float64
    values: Values = activated(scores, explanation.activation).gather(1, classes.cpu()[:, None])[:, 0].numpy()
    return values
