"""A detection as a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target

__all__ = ["Box"]


@dataclass(frozen=True, slots=True, eq=False)
class Box(Target):
    """The score of one detection in each image, of a detector that returns ``boxes``, ``labels`` and ``scores`` for each.

    Attributes:
        label: the class it must have; any if None.
        box: ``(x0, y0, x1, y1)`` in pixels: the detection that overlaps most with it is meant; the one of the highest score if
            None.
        meant: once frozen, the box ``(4,)`` and the label that are meant in each image.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 9.0, 9.0]])
        >>> outputs = [{"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.5])}]
        >>> Box(label=2).frozen(outputs, 1).scores(outputs)
        tensor([0.5000])
    """

    label: int | None = None
    box: tuple[float, float, float, float] | None = None
    meant: Sequence[tuple[Tensor, int]] | None = field(default=None, kw_only=True, repr=False)

    is_local = True

    def frozen(self, outputs: Any, count: int) -> Box:
        """Decide which box and label is meant in each image.

        Raises:
            TargetError: the network is no detector, or found nothing that fits.
        """
        if self.meant is not None:
            return self
        return replace(self, meant=[self._best(i, detected) for i, detected in enumerate(_detections(outputs, count))])

    def _best(self, image: int, detected: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Find the box and the label of the detection that fits best."""
        rank = detected["scores"].detach() if self.box is None else _overlap(detected["boxes"].detach(), self.box)
        if self.label is not None:
            rank = rank.masked_fill(detected["labels"] != self.label, 0)
        if not rank.any():
            raise TargetError(f"nothing was detected in image {image} that fits {self!r}")
        best = int(rank.argmax())
        return detected["boxes"][best].detach(), int(detected["labels"][best])

    def scores(self, outputs: Any) -> Tensor:
        """Read the score of each image's detection, ``(N,)``; zero where nothing overlaps with it any more."""
        assert self.meant is not None, "frozen before it is asked"
        detections = _detections(outputs, len(self.meant))
        return torch.stack([_score_at(d, *meant) for d, meant in zip(detections, self.meant, strict=True)])

    def rows(self, some: slice) -> Box:
        """Give the detections of ``some`` of the images."""
        return self if self.meant is None else replace(self, meant=self.meant[some])

    def repeated(self, times: int) -> Box:
        """Give the detections for the batch repeated so many ``times``."""
        return self if self.meant is None else replace(self, meant=[*self.meant] * times)

    def __str__(self) -> str:
        label = "a detection" if self.label is None else f"a detection of class {self.label}"
        return label if self.box is None else f"{label} at {self.box}"


def _detections(outputs: Any, count: int) -> Sequence[Mapping[str, Tensor]]:
    needed = {"boxes", "labels", "scores"}
    if (
        isinstance(outputs, Sequence)
        and len(outputs) == count
        and all(isinstance(d, Mapping) and needed <= d.keys() for d in outputs)
    ):
        return outputs
    raise TargetError(
        "a box target needs a detector that returns boxes, labels and scores for each image; this network does not"
    )


def _score_at(detected: Mapping[str, Tensor], box: Tensor, label: int) -> Tensor:
    """Read the score of the detection of this label that overlaps most with ``box``; zero where none does."""
    overlap = _overlap(detected["boxes"].detach(), box).masked_fill(detected["labels"] != label, 0)
    return detected["scores"][overlap.argmax()] if overlap.any() else detected["scores"].sum() * 0


def _overlap(boxes: Tensor, box: Any) -> Tensor:
    """Compute the intersection over union of each of ``boxes`` ``(D, 4)`` with ``box``."""
    other = torch.as_tensor(box, dtype=boxes.dtype, device=boxes.device)
    sides = (torch.minimum(boxes[:, 2:], other[2:]) - torch.maximum(boxes[:, :2], other[:2])).clamp(min=0)
    areas = [(b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, other)]
    shared = sides.prod(-1)
    return shared / (areas[0] + areas[1] - shared)
