"""The subject of an audit: one method's map of one target in each image, by one network, made again as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from relume.auditing.frozen import freeze
from relume.engine.inputs import Inputs, Model, Output, stacked
from relume.engine.layers import layer_name
from relume.engine.wrappers import unwrap
from relume.errors import InputError, ModelError
from relume.explanation.calibration import Calibration
from relume.explanation.comparison import compare
from relume.explanation.request import Layers, Request
from relume.explanation.result import Explanation
from relume.explanation.run import explain
from relume.maps import MapInfo
from relume.measures.similarity import Maps
from relume.methods.wrapper import AnyMethod, MethodLike, resolve_methods
from relume.targets import Class, Target, TargetLike, as_target
from relume.targets.activation import Activation

__all__ = ["BATCH_SIZE", "How", "Progress", "Subject", "check_how", "parts", "unseen"]

#: Images that go through the network at once, if nothing else is said.
BATCH_SIZE = 16

#: How weights are made random: by each layer's own ``reset_parameters``, or by shuffling them.
How: TypeAlias = Literal["reset", "shuffle"]

#: Sees the progress of a check: takes its key and the items that it goes through, and gives them one by one.
Progress: TypeAlias = Callable[[str, Sequence[Any]], Iterable[Any]]


def unseen(_: str, items: Sequence[Any]) -> Iterable[Any]:
    """Give the items, and show no progress."""
    return items


def parts(tensor: Tensor, size: int) -> Iterator[Tensor]:
    """Cut ``tensor`` along its first axis into parts that go through the network at once."""
    return (tensor[start : start + size] for start in range(0, len(tensor), size))


def check_how(how: str) -> None:
    """Refuse a word that is no way to make weights random.

    Raises:
        InputError: it is none.
    """
    if how not in get_args(How):
        raise InputError(f"weights are made random by {' or '.join(map(repr, get_args(How)))}; got {how!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network, images, a target that stays the same whatever a check does, and the maps that are audited.

    Attributes:
        model: the network; it is never touched.
        explanation: the explanation of the images by the network as it is.
        target: the target, decided on the images as they are.
        method: the method, or a wrapper such as :class:`relume.Smooth`, whose first map is audited.
        layers: the names of Grad-CAM's target layers; empty where the method reads none.
        maps: the maps that are audited.
        batch_size: how many images go through the network at once.
        output: which part of what the network returns holds the scores, as for :func:`relume.explain`.
        seed: of everything random.
        how: how weights are made random, for checks that do so.
        progress: sees the progress of long checks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import Subject
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> subject = Subject.of(network, torch.rand(2, 3, 8, 8), method="gradient")
        >>> subject.maps.raw.shape, subject.maps.saliency.shape
        ((2, 3, 8, 8), (2, 8, 8))
    """

    model: nn.Module
    explanation: Explanation
    target: Target
    method: AnyMethod
    layers: tuple[str, ...]
    maps: Maps
    batch_size: int = BATCH_SIZE
    output: Output = None
    seed: int = 0
    how: How = "reset"
    progress: Progress = unseen

    @classmethod
    def of(  # noqa: PLR0913 - each is a choice of the caller of an audit
        cls,
        model: Model,
        images: Inputs,
        target: TargetLike = None,
        method: MethodLike = "guided_backprop",
        layer: Layers = None,
        *,
        batch_size: int = BATCH_SIZE,
        activation: Activation = "auto",
        labels: Sequence[str] | None = None,
        output: Output = None,
        seed: int = 0,
        how: How = "reset",
        calibration: Calibration | None = None,
        progress: Progress = unseen,
    ) -> Subject:
        """Explain the images by the network as it is; arguments and errors are those of :func:`relume.audit`.

        Raises:
            ModelError: the model is no module, whose weights could be looked at.
            InputError: images are no tensor with one to three spatial axes, or there is no such way to make weights random.
            TargetError: the target is inside the network, or a function that no copy of an image can be given to.
        """
        if not isinstance(model, nn.Module):
            raise ModelError(f"an audit looks into the network, a torch.nn.Module; got {type(model).__name__}")
        images = stacked(model, images)
        if not isinstance(images, Tensor) or images.ndim not in (3, 4, 5):
            kind = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
            raise InputError(
                "an audit compares maps of images, a tensor (N, C, H, W), of signals (N, C, L) or of volumes (N, C, D, H, W); "
                f"got {kind}"
            )
        check_how(how)
        (resolved,) = resolve_methods([method])
        asked = as_target(target)
        request = Request(output=output, activation=activation, batch_size=batch_size)
        frozen = None if isinstance(asked, Class) else freeze(model, images, asked, request)
        explanation = explain(
            model, images, frozen or asked, [resolved], layer,
            output=output, evidence=None, activation=activation, labels=labels, batch_size=batch_size,
            calibration=calibration,
        )  # fmt: skip
        frozen = frozen or Class(explanation.target)
        given = [explanation.layer] if layer is None else [layer] if isinstance(layer, str | nn.Module) else layer
        names = [layer_name(unwrap(model), each) for each in given if each is not None]
        layers = tuple(names) if resolved.needs_layer else ()
        raw = _responding(explanation, resolved.maps[0].key, model, frozen, output, batch_size)
        maps = Maps.of(raw, tuple(images.shape[2:]))
        return cls(model, explanation, frozen, resolved, layers, maps, batch_size, output, seed, how, progress)

    @property
    def info(self) -> MapInfo:
        """Return the description of the map that is audited."""
        return self.method.maps[0]

    @property
    def images(self) -> Tensor:
        """Return the images, ``(N, C, *spatial)``."""
        return self.explanation.images

    @property
    def classes(self) -> Tensor | None:
        """Return the class explained in each image, ``(N,)`` int64; None if the target is another than a class."""
        return self.target.classes if isinstance(self.target, Class) else None

    def generator(self) -> torch.Generator:
        """Return a new generator from the seed: each check has its own, so that leaving one out does not change the others."""
        return torch.Generator().manual_seed(self.seed)

    def maps_of(self, model: nn.Module | None = None, images: Tensor | None = None) -> Maps:
        """Make the maps of the same target by another network, or in other images of the same shape.

        Where a score does not respond to its image at all, its plain gradient being zero everywhere, there is no map to
        compare, and its values are NaN: so it is where a network ends in a ReLU and the score would be negative.
        """
        model = self.model if model is None else model
        images = self.images if images is None else images
        explanation = explain(
            model, images, self.target, [self.method], self.layers or None,
            output=self.output, evidence=None, batch_size=self.batch_size,
        )  # fmt: skip
        return self._maps(explanation, model, self.target)

    def maps_for(self, classes: Sequence[Tensor]) -> list[Maps]:
        """Make the maps of the same images for each of several classes, each ``(N,)``, which share the forward pass."""
        explanations = compare(
            self.model, self.images, classes, [self.method], self.layers or None,
            output=self.output, evidence=None, batch_size=self.batch_size,
        )  # fmt: skip
        return [self._maps(e, self.model, Class(each)) for e, each in zip(explanations, classes, strict=True)]

    def _maps(self, explanation: Explanation, model: nn.Module, target: Target) -> Maps:
        raw = _responding(explanation, self.info.key, model, target, self.output, self.batch_size)
        return Maps.of(raw, tuple(self.images.shape[2:]))


def _responding(
    explanation: Explanation, key: str, model: nn.Module, target: Target, output: Output, batch_size: int
) -> Tensor:
    """Return the maps of ``explanation``, NaN where the score does not respond to its image."""
    raw = explanation[key]
    if raw.flatten(1).any(1).all():
        return raw
    images = explanation.images
    plain = explain(model, images, target, ["gradient"], output=output, evidence=None, batch_size=batch_size)["gradient"]
    responds = plain.flatten(1).any(1)
    return raw.where(responds.view(-1, *[1] * (raw.ndim - 1)), torch.nan)
