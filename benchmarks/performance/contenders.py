"""The contenders: one entry each, saying what a tool offers, how it gets its network, and how it is asked.

Every tool is called as its own documentation calls it, on a network in evaluation mode whose weights need gradients, as a
builder returns it. Each peer gets a copy of the network, since some change it; relume gets the network itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import relume
from benchmarks.performance.networks import Network
from relume.models.libraries import import_torchvision

__all__ = ["CONTENDERS", "TASKS", "Contender"]

TASKS: dict[str, tuple[str, ...]] = {
    "guided": ("guided_backprop",),
    "guided_gradcam": ("guided_gradcam",),
    "all": ("gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam"),
    "recipe": ("gradient", "guided_backprop", "gradcam", "guided_gradcam"),
}

Maps = dict[str, Tensor]
Ask = Callable[[nn.Module, Network, Tensor, Sequence[str]], Maps]


@dataclass(frozen=True, slots=True)
class Contender:
    """A tool, or a way to use it.

    Attributes:
        key: its name in the record.
        label: its name in tables.
        ask: the maps of some methods for the network's target class, by key.
        opened: the network that it is asked about, made once and not timed.
        offers: the methods it has by their definition.
        dtype: in which it computes; images and maps are float32.
        ours: whether it is relume.
        single: whether it explains one image at a time.
    """

    key: str
    label: str
    ask: Ask
    opened: Callable[[nn.Module, Tensor], nn.Module]
    offers: frozenset[str] = frozenset(TASKS["all"])
    dtype: torch.dtype = torch.float32
    ours: bool = False
    single: bool = False


# --- relume --------------------------------------------------------------------------------------------------------------


def _itself(model: nn.Module, _images: Tensor) -> nn.Module:
    return model


def _prepared(model: nn.Module, images: Tensor, **options: Any) -> nn.Module:
    prepared: nn.Module = relume.prepare(model, images[:8], **options)  # an example; a larger one only takes longer
    return prepared


def _relume(model: nn.Module, network: Network, images: Tensor, methods: Sequence[str]) -> Maps:
    e = relume.explain(model, images, network.target, methods, network.layer, evidence=None)
    return {method: e[method] for method in methods}


# --- Peers ---------------------------------------------------------------------------------------------------------------


def _copied(model: nn.Module, _images: Tensor) -> nn.Module:
    return copy.deepcopy(model)


def _captum(model: nn.Module, network: Network, images: Tensor, methods: Sequence[str]) -> Maps:
    """One call for each method, as there is none for several; Guided Grad-CAM with the interpolation of its paper."""
    from captum import attr

    layer, target = model.get_submodule(network.layer), network.target
    mode = "bilinear" if images.ndim == 4 else "trilinear"
    calls: dict[str, Callable[[], Tensor]] = {
        "gradient": lambda: attr.Saliency(model).attribute(images, target, abs=False),
        "deconvnet": lambda: attr.Deconvolution(model).attribute(images, target),
        "guided_backprop": lambda: attr.GuidedBackprop(model).attribute(images, target),
        "gradcam": lambda: attr.LayerGradCam(model, layer).attribute(images, target, relu_attributions=True)[:, 0],
        "guided_gradcam": lambda: attr.GuidedGradCam(model, layer).attribute(images, target, interpolate_mode=mode),
    }
    return {method: calls[method]() for method in methods}


def _pytorch_grad_cam(model: nn.Module, network: Network, images: Tensor, _methods: Sequence[str]) -> Maps:
    """Return ``(H, W, C)`` of a new tensor each time: on the same tensor twice the gradients would add up."""
    import_torchvision()
    from pytorch_grad_cam import GuidedBackpropReLUModel

    found = GuidedBackpropReLUModel(model=model, device=images.device)(images.detach().clone(), network.target)
    return {"guided_backprop": torch.from_numpy(found).movedim(-1, 0)[None]}


def _zennit(model: nn.Module, network: Network, images: Tensor, _methods: Sequence[str]) -> Maps:
    import_torchvision()
    from zennit.attribution import Gradient
    from zennit.composites import GuidedBackprop

    def chosen(output: Tensor) -> Tensor:
        one_hot = torch.zeros_like(output)
        one_hot[:, network.target] = 1
        return one_hot

    with Gradient(model=model, composite=GuidedBackprop()) as attributor:
        _, gradient = attributor(images.detach().clone(), chosen)
    return {"guided_backprop": gradient}


GUIDED_ALONE = frozenset({"guided_backprop"})  # pytorch-grad-cam's Grad-CAM is scaled to 0–1; zennit has none

CONTENDERS = {
    contender.key: contender
    for contender in (
        Contender("relume", "relume", _relume, _itself, ours=True),
        Contender("prepared", "relume, prepared", _relume, _prepared, ours=True),
        Contender("lean", "relume, lean", _relume, partial(_prepared, lean=True), ours=True),
        Contender(
            "bfloat16",
            "relume, bfloat16",
            _relume,
            partial(_prepared, dtype=torch.bfloat16),
            dtype=torch.bfloat16,
            ours=True,
        ),
        Contender("captum", "Captum", _captum, _copied),
        Contender("grad-cam", "pytorch-grad-cam", _pytorch_grad_cam, _copied, GUIDED_ALONE, single=True),
        Contender("zennit", "zennit", _zennit, _copied, GUIDED_ALONE),
    )
}
