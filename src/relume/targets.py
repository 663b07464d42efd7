"""What is explained: a target is a callable ``outputs -> (N,)``, and :func:`resolve` makes one of whatever the user gave.

A resolved target is frozen: the predicted class is decided once, on the outputs it is resolved with, and stays the same
when the target is asked again about outputs of a smoothed, perturbed or randomised run.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from relume.errors import TargetError

__all__ = ["ClassTarget", "Target", "TargetLike", "class_scores", "resolve", "tensors_in"]

Target: TypeAlias = Callable[[Any], Tensor]
TargetLike: TypeAlias = "int | Sequence[int] | Tensor | Target | None"


@dataclass(frozen=True, slots=True, eq=False)
class ClassTarget:
    """The score of one class per sample; ``index`` is ``(N,)``, int64."""

    index: Tensor

    def __call__(self, outputs: Any) -> Tensor:
        """The score of each sample's class, ``(N,)``."""
        return class_scores(outputs).gather(1, self.index[:, None])[:, 0]


def class_scores(outputs: Any) -> Tensor:
    """The ``(N, K)`` class scores in what a network returned: its ``logits`` if it names them, else the first that fit.

    Raises:
        TargetError: nothing of that shape was returned.
    """
    named = list(tensors_in(outputs))
    fitting = [(name, t) for name, t in named if t.ndim == 2 and t.is_floating_point()]
    if not fitting:
        seen = ", ".join(f"{name or 'output'} {tuple(t.shape)}" for name, t in named) or type(outputs).__name__
        raise TargetError(
            f"a class target needs class scores of shape (N, classes), and the network returned {seen}; "
            "pass a callable that takes the outputs and returns one score per sample"
        )
    return next((t for name, t in fitting if name == "logits"), fitting[0][1])


def tensors_in(outputs: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in what a network returned, with the name nearest to it."""
    if isinstance(outputs, Tensor):
        yield name, outputs
        return
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type | Mapping):
        outputs = {f.name: getattr(outputs, f.name) for f in dataclasses.fields(outputs)}
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        outputs = dict(zip(outputs._fields, outputs, strict=True))
    if isinstance(outputs, Mapping):
        for key, value in outputs.items():
            yield from tensors_in(value, str(key))
    elif isinstance(outputs, list | tuple):
        for i, value in enumerate(outputs):
            yield from tensors_in(value, f"{name}[{i}]")


def resolve(target: TargetLike, outputs: Any, batch: int) -> Target:
    """Freeze ``target`` for a batch of ``batch`` samples that gave ``outputs``.

    ``None`` is the predicted class of each sample; an int is that class for all; a sequence or a 1-D tensor gives one class per
    sample; a callable is taken as it is.

    Raises:
        TargetError: wrong type, wrong length, or a class that the network does not have.
    """
    if callable(target) and not isinstance(target, Tensor):
        return target
    scores = class_scores(outputs)
    if len(scores) != batch:
        raise TargetError(
            f"the network returned scores for {len(scores)} samples and was given {batch}; pass a batch of shape (N, C, H, W)"
        )
    if target is None:
        return ClassTarget(scores.detach().argmax(dim=1))
    classes = _indices(target)
    if len(classes) == 1 and (isinstance(target, int) or _is_scalar(target)):
        classes *= batch
    if len(classes) != batch:
        raise TargetError(f"{len(classes)} targets were given for {batch} samples; give one class, or one per sample")
    known = scores.shape[1]
    for index in classes:
        if not 0 <= index < known:
            raise TargetError(f"class {index} is out of range: the network has {known} classes, 0 to {known - 1}")
    return ClassTarget(torch.tensor(classes, device=scores.device))


def _is_scalar(target: object) -> bool:
    return getattr(target, "ndim", None) == 0


def _indices(target: Any) -> list[int]:
    """The plain ints in ``target``; what only looks like an int (bool, float, str) is refused."""
    values = target.tolist() if hasattr(target, "tolist") else target
    values = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    try:
        indices = [operator.index(value) for value in values]
    except TypeError:
        indices = []
    if len(indices) != len(values) or any(isinstance(value, bool) for value in values):
        raise TargetError(
            f"a target is None, a class index, one index per sample, or a callable outputs -> (N,); got {target!r}"
        )
    return indices
