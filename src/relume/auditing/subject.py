"""What is audited: one method's maps of one class in each picture, by one network, asked again as often as a check wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relume.engine.inputs import Inputs, Model, Output
from relume.engine.layers import layer_name
from relume.engine.reading import LayerLike
from relume.engine.wrappers import unwrap
from relume.errors import InputError, ModelError, TargetError
from relume.explanation.result import Explanation
from relume.explanation.run import explain, explain_targets
from relume.measures.similarity import Maps
from relume.methods.base import Method, resolve_method
from relume.targets import TargetLike
from relume.targets.activation import Activation

__all__ = ["BATCH", "Question", "parts"]

#: Pictures in one forward pass, if nothing else is said.
BATCH = 16


def parts(tensor: Tensor, size: int) -> list[Tensor]:
    """``tensor`` cut along its first axis into as many as go through the network at once."""
    return [tensor[start : start + size] for start in range(0, len(tensor), size)]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A method, the network, pictures, and a class of each, decided once and kept whatever happens to network and pictures.

    Attributes:
        model: the network; it is never touched.
        images: ``(N, C, H, W)``.
        classes: the class explained in each, ``(N,)`` int64.
        method: what makes the maps.
        layers: the names of Grad-CAM's target layers; empty where the method reads none.
        batch: how many pictures go through the network at once.
        output: which part of what the network returns holds the scores, as for :func:`relume.explain`.
        noise: what is added to the pictures, ``(samples, C, H, W)``, if maps are means over noisy ones; see :meth:`smoothed`.
    """

    model: nn.Module
    images: Tensor
    classes: Tensor
    method: Method
    layers: tuple[str, ...]
    batch: int = BATCH
    output: Output = None
    noise: Tensor | None = None

    @classmethod
    def ask(
        cls,
        model: Model,
        images: Inputs,
        method: str | Method,
        target: TargetLike = None,
        layer: LayerLike | Sequence[LayerLike] | None = None,
        *,
        batch: int = BATCH,
        activation: Activation = "auto",
        output: Output = None,
    ) -> tuple[Question, Explanation]:
        """The question, and its answer by the network as it is; arguments and errors are those of :func:`relume.explain`.

        Raises:
            ModelError: the model is no module, whose weights could be looked at.
            InputError: images are no batch of two-dimensional pictures.
            TargetError: the target is no class.
        """
        if not isinstance(model, nn.Module):
            raise ModelError(f"an audit looks into the network, a torch.nn.Module; got {type(model).__name__}")
        if not isinstance(images, Tensor) or images.ndim != 4:
            seen = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
            raise InputError(f"an audit compares maps of pictures, a tensor (N, C, H, W); got {seen}")
        asked = resolve_method(method)
        answer = explain(model, images, target, [asked], layer, output=output, evidence=False, activation=activation)
        if answer.target is None or answer.versus is not None:
            raise TargetError(
                f"an audit asks about a class of each picture, and the target was {target!r}; give a class, or one per picture"
            )
        given = [answer.layer] if layer is None else [layer] if isinstance(layer, str | nn.Module) else layer
        names = [layer_name(unwrap(model), each) for each in given if each is not None]
        layers = tuple(names) if asked.needs_layer else ()
        return cls(model, answer.images, answer.target, asked, layers, batch, output), answer

    def maps(self, model: nn.Module | None = None, images: Tensor | None = None, classes: Tensor | None = None) -> Maps:
        """The maps of other pictures of the same classes, by another network, or of other classes.

        Where a score does not respond to its picture at all, its plain gradient being zero everywhere, there is no map to
        compare, and its values are NaN: so it is where a network ends in a ReLU and the score would be negative.
        """
        images, classes = self.images if images is None else images, self.classes if classes is None else classes
        model = self.model if model is None else model
        samples = [images] if self.noise is None else [images + drawn for drawn in self.noise]
        raw = torch.stack([self._raw(model, sample, classes) for sample in samples])
        return Maps.of(raw.mean(0) if len(raw) > 1 else raw[0], tuple(images.shape[2:]))

    def _raw(self, model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
        pairs = zip(parts(images, self.batch), parts(classes, self.batch), strict=True)
        method, layers, output = [self.method], self.layers or None, self.output
        explained = ((explain(model, i, c, method, layers, output=output, evidence=False), c) for i, c in pairs)
        return torch.cat([self._alive(e, model, c) for e, c in explained])

    def _alive(self, e: Explanation, model: nn.Module, classes: Tensor) -> Tensor:
        """The maps of ``e``, NaN where the score does not respond."""
        raw = e[self.method.key]
        if raw.flatten(1).any(1).all():
            return raw
        plain = explain(model, e.images, classes, ["gradient"], output=self.output, evidence=False)["gradient"]
        responds = plain.flatten(1).any(1)
        return raw.where(responds.view(-1, *[1] * (raw.ndim - 1)), torch.nan)

    def maps_of(self, classes: Sequence[Tensor]) -> list[Maps]:
        """The maps of the same pictures for each of several classes, each ``(N,)``, which share the forward pass."""
        if self.noise is not None:
            return [self.maps(classes=c) for c in classes]
        found: list[list[Tensor]] = []
        for images, *asked in zip(parts(self.images, self.batch), *(parts(c, self.batch) for c in classes), strict=True):
            answers = explain_targets(
                self.model, images, asked, [self.method], self.layers or None, output=self.output, evidence=False
            )
            found.append([self._alive(e, self.model, c) for e, c in zip(answers, asked, strict=True)])
        return [Maps.of(torch.cat(raw), tuple(self.images.shape[2:])) for raw in zip(*found, strict=True)]

    def smoothed(self, generator: torch.Generator, *, samples: int = 10, share: float = 0.1) -> Question:
        """The same with every map a mean over noisy pictures, so that chance in single gradients is averaged out.

        SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825) around any method: with it, randomisation is the smooth MPRT of
        Hedström et al. 2023, arXiv:2401.06465. The noise is drawn once: the same whenever maps are compared.

        Args:
            generator: of the noise.
            samples: how many noisy pictures.
            share: ``σ`` of the noise, as a share of the range of all pictures.
        """
        low, high = self.images.aminmax()
        drawn = torch.randn((samples, *self.images.shape[1:]), generator=generator) * float(share * (high - low))
        return dataclasses.replace(self, noise=drawn.to(self.images))
