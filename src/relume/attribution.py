"""The methods one by one, as classes with the verb that attribution libraries share, and the original recipe's calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from relume.engine.graph import GuidesItself
from relume.engine.inputs import Inputs, Model, Output
from relume.engine.reading import LayerLike, Rectifiers, Reshape
from relume.errors import InputError
from relume.explanation.result import Explanation
from relume.explanation.run import Options, explain
from relume.methods.base import METHODS, Method, backpropagation
from relume.methods.gradients import Fuse
from relume.rules import Rule
from relume.targets import TargetLike

__all__ = [
    "Backpropagation",
    "Deconvolution",
    "GradCAM",
    "Gradient",
    "GuidedBackpropagation",
    "GuidedGradCAM",
    "GuidedReLU",
    "compute_guided_gradcam",
]

Layers: TypeAlias = "LayerLike | Sequence[LayerLike] | None"


class _Attribution:
    """One method bound to one model."""

    def __init__(
        self, model: Model, method: Method, target_layer: Layers = None, *, reshape: Reshape | None = None, fuse: Fuse = "mean"
    ) -> None:
        self._model: Model | None = model
        self._method, self._layer = method, target_layer
        self._options: Options = {"reshape": reshape, "fuse": fuse, "evidence": False}

    def _explain(self, images: Inputs, target: TargetLike, options: Options) -> Explanation:
        if self._model is None:
            raise InputError(f"this {type(self).__name__} was released by remove_hooks(); make a new one")
        options = {**self._options, **options}
        return explain(self._model, images, target, [self._method], self._layer, **options)

    def attribute(
        self,
        images: Inputs,
        target: TargetLike = None,
        *,
        wrt: int | str | None = None,
        output: Output = None,
        rectifiers: Rectifiers = "all",
        chunk: int | None = None,
    ) -> Tensor:
        """The raw map: signed ``(N, C, *spatial)``, or Grad-CAM's ``(N, *layer's spatial axes)``.

        Arguments and errors are those of :func:`relume.explain`.
        """
        options: Options = {"wrt": wrt, "output": output, "rectifiers": rectifiers, "chunk": chunk}
        return self._explain(images, target, options)[self._method.key]

    def __call__(self, images: Tensor, target: TargetLike = None, device: torch.device | str | None = None) -> Tensor:
        """Return the saliency, ``(N, *spatial)``, not negative; ``device`` is where the model is and the images go."""
        return self._called(images, target, device).saliency(self._method.key)

    def _called(self, images: Tensor, target: TargetLike, device: torch.device | str | None) -> Explanation:
        if not isinstance(images, Tensor):
            raise InputError(f"images are a tensor (N, C, H, W); got {type(images).__name__}")
        return self._explain(images.to(device), target, {})

    def remove_hooks(self) -> None:
        """Release the model. There are no hooks to remove: none outlives the call that needed it."""
        self._model = None


class Backpropagation(_Attribution):
    """The gradient with respect to the input by any rule: ``relume.Backpropagation(model, rule)``."""

    def __init__(self, model: Model, rule: Rule) -> None:
        """Bind ``rule``, a function ``(grad_out, local) -> grad_in`` as in :mod:`relume.rules`, to ``model``."""
        super().__init__(
            model, backpropagation(name if (name := getattr(rule, "__name__", "")).isidentifier() else "rule", rule)
        )


class Gradient(_Attribution):
    """The plain gradient: Simonyan et al. 2013, arXiv:1312.6034."""

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["gradient"])


class Deconvolution(_Attribution):
    """The deconvnet: Zeiler & Fergus 2014, arXiv:1311.2901."""

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["deconvnet"])


class GuidedBackpropagation(_Attribution):
    """Guided backpropagation: Springenberg et al. 2015, arXiv:1412.6806."""

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["guided_backprop"])


class GradCAM(_Attribution):
    """Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391. Not normalised."""

    def __init__(
        self, model: Model, target_layer: Layers = None, *, reshape: Reshape | None = None, fuse: Fuse = "mean"
    ) -> None:
        """Bind the method to ``model`` and its ``target_layer``: a module, its name, several of them, or None to choose."""
        super().__init__(model, METHODS["gradcam"], target_layer, reshape=reshape, fuse=fuse)

    def __call__(self, images: Tensor, target: TargetLike = None, device: torch.device | str | None = None) -> Tensor:
        """Return the heat at the layer's own resolution, not negative: ``(h, w)`` for one image, ``(N, h, w)`` for several.

        The original recipe upsamples it itself: ``F.interpolate(heat[None, None], size=image.shape[2:], mode="bilinear")``.
        """
        heat = self._called(images, target, device)[self._method.key]
        return heat[0] if len(heat) == 1 else heat


class GuidedGradCAM(_Attribution):
    """Guided Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391, section 3.1."""

    def __init__(
        self, model: Model, target_layer: Layers = None, *, reshape: Reshape | None = None, fuse: Fuse = "mean"
    ) -> None:
        """Bind the method to ``model`` and its ``target_layer``: a module, its name, several of them, or None to choose."""
        super().__init__(model, METHODS["guided_gradcam"], target_layer, reshape=reshape, fuse=fuse)


class GuidedReLU(GuidesItself, torch.autograd.Function):
    """ReLU whose backward pass is guided, ``g · 1[x > 0] · 1[g > 0]``, for a network written with it.

    relume does not need it: rules are applied to any network as it is. It is the definition in its shortest form.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """``g · 1[x > 0] · 1[g > 0]``."""
        (y,) = ctx.saved_tensors
        grad: Tensor = grad_outputs[0].clamp(min=0) * (y > 0)
        return grad


def compute_guided_gradcam(
    model: Model,
    target_layer: Layers,
    image: Tensor,
    target: TargetLike = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Guided Grad-CAM, guided backpropagation and Grad-CAM of one image, from one forward pass.

    Args:
        model: as for :func:`relume.explain`.
        target_layer: a module of the model, its dotted name, or None to choose.
        image: ``(C, H, W)`` or ``(1, C, H, W)``.
        target: the class; the predicted one if None.
        device: where the model is and the image goes.

    Returns:
        Guided Grad-CAM ``(H, W)`` and guided backpropagation ``(H, W)`` as saliency, not negative, and Grad-CAM ``(h, w)``
        at the resolution of the layer.

    Raises:
        InputError: more than one image, or as :func:`relume.explain`.
    """
    images = image.to(device)[None] if image.ndim == 3 else image.to(device)
    if len(images) != 1:
        raise InputError(f"compute_guided_gradcam takes one image, and got {len(images)}; relume.explain takes a batch")
    e = explain(model, images, target, ("guided_gradcam", "guided_backprop", "gradcam"), target_layer, evidence=False)
    return e.saliency("guided_gradcam")[0], e.saliency("guided_backprop")[0], e["gradcam"][0]
