"""The methods one by one, as classes with the verb that attribution libraries share, and the original recipe's calls."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor

from relume.engine.graph import GuidesItself
from relume.engine.inputs import Inputs, Model
from relume.errors import InputError
from relume.explanation.request import Layers, Options, with_options
from relume.explanation.result import Explanation
from relume.explanation.run import explain
from relume.methods.base import METHODS, Method, backpropagation
from relume.rules import Rule
from relume.targets.base import TargetLike

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


class _Attribution:
    """One method bound to one model."""

    def __init__(self, model: Model, method: Method, target_layer: Layers = None, **options: Unpack[Options]) -> None:
        self._model: Model | None = model
        self._method, self._layer = method, target_layer
        self._options: Options = {"evidence": None, **options}

    @with_options(Options)
    def attribute(self, images: Inputs, target: TargetLike = None, **options: Unpack[Options]) -> Tensor:
        """Return the raw map: signed ``(N, C, *spatial)``, or Grad-CAM's ``(N, *coarse)`` at the resolution of its layer.

        Arguments and errors are those of :func:`relume.explain`.
        """
        return self._explain(images, target, **options)[self._method.key]

    def __call__(self, images: Tensor, target: TargetLike = None, device: torch.device | str | None = None) -> Tensor:
        """Return the saliency, ``(N, *spatial)``, not negative; ``device`` is where the model is and the images go."""
        return self._call(images, target, device).saliency(self._method.key)

    def _call(self, images: Tensor, target: TargetLike, device: torch.device | str | None) -> Explanation:
        if not isinstance(images, Tensor):
            raise InputError(f"images are a tensor (N, C, H, W); got {type(images).__name__}")
        return self._explain(images.to(device), target)

    def _explain(self, images: Inputs, target: TargetLike, **options: Unpack[Options]) -> Explanation:
        if self._model is None:
            raise InputError(f"this {type(self).__name__} was released by remove_hooks(); make a new one")
        combined: Options = {**self._options, **options}
        return explain(self._model, images, target, [self._method], self._layer, **combined)

    def remove_hooks(self) -> None:
        """Release the model. There are no hooks to remove: none outlives the call that needed it."""
        self._model = None


class Backpropagation(_Attribution):
    """The gradient with respect to the input by any rule.

    Example:
        >>> import relume, torch
        >>> def positive(grad_out, local):
        ...     return local.pull_positive(grad_out)
        >>> relume.Backpropagation(relume.open_model("demo").model, positive).attribute(torch.rand(1, 3, 96, 96), 3).shape
        torch.Size([1, 3, 96, 96])
    """

    def __init__(self, model: Model, rule: Rule) -> None:
        """Bind ``rule``, a function ``(grad_out, local) -> grad_in`` as in :mod:`relume.rules`, to ``model``."""
        name = getattr(rule, "__name__", "")
        super().__init__(model, backpropagation(name if name.isidentifier() else "rule", rule))


class Gradient(_Attribution):
    """The plain gradient: Simonyan et al. 2013, arXiv:1312.6034.

    Example:
        >>> import relume, torch
        >>> relume.Gradient(relume.open_model("demo").model).attribute(torch.rand(1, 3, 96, 96), target=3).shape
        torch.Size([1, 3, 96, 96])
    """

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["gradient"])


class Deconvolution(_Attribution):
    """The deconvnet: Zeiler & Fergus 2014, arXiv:1311.2901.

    Example:
        >>> import relume, torch
        >>> relume.Deconvolution(relume.open_model("demo").model).attribute(torch.rand(1, 3, 96, 96), target=3).shape
        torch.Size([1, 3, 96, 96])
    """

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["deconvnet"])


class GuidedBackpropagation(_Attribution):
    """Guided backpropagation: Springenberg et al. 2015, arXiv:1412.6806.

    Example:
        >>> import relume, torch
        >>> guided = relume.GuidedBackpropagation(relume.open_model("demo").model)
        >>> guided.attribute(torch.rand(2, 3, 96, 96), target=[3, 5]).shape
        torch.Size([2, 3, 96, 96])
        >>> guided(torch.rand(1, 3, 96, 96), 3).shape
        torch.Size([1, 96, 96])
    """

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["guided_backprop"])


class GradCAM(_Attribution):
    """Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391. Not normalised.

    Example:
        >>> import relume, torch
        >>> heat = relume.GradCAM(relume.open_model("demo").model, "layer2")(torch.rand(1, 3, 96, 96), 3)
        >>> heat.ndim
        2
    """

    @with_options(Options)
    def __init__(self, model: Model, target_layer: Layers = None, **options: Unpack[Options]) -> None:
        """Bind the method to ``model`` and its ``target_layer``: a module, its name, several of them, or None to choose."""
        super().__init__(model, METHODS["gradcam"], target_layer, **options)

    def __call__(self, images: Tensor, target: TargetLike = None, device: torch.device | str | None = None) -> Tensor:
        """Return the heat at the layer's own resolution, not negative: ``(h, w)`` for one image, ``(N, h, w)`` for several.

        The original recipe upsamples it itself: ``F.interpolate(heat[None, None], size=image.shape[2:], mode="bilinear")``.
        """
        heat = self._call(images, target, device)[self._method.key]
        return heat[0] if len(heat) == 1 else heat


class GuidedGradCAM(_Attribution):
    """Guided Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391, section 3.1.

    Example:
        >>> import relume, torch
        >>> relume.GuidedGradCAM(relume.open_model("demo").model).attribute(torch.rand(1, 3, 96, 96), target=3).shape
        torch.Size([1, 3, 96, 96])
    """

    @with_options(Options)
    def __init__(self, model: Model, target_layer: Layers = None, **options: Unpack[Options]) -> None:
        """Bind the method to ``model`` and its ``target_layer``: a module, its name, several of them, or None to choose."""
        super().__init__(model, METHODS["guided_gradcam"], target_layer, **options)


class GuidedReLU(GuidesItself, torch.autograd.Function):
    """ReLU whose backward pass is guided, ``g · 1[x > 0] · 1[g > 0]``, for a network written with it.

    relume does not need it: rules are applied to any network as it is. It is the definition in its shortest form.

    Example:
        >>> import relume, torch
        >>> x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
        >>> relume.GuidedReLU.apply(x).backward(torch.tensor([1.0, 1.0, -1.0]))
        >>> x.grad
        tensor([0., 1., 0.])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Compute ``max(x, 0)``."""
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """Compute ``g · 1[x > 0] · 1[g > 0]``."""
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
    """Compute Guided Grad-CAM, guided backpropagation and Grad-CAM of one image, from one forward pass.

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

    Example:
        >>> import relume, torch
        >>> network = relume.open_model("demo").model
        >>> product, guided, heat = relume.compute_guided_gradcam(network, None, torch.rand(3, 96, 96), 3)
        >>> product.shape, guided.shape, heat.shape
        (torch.Size([96, 96]), torch.Size([96, 96]), torch.Size([12, 12]))
    """
    images = image.to(device)[None] if image.ndim == 3 else image.to(device)
    if len(images) != 1:
        raise InputError(f"compute_guided_gradcam takes one image, and got {len(images)}; relume.explain takes a batch")
    e = explain(model, images, target, ("guided_gradcam", "guided_backprop", "gradcam"), target_layer, evidence=None)
    return e.saliency("guided_gradcam")[0], e.saliency("guided_backprop")[0], e["gradcam"][0]
