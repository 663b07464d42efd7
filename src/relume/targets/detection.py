"""A detection as a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.activation import Activation
from relume.targets.base import Target, is_index, named
from relume.targets.boxes import LAYOUTS, Boxes, Layout, Listed, boxes_in, detections_in, find_boxes, overlap
from relume.targets.fitting import EXAMPLE, check_class

__all__ = ["Detection", "Meant", "fitting_label"]


@dataclass(frozen=True, slots=True, eq=False)
class Meant:
    """The detection that is meant in each image.

    Attributes:
        labels: its class, ``(N,)`` int64.
        corners: its box, ``(N, 4)``; NaN for the sum of several.
        places: its number among the boxes of the image, ``(N,)``.
        weights: one for each box that is meant, ``(N, boxes)``; None where detections are listed and found by their box.
    """

    labels: Tensor
    corners: Tensor
    places: Tensor
    weights: Tensor | None

    def changed(self, change: Callable[[Tensor], Tensor]) -> Meant:
        """Give those of other images, by the same ``change`` of all that has a row for each image."""
        weights = None if self.weights is None else change(self.weights)
        return Meant(change(self.labels), change(self.corners), change(self.places), weights)


@dataclass(frozen=True, slots=True, eq=False)
class Detection(Target):
    """The score of one box of a detector in each image, or the sum over the boxes of a class.

    Detectors may return, for each image, a list of ``boxes``, ``labels`` and ``scores``, as torchvision's do; a tensor
    ``(N, boxes, 4 + 1 + classes)`` or ``(N, 4 + classes, boxes)`` with centre, width and height in pixels of the input, as
    YOLOs do; or ``logits`` and ``pred_boxes``, as DETRs do. In the first tensor the score is that of the class times the
    objectness. The box is decided on the images themselves and then kept: by its place in the tensor, or, in a list, by its
    overlap.

    Attributes:
        label: the class; None for the best of all.
        index: the number of the box, in the tensor or the list; found if None.
        box: ``(x0, y0, x1, y1)`` in pixels of the input: the box that overlaps most with it is meant; the one of the highest
            score for the class if None.
        reduce: ``best`` for one box; ``sum`` for all boxes of which the class is the best one.
        layout: how a tensor of boxes is laid out: ``boxes_first``, ``boxes_last``, or ``auto`` where the shape tells.
        meant: once frozen, the box and the class that are meant in each image.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 9.0, 9.0]])
        >>> outputs = [{"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.5])}]
        >>> Detection(2).frozen(outputs, 1).scores(outputs)
        tensor([0.5000])
    """

    label: int | None = None
    index: int | None = None
    box: Sequence[float] | None = None
    reduce: Literal["best", "sum"] = "best"
    layout: Layout = "auto"
    size: Sequence[int] = field(default=(1, 1), kw_only=True, repr=False)
    meant: Meant | None = field(default=None, kw_only=True, repr=False)

    is_local = True
    has_class_scores = False

    def known(self, size: Sequence[int], activation: Activation) -> Detection:
        """Give the target with the size of the input, in whose pixels boxes are."""
        return self if self.meant is not None else replace(self, size=tuple(size))

    def frozen(self, outputs: Any, count: int) -> Detection:
        """Decide which box and class is meant in each image.

        Raises:
            TargetError: the network is no detector, returns a shape of two readings, or found nothing that fits; or the choices
                exclude each other.
        """
        if self.meant is not None:
            return self
        self._check()
        if (lists := detections_in(outputs, count)) is not None:
            chosen = [self._in_list(i, detections) for i, detections in enumerate(lists)]
            labels, corners, places = map(torch.stack, zip(*chosen, strict=True))
            return replace(self, meant=Meant(labels, corners, places, None))
        return replace(self, meant=self._in_tensor(boxes_in(outputs, count, self.size, self.layout)))

    def _check(self) -> None:
        """Refuse choices that are no choices, or exclude each other."""
        if self.reduce not in ("best", "sum") or self.layout not in LAYOUTS:
            raise TargetError(
                f"reduce is 'best' or 'sum', and layout 'auto', 'boxes_first' or 'boxes_last'; got {self.reduce!r} and "
                f"{self.layout!r}"
            )
        for name, value in (("label", self.label), ("index", self.index)):
            if value is not None and (not is_index(value) or value < 0):
                raise TargetError(f"the {name} of a detection is a number from 0 on, or None; got {value!r}")
        if self.box is not None and not _is_box(self.box):
            raise TargetError(f"a box is (x0, y0, x1, y1) in pixels of the input, x0 < x1 and y0 < y1; got {self.box!r}")
        if (self.index is not None) + (self.box is not None) + (self.reduce == "sum") > 1:
            raise TargetError("a detection is found by its index, by its box, or is the sum of a class; give one of them")
        if self.reduce == "sum" and self.label is None:
            raise TargetError("a sum is over the boxes of one class; name it, as in Detection(17, reduce='sum')")

    def _in_list(self, image: int, detections: Listed) -> tuple[Tensor, Tensor, Tensor]:
        """Find the class, the box and the number of the detection that fits best in one image."""
        boxes, labels, scores = (detections[key].detach() for key in ("boxes", "labels", "scores"))
        of_class = torch.ones_like(labels, dtype=torch.bool) if self.label is None else labels == self.label
        if self.index is not None:
            of_class = of_class & (torch.arange(len(labels), device=labels.device) == self.index)
        rank = scores if self.box is None else overlap(boxes, self.box)
        rank = rank.where(of_class & ((rank > 0) | (self.box is None)), -torch.inf)
        if not rank.isfinite().any():
            raise TargetError(self._missing(image, labels))
        best = rank.argmax()
        return labels[best].long(), boxes[best] if self.reduce == "best" else torch.full_like(boxes[best], torch.nan), best

    def _missing(self, image: int, labels: Tensor) -> str:
        """Say what is not in the list of one image, whose classes are ``labels``, and what to do."""
        if not len(labels):
            return (
                f"the network detected nothing in image {image}; give another image, or let the network keep boxes of lower "
                "scores: torchvision's are built with score_thresh=0, R-CNNs with box_score_thresh=0 (by --model-args in the "
                "command)"
            )
        classes = sorted(set(labels.tolist()))
        if self.label is not None and self.label not in classes:
            listed = f"{', '.join(map(str, classes[:10]))}{', …' * (len(classes) > 10)}"
            return f"no box of class {self.label} is among the {len(labels)} of image {image}; ask for one of {listed}"
        kind = "" if self.label is None else f" of class {self.label}"
        if self.index is not None:
            return f"there is no box {self.index}{kind} in image {image}, whose boxes are 0 to {len(labels) - 1}"
        assert self.box is not None, "any other fits"
        return f"no box{kind} in image {image} overlaps with {tuple(self.box)}; give one in pixels of the input"

    def _in_tensor(self, boxes: Boxes) -> Meant:
        """Find the class and the place of the box that fits best in each image."""
        scores, count = boxes.scores.detach(), boxes.scores.shape[1]
        if self.label is None and boxes.has_no_object:
            raise TargetError(
                "one of the logits may stand for no object, so that none is the best; name a class, Detection(17)"
            )
        if self.label is not None:
            check_class(self.label, scores.shape[2])
        if self.reduce == "sum":
            return self._sum(boxes)
        if self.index is not None:
            if self.index >= count:
                raise TargetError(f"there is no box {self.index}: the network returns {count}, 0 to {count - 1}")
            place = torch.full((len(scores),), self.index, device=scores.device)
        elif self.box is not None:
            shares = overlap(boxes.corners, self.box)
            place = shares.argmax(1)
            if missing := (shares.amax(1) <= 0).nonzero().flatten().tolist():
                raise TargetError(
                    f"no box of image {missing[0]} overlaps with {tuple(self.box)}; give one in pixels of the input"
                )
        else:
            place = (scores.amax(2) if self.label is None else scores[..., self.label]).argmax(1)
        images = torch.arange(len(scores), device=scores.device)
        labels = scores[images, place].argmax(1) if self.label is None else torch.full_like(place, self.label)
        weights = torch.nn.functional.one_hot(place, count).to(scores.dtype)
        return Meant(labels, boxes.corners[images, place], place, weights)

    def _sum(self, boxes: Boxes) -> Meant:
        """Find the boxes of which the class is the best one."""
        assert self.label is not None, "a sum is over a class"
        scores = boxes.scores.detach()
        weights = (scores.argmax(2) == self.label).to(scores.dtype)
        if empty := (weights.amax(1) == 0).nonzero().flatten().tolist():
            raise TargetError(f"class {self.label} is the best of no box of image {empty[0]}; ask for reduce='best'")
        labels = torch.full((len(scores),), self.label, device=scores.device)
        return Meant(labels, torch.full_like(boxes.corners[:, 0], torch.nan), torch.zeros_like(labels), weights)

    def scores(self, outputs: Any) -> Tensor:
        """Read the score of each image's detection, ``(N,)``; zero where nothing in a list overlaps with it any more."""
        assert self.meant is not None, "frozen before it is asked"
        meant = self.meant
        if meant.weights is None:
            lists = detections_in(outputs, len(meant.labels)) or ()
            each = zip(lists, meant.corners, meant.labels, meant.places, strict=True)
            return torch.stack([self._score_in_list(*of_image) for of_image in each])
        scores = boxes_in(outputs, len(meant.labels), self.size, self.layout).scores
        of_class = scores.gather(2, meant.labels[:, None, None].expand(-1, scores.shape[1], 1))[..., 0]
        return (of_class * meant.weights).sum(1)

    def by_class(self, outputs: Any) -> Tensor | None:
        """Read the scores of all classes in the same boxes, ``(N, classes)``; None in a list, whose boxes have one class."""
        assert self.meant is not None, "frozen before it is asked"
        if self.meant.weights is None:
            return None
        boxes = boxes_in(outputs, len(self.meant.labels), self.size, self.layout)
        scores = (boxes.scores * self.meant.weights[..., None]).sum(1)
        return scores[:, :-1] if boxes.has_no_object else scores

    def _score_in_list(self, detections: Listed, box: Tensor, label: Tensor, place: Tensor) -> Tensor:
        """Read the score of the detection of this class that overlaps most with ``box``, or the sum of the class.

        A box without area, as detectors cut them off at the edge of the image, overlaps with none, and is found if it is the
        same; of several that are, the one next to ``place`` in the list.
        """
        scores, boxes, of_class = detections["scores"], detections["boxes"].detach(), detections["labels"] == label
        if self.reduce == "sum":
            return (scores * of_class.to(scores.dtype)).sum()
        shares = overlap(boxes, box).masked_fill((boxes == box).all(-1), 1).masked_fill(~of_class, 0)
        if not shares.any():
            return scores.sum() * 0
        best = (shares == shares.max()).nonzero()[:, 0]
        return scores[best[(best - place).abs().argmin()]]

    def rows(self, some: slice) -> Detection:
        """Give the detections of ``some`` of the images."""
        return self if self.meant is None else replace(self, meant=self.meant.changed(lambda v: v[some]))

    def repeated(self, times: int) -> Detection:
        """Give the detections for the batch repeated so many ``times``."""
        return self if self.meant is None else replace(self, meant=self.meant.changed(lambda v: torch.cat([v] * times)))

    @property
    def classes(self) -> Tensor | None:
        """The class of the detection in each image, ``(N,)`` int64, once frozen."""
        return None if self.meant is None else self.meant.labels

    def words(self, image: int, labels: Sequence[str] | None) -> str:
        """Say which class, and where its box is."""
        assert self.meant is not None, "frozen before it is asked"
        called = named(int(self.meant.labels[image]), labels)
        if self.reduce == "sum":
            return f"all boxes of {called}"
        return f"{called} in the box {', '.join(f'{v:.0f}' for v in self.meant.corners[image].tolist())}"

    def __str__(self) -> str:
        label = "a detection" if self.label is None else f"a detection of class {self.label}"
        return label if self.box is None else f"{label} at {tuple(self.box)}"


def _is_box(box: Any) -> bool:
    """Tell whether it is four finite numbers, the corners of an area."""
    try:
        x0, y0, x1, y1 = map(float, box)
    except (TypeError, ValueError):
        return False
    return math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1


def fitting_label(outputs: Any, count: int, *, predicted: bool) -> int | None:
    """Find a class that is detected in the first of ``count`` images, or an example of one; None if there is none.

    Raises:
        TargetError: several tensors can be the boxes, or one is laid out in either of two ways.
    """
    if lists := detections_in(outputs, count):
        if not predicted:
            return EXAMPLE
        labels = lists[0]["labels"]
        return int(labels[0]) if len(labels) else None
    boxes = find_boxes(outputs, count, (1, 1))
    if boxes is None:
        return None
    scores = boxes.scores.detach()[0]
    classes = scores[:, :-1] if boxes.has_no_object and scores.shape[1] > 1 else scores
    return int(classes.amax(0).argmax()) if predicted else min(EXAMPLE, classes.shape[1] - 1)
