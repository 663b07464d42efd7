"""The targets that fit what a network returns, and errors that name one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target

__all__ = ["fitting", "misfit", "shape_in_letters"]

#: The class in the examples of errors, or the last one if there are fewer: an error of every photo is the same sentence.
EXAMPLE = 15

_SIZES = {4: "H, W", 5: "D, H, W"}


def misfit(needs: str, outputs: Any, count: int | None) -> TargetError:
    """Say that a target ``needs`` something else than the ``outputs`` for ``count`` images, and which target would fit."""
    from relume.targets.outputs import distinct, tensors_in

    count = next((len(t) for _, t in tensors_in(outputs) if t.ndim), 0) if count is None else count
    returned = ", ".join(f"{name} {shape_in_letters(tensor, count)}".strip() for name, tensor in distinct(outputs))
    returned = returned or type(outputs).__name__
    written = next(iter(fitting(outputs, count, predicted=False)), None)
    if written is None:
        advice = "give a callable that takes the outputs and returns one score per sample"
    else:
        advice = f"relume.targets.{written} ({_in_command(written)} in the command)"
    return TargetError(f"{needs}, and this network returns {returned}: {advice}")


def _in_command(written: str) -> str:
    """Write a target as for the command: ``Segmentation(15)`` is ``--ask segmentation:15``."""
    kind, _, argument = written.rstrip(")").partition("(")
    return f"--target {argument}" if kind == "Class" else f"--ask {kind.lower()}:{argument.replace('True', 'yes')}"


def shape_in_letters(tensor: Tensor, count: int) -> str:
    """Write a shape as ``(N, 21, H, W)``, N being the ``count`` images."""
    sizes = [str(size) for size in tensor.shape]
    if tensor.ndim and len(tensor) == count:
        sizes = ["N", *sizes[1:]]
        sizes = [*sizes[:2], _SIZES[tensor.ndim]] if tensor.ndim in _SIZES else sizes
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def fitting(outputs: Any, count: int, *, predicted: bool = True) -> dict[str, Target]:
    """List the targets that fit the ``outputs`` for ``count`` images, by how they are written, the most usual first.

    The class in each is one that the network predicts in the first image, so that it has a score; if not ``predicted``, it is
    an example, the same for all images.

    Example:
        >>> import torch
        >>> list(fitting(torch.rand(2, 1), 2))
        ['Binary(True)', "Regression('up')"]
        >>> list(fitting(torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1), 1))
        ['Segmentation(2)']
    """
    targets: dict[str, Target] = {}
    for find in (_of_boxes, _of_scores, _of_pixels):
        with suppress(TargetError):  # several tensors can be the one that is meant
            targets |= find(outputs, count, predicted=predicted)
    return targets


def _of_boxes(outputs: Any, count: int, *, predicted: bool) -> dict[str, Target]:
    from relume.targets.boxes import detections_in
    from relume.targets.detection import Detection, fitting_label

    label = fitting_label(outputs, count, predicted=predicted)
    if label is None:
        return {"Detection()": Detection()} if detections_in(outputs, count) else {}  # nothing is detected in the first image
    return {f"Detection({label})": Detection(label)}


def _of_scores(outputs: Any, count: int, *, predicted: bool) -> dict[str, Target]:
    from relume.targets.binary import Binary
    from relume.targets.classes import Class
    from relume.targets.contrast import Contrast
    from relume.targets.embedding import Embedding
    from relume.targets.nearest import Nearest
    from relume.targets.outputs import candidates, the_one
    from relume.targets.probability import Probability
    from relume.targets.regression import Regression

    scores = the_one(candidates(outputs, count, (1, 2)), ("logits",), outputs).detach()
    if scores.ndim == 1 or scores.shape[1] == 1:
        return {"Binary(True)": Binary(), "Regression('up')": Regression()}
    best, nearest = int(scores[0].argmax()) if predicted else min(EXAMPLE, scores.shape[1] - 1), min(3, scores.shape[1] - 1)
    return {
        f"Class({best})": Class(best),
        f"Probability({best})": Probability(best),
        f"Contrast({best}, Nearest({nearest}))": Contrast(best, Nearest(nearest)),
        "Embedding(vector)": Embedding(scores[0]),
    }


def _of_pixels(outputs: Any, count: int, *, predicted: bool) -> dict[str, Target]:
    from relume.targets.outputs import candidates, the_one
    from relume.targets.segmentation import Segmentation

    scores = the_one(candidates(outputs, count, (4, 5)), ("out", "logits"), outputs).detach()
    most = int(scores[0].argmax(0).flatten().mode().values) if predicted else min(EXAMPLE, scores.shape[1] - 1)
    return {f"Segmentation({most})": Segmentation(most)}


def check_class(index: int, classes: int) -> None:
    """Refuse a class that a network of so many ``classes`` has not.

    Raises:
        TargetError: it is out of range.
    """
    if not 0 <= index < classes:
        one = "; one value is asked about by relume.targets.Binary(True) or Regression('up')" if classes == 1 else ""
        raise TargetError(f"class {index} is out of range: the network has {classes} classes, 0 to {classes - 1}{one}")


def check_count(values: Sequence[Any] | Tensor, what: str, count: int) -> None:
    """Refuse values for each of another number of images than ``count``.

    Raises:
        TargetError: they are.
    """
    if len(values) != count:
        raise TargetError(f"{len(values)} {what} were given for {count} samples; give one, or one per sample")
