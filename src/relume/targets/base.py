"""What is explained: a target is a callable ``outputs -> (N,)``, and :func:`resolve` makes one of whatever the user gave.

A resolved target is frozen: the predicted class is decided once, on the outputs it is resolved with, and stays the same
when the target is asked again about outputs of a smoothed, perturbed or randomised run.

Beside classes there are :class:`Contrast` (why this class and not that), :class:`Segmentation`, :class:`Box`, and units inside
the network, :class:`Neuron` and :class:`Channel`, which are asked about the output of their layer and not of the network.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn

from relume.errors import TargetError
from relume.targets.outputs import class_scores, pixel_scores

__all__ = [
    "Box",
    "Channel",
    "ClassTarget",
    "Contrast",
    "Frozen",
    "Neuron",
    "Segmentation",
    "Target",
    "TargetLike",
    "Unit",
    "classes_of",
    "has_place",
    "resolve",
    "tiled",
]

Target: TypeAlias = Callable[[Any], Tensor]
TargetLike: TypeAlias = "int | Sequence[int] | Tensor | Target | Unit | None"
Frozen: TypeAlias = "Target | Unit"


@dataclass(frozen=True, slots=True, eq=False)
class ClassTarget:
    """The score of one class per sample; ``index`` is ``(N,)``, int64."""

    index: Tensor

    def __call__(self, outputs: Any) -> Tensor:
        """The score of each sample's class, ``(N,)``."""
        return class_scores(outputs, len(self.index)).gather(1, self.index[:, None])[:, 0]


def resolve(target: TargetLike, outputs: Any, batch: int) -> Target:
    """Freeze ``target`` for a batch of ``batch`` samples that gave ``outputs``.

    ``None`` is the predicted class of each sample; an int is that class for all; a sequence or a 1-D tensor gives one class per
    sample; a callable is taken as it is.

    Raises:
        TargetError: wrong type, wrong length, or a class that the network does not have.
    """
    if isinstance(target, Contrast | Segmentation | Box):
        return target.frozen(outputs, batch)
    if callable(target) and not isinstance(target, Tensor):
        return target
    scores = class_scores(outputs, batch)
    if target is None:
        return ClassTarget(scores.detach().argmax(dim=1))
    classes = classes_of(target, batch)
    known = scores.shape[1]
    for index in classes:
        if not 0 <= index < known:
            raise TargetError(f"class {index} is out of range: the network has {known} classes, 0 to {known - 1}")
    return ClassTarget(torch.tensor(classes, device=scores.device))


# --- More than a class ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Why ``a`` and not ``b``: the difference of two scores, each any target, such as ``Contrast(None, 281)``.

    Prabhushankar et al. 2020, arXiv:2008.00178, explain networks by such questions.
    """

    a: TargetLike
    b: TargetLike

    def frozen(self, outputs: Any, batch: int) -> Contrast:
        """The same with both sides resolved.

        Raises:
            TargetError: both sides are the same class in some image.
        """
        a, b = resolve(self.a, outputs, batch), resolve(self.b, outputs, batch)
        if isinstance(a, ClassTarget) and isinstance(b, ClassTarget):
            for image in (a.index == b.index).nonzero().flatten().tolist():
                of = "" if batch == 1 else f" of image {image}"
                raise TargetError(
                    f"class {int(a.index[image])}{of} is contrasted with itself, which explains nothing; name another"
                )
        return Contrast(a, b)

    def __call__(self, outputs: Any) -> Tensor:
        """The score of ``a`` less that of ``b``, ``(N,)``; both resolved."""
        assert callable(self.a), "resolved before it is asked"
        assert callable(self.b), "resolved before it is asked"
        return self.a(outputs) - self.b(outputs)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The scores of a class summed over pixels: those of ``mask``, or those that the network itself gives to the class.

    Vinogradova et al. 2020, arXiv:2002.11434.

    Attributes:
        index: the class.
        mask: boolean, ``(H, W)`` or ``(N, H, W)``, of the size of the network's output; None for the predicted pixels.
    """

    index: int
    mask: Tensor | None = None

    def frozen(self, outputs: Any, batch: int) -> Segmentation:
        """The same with its pixels decided.

        Raises:
            TargetError: no such class, a mask of another size, or no pixel at all.
        """
        scores = pixel_scores(outputs, batch)
        known, size = scores.shape[1], tuple(scores.shape[2:])
        if not _is_index(self.index):
            raise TargetError(f"a segmentation target is about one class, an index such as Segmentation(3); got {self.index!r}")
        if not 0 <= self.index < known:
            raise TargetError(f"class {self.index} is out of range: the network has {known} classes, 0 to {known - 1}")
        mask = scores.detach().argmax(1) == self.index if self.mask is None else torch.as_tensor(self.mask).bool()
        if tuple(mask.shape) not in (size, (batch, *size)):
            raise TargetError(f"the mask has shape {tuple(mask.shape)}, and the network's output {size}; give one of that size")
        mask = mask.to(scores.device).expand(batch, *size)
        if empty := [i for i, of in enumerate(mask.flatten(1).any(1).tolist()) if not of]:
            raise TargetError(f"no pixel of image {empty[0]} belongs to class {self.index} or its mask; give another")
        return Segmentation(self.index, mask)

    def __call__(self, outputs: Any) -> Tensor:
        """The sum of each sample's scores over its pixels, ``(N,)``."""
        assert self.mask is not None, "resolved before it is asked"
        scores = pixel_scores(outputs, len(self.mask))[:, self.index]
        # a product with booleans would be listed as a rectifier that somebody may have written by hand
        return (scores * self.mask.to(scores.dtype)).flatten(1).sum(1)


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """The score of one detection in each image, of a detector that returns ``boxes``, ``labels`` and ``scores`` for each.

    Attributes:
        label: the class it must have; any if None.
        box: ``x0 y0 x1 y1``: the detection that overlaps most with it is meant; the one of the highest score if None.
    """

    label: int | None = None
    box: tuple[float, float, float, float] | None = None

    def frozen(self, outputs: Any, batch: int) -> Target:
        """Which box and label is meant in each image, decided.

        Raises:
            TargetError: the network is no detector, or found nothing that fits.
        """
        found = _detections(outputs, batch)
        meant: list[tuple[Tensor, int]] = []
        for i, detected in enumerate(found):
            fits = (
                torch.ones_like(detected["scores"], dtype=torch.bool)
                if self.label is None
                else detected["labels"] == self.label
            )
            rank = detected["scores"].detach() if self.box is None else _overlap(detected["boxes"].detach(), self.box)
            rank = rank.masked_fill(~fits, 0)
            if not rank.any():
                raise TargetError(f"nothing was detected in image {i} that fits {self}")
            best = int(rank.argmax())
            meant.append((detected["boxes"][best].detach(), int(detected["labels"][best])))

        def scores(outputs: Any) -> Tensor:
            return torch.stack([_score_at(d, *m) for d, m in zip(_detections(outputs, batch), meant, strict=True)])

        return scores


def _detections(outputs: Any, batch: int) -> Sequence[Mapping[str, Tensor]]:
    needed = {"boxes", "labels", "scores"}
    if (
        isinstance(outputs, Sequence)
        and len(outputs) == batch
        and all(isinstance(d, Mapping) and needed <= d.keys() for d in outputs)
    ):
        return outputs
    raise TargetError(
        "a box target needs a detector that returns boxes, labels and scores for each image; this network does not"
    )


def _score_at(detected: Mapping[str, Tensor], box: Tensor, label: int) -> Tensor:
    """The score of the detection of this label that overlaps most with ``box``; zero where none does."""
    overlap = _overlap(detected["boxes"].detach(), box).masked_fill(detected["labels"] != label, 0)
    return detected["scores"][overlap.argmax()] if overlap.any() else detected["scores"].sum() * 0


def _overlap(boxes: Tensor, box: Any) -> Tensor:
    """Intersection over union of each of ``boxes`` ``(D, 4)`` with ``box``."""
    other = torch.as_tensor(box, dtype=boxes.dtype, device=boxes.device)
    sides = (torch.minimum(boxes[:, 2:], other[2:]) - torch.maximum(boxes[:, :2], other[:2])).clamp(min=0)
    areas = [(b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, other)]
    shared = sides.prod(-1)
    return shared / (areas[0] + areas[1] - shared)


# --- Units inside the network --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Unit(ABC):
    """A channel of a layer: what does it look for? Springenberg et al. 2015 and Zeiler & Fergus 2014 explain these.

    Attributes:
        layer: a module of the model or its dotted name.
        channel: which of its channels.
    """

    layer: nn.Module | str
    channel: int

    def __str__(self) -> str:
        return f"channel {self.channel}"

    def frozen(self, name: str, values: Tensor) -> Self:
        """The same with its place decided in its layer's output ``(N, channels, *spatial)``.

        Raises:
            TargetError: the layer, called ``name``, has no such channel or place.
        """
        channels = values.shape[1]
        if not _is_index(self.channel):
            raise TargetError(f"a unit is a channel of its layer, a number from 0 on; got {self.channel!r}")
        if not 0 <= self.channel < channels:
            raise TargetError(f"layer {name!r} has {channels} channels, 0 to {channels - 1}; there is no {self.channel}")
        return self

    @abstractmethod
    def value(self, values: Tensor) -> Tensor:
        """The unit's value in each sample's map, ``(N,)``; frozen before it is asked."""


class Channel(Unit):
    """The mean of a channel over its map: ``Channel("layer4", 7)``."""

    def value(self, values: Tensor) -> Tensor:
        """The mean over the map, ``(N,)``."""
        return values[:, self.channel].flatten(1).mean(1) if values.ndim > 2 else values[:, self.channel]


@dataclass(frozen=True, slots=True, eq=False)
class Neuron(Unit):
    """One place of a channel's map: ``Neuron("layer4", 7, (3, 5))``; where it is highest in each image, if not given.

    A layer without spatial axes, such as a fully connected one, has one place: ``Neuron("fc", 3)``.

    Attributes:
        position: the place; ``()`` in a layer without spatial axes.
        places: once decided, the place in each image, ``(N,)`` int64, counted along the rows.
    """

    position: tuple[int, ...] | None = None
    places: Tensor | None = field(default=None, kw_only=True, repr=False)

    def __str__(self) -> str:
        return f"channel {self.channel}" + (
            " where it is highest" if self.position is None else f" at {self.position}" if self.position else ""
        )

    def frozen(self, name: str, values: Tensor) -> Neuron:
        """The same with its place decided, as of any unit; a place that was decided stays."""
        Unit.frozen(self, name, values)
        size = tuple(values.shape[2:])
        if self.places is not None:
            return self
        position = () if self.position is None and not size else self.position
        if position is None:
            return replace(self, places=self._cells(values).detach().argmax(1))
        if not _is_place(position, size):
            said = f"has a map of {size}, and {position!r} is no place in it" if size else "has no spatial axes"
            raise TargetError(f"layer {name!r} {said}; leave the position out{' for the highest place' if size else ''}")
        place = sum(p * math.prod(size[i + 1 :]) for i, p in enumerate(position))
        return replace(self, position=position, places=torch.full((len(values),), place, device=values.device))

    def _cells(self, values: Tensor) -> Tensor:
        """Take the channel's value at every place, ``(N, places)``."""
        return values[:, self.channel].reshape(len(values), -1)

    def value(self, values: Tensor) -> Tensor:
        """The value at the place, ``(N,)``."""
        assert self.places is not None, "frozen before it is asked"
        return self._cells(values).gather(1, self.places[:, None])[:, 0]


def _is_index(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_place(position: object, size: Sequence[int]) -> bool:
    if not isinstance(position, Sequence) or len(position) != len(size):
        return False
    return all(_is_index(p) and 0 <= p < s for p, s in zip(position, size, strict=True))


# --- Copies of the images ------------------------------------------------------------------------------------------------


def tiled(target: Frozen, times: int) -> Frozen | None:
    """A frozen ``target`` for ``times`` copies of the samples, one batch after the other.

    None for a callable: nothing tells which of the outputs' rows it means.
    """
    match target:
        case ClassTarget(index):
            return ClassTarget(index.repeat(times))
        case Contrast(a, b) if callable(a) and callable(b):
            one, other = tiled(a, times), tiled(b, times)
            return None if one is None or other is None else Contrast(one, other)
        case Segmentation(index, Tensor() as mask):
            return Segmentation(index, mask.repeat(times, 1, 1))
        case Neuron(places=Tensor() as places):
            return replace(target, places=places.repeat(times))
        case Channel():
            return target
    return None


def has_place(target: TargetLike) -> bool:
    """Whether ``target`` means something at a place of the picture."""
    if isinstance(target, Contrast):
        return has_place(target.a) or has_place(target.b)
    return isinstance(target, Neuron | Segmentation | Box)


def classes_of(target: Any, batch: int) -> list[int]:
    """The class of each of ``batch`` samples in ``target``; what only looks like an int (bool, float, str) is refused.

    Raises:
        TargetError: wrong type or wrong length.
    """
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
    if len(indices) == 1 and (isinstance(target, int) or getattr(target, "ndim", None) == 0):
        indices *= batch
    if len(indices) != batch:
        raise TargetError(f"{len(indices)} targets were given for {batch} samples; give one class, or one per sample")
    return indices
