"""What detectors return, read alike: the boxes of each image, and the score of each box for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.fitting import misfit
from relume.targets.outputs import candidates, the_one

__all__ = ["LAYOUTS", "Boxes", "Layout", "Listed", "boxes_in", "detections_in", "find_boxes", "overlap"]

#: How a tensor of boxes is laid out: ``(N, boxes, 4 + 1 + classes)`` or ``(N, 4 + classes, boxes)``; ``auto`` asks the shape.
Layout: TypeAlias = Literal["auto", "boxes_first", "boxes_last"]

LAYOUTS: tuple[Layout, ...] = ("auto", "boxes_first", "boxes_last")

#: The detections of one image, as torchvision returns them: ``boxes`` ``(D, 4)``, ``labels`` ``(D,)``, ``scores`` ``(D,)``.
Listed: TypeAlias = Mapping[str, Tensor]

NEEDS = (
    "a detection target needs boxes: a list of boxes, labels and scores for each image, a tensor "
    "(N, boxes, 4 + 1 + classes) or (N, 4 + classes, boxes), or logits and pred_boxes"
)


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The boxes that a network returns at fixed places of a tensor, the same number for every image.

    Attributes:
        scores: the score of each box for each class, ``(N, boxes, classes)``.
        corners: ``(x0, y0, x1, y1)`` of each, ``(N, boxes, 4)``, in pixels of the input.
        has_no_object: True if a class may stand for no object at all.
    """

    scores: Tensor
    corners: Tensor
    has_no_object: bool = False


def detections_in(outputs: Any, count: int | None) -> Sequence[Listed] | None:
    """Find the lists of detections that torchvision's detectors return, one for each of ``count`` images; None if none."""
    needed = {"boxes", "labels", "scores"}
    listed = isinstance(outputs, Sequence) and not isinstance(outputs, str) and count in (None, len(outputs))
    return outputs if listed and all(isinstance(d, Mapping) and needed <= d.keys() for d in outputs) else None


def boxes_in(outputs: Any, count: int | None, size: Sequence[int], layout: Layout = "auto") -> Boxes:
    """Find the boxes that a network returned for ``count`` images of the spatial ``size`` ``(H, W)``.

    A tensor of one layout holds the objectness of a box, by which the scores of its classes are multiplied; that of the other
    has none. The logits of DETR are taken as they are.

    Raises:
        TargetError: there are none, or the shape fits both layouts.

    Example:
        >>> import torch
        >>> boxes_in(torch.rand(2, 7, 21), 2, (64, 64)).scores.shape
        torch.Size([2, 21, 3])
    """
    boxes = find_boxes(outputs, count, size, layout)
    if boxes is None:
        raise misfit(NEEDS, outputs, count)
    return boxes


def find_boxes(outputs: Any, count: int | None, size: Sequence[int], layout: Layout = "auto") -> Boxes | None:
    """Find the boxes, as :func:`boxes_in` does; None if there are none."""
    tensors = candidates(outputs, count, (3,))
    named = {name.rpartition(".")[2]: tensor for name, tensor in tensors}
    if {"logits", "pred_boxes"} <= named.keys():
        height, width = size[-2:]
        boxes = named["pred_boxes"]
        return Boxes(named["logits"], _corners(boxes * boxes.new_tensor([width, height, width, height])), has_no_object=True)
    fitting = [(name, tensor) for name, tensor in tensors if _layouts(tensor, layout)]
    if not fitting:
        return None
    values = the_one(fitting, (), outputs)
    layouts = _layouts(values, layout)
    if len(layouts) > 1:
        _, a, b = values.shape
        raise TargetError(
            f"the shape {tuple(values.shape)} may be {a} boxes of {b - 5} classes, layout='boxes_first', "
            f"or {b} boxes of {a - 4} classes, layout='boxes_last'; give the one that it is"
        )
    if layouts[0] == "boxes_first":
        return Boxes(values[..., 4:5] * values[..., 5:], _corners(values[..., :4]))
    values = values.transpose(1, 2)
    return Boxes(values[..., 4:], _corners(values[..., :4]))


def _layouts(values: Tensor, layout: Layout) -> list[Layout]:
    """List the layouts that a tensor may have: with a class at least, and not more classes than boxes unless it was given."""
    _, a, b = values.shape
    readings: list[tuple[Layout, int, int]] = [("boxes_first", a, b - 5), ("boxes_last", b, a - 4)]
    if layout != "auto":
        return [name for name, _, classes in readings if name == layout and classes > 0]
    return [name for name, boxes, classes in readings if 0 < classes <= boxes]


def _corners(boxes: Tensor) -> Tensor:
    """Make corners of centre, width and height."""
    boxes = boxes.detach()
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def overlap(boxes: Tensor, box: Any) -> Tensor:
    """Compute the intersection over union of ``boxes`` ``(…, 4)`` with ``box`` ``(4,)``, all of them corners.

    Example:
        >>> import torch
        >>> overlap(torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]]), (0, 0, 2, 1))
        tensor([0.5000, 0.0000])
    """
    other = torch.as_tensor(box, dtype=boxes.dtype, device=boxes.device)
    sides = (torch.minimum(boxes[..., 2:], other[2:]) - torch.maximum(boxes[..., :2], other[:2])).clamp(min=0)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (boxes, other)]
    shared = sides.prod(-1)
    return torch.nan_to_num(shared / (areas[0] + areas[1] - shared))
