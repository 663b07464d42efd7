"""The networks: random weights from a seed, statistics of BatchNorm from batches that ran through, random inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relume.models.libraries import import_torchvision

__all__ = ["NETWORKS", "Network", "wake"]

TARGET = 243

# The scale of a residual branch's last BatchNorm, which recipes for training start from zero. With branches as loud as their
# shortcut, the gradients of random weights are chaotic: the definition itself differs between one precision and the next.
BRANCH = 0.2

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class Network:
    """A network: how it is made, Grad-CAM's layer in it, the shape of an input, and the class that is explained."""

    name: str
    layer: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 224, 224)
    target: int = TARGET
    layers: int = 0  # in its name, of a family that differs in depth alone

    def build(self, *, calibrated: bool = True) -> nn.Module:
        """Return the network in evaluation mode; ``calibrated`` gives BatchNorm the statistics that its activations have."""
        torch.manual_seed(0)
        model = wake(self.make())
        if calibrated:
            _calibrate(model, self.images(4, 128 if len(self.shape) == 3 else None))
        return model.eval()

    def images(self, batch: int, side: int | None = None) -> Tensor:
        """Random inputs, ``(batch, *shape)``; a network with BatchNorm takes them of any ``side``."""
        shape = self.shape if side is None else (*self.shape[:-2], side, side)
        return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def wake(model: nn.Module) -> nn.Module:
    """``model`` with weights where its builder left zeros, with which every map would be zero, or a residual branch silent."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, 0, 0.02)
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.affine and not module.weight.any():
            nn.init.constant_(module.weight, BRANCH)
    return model


def _calibrate(model: nn.Module, images: Tensor) -> None:
    """Set running statistics to those of activations: as initialised, a deep network's would overflow or die out."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain mean over the batches
        norm.reset_running_stats()
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _torchvision(name: str) -> nn.Module:
    residual = {"zero_init_residual": True} if name.startswith("resnet") else {}
    model: nn.Module = import_torchvision().models.get_model(name, weights=None, **residual)
    return model


def _known(name: str, layer: str, shape: tuple[int, ...] = (3, 224, 224)) -> Network:
    depth = int(name.removeprefix("resnet")) if name.startswith("resnet") else 0
    return Network(name, layer, functools.partial(_torchvision, name), shape, layers=depth)


NETWORKS = {
    network.name: network
    for network in (
        *(_known(f"resnet{depth}", "layer4") for depth in (18, 34, 50, 101, 152)),
        _known("vgg16", "features.29"),
        _known("densenet121", "features"),
        _known("mobilenet_v2", "features"),
        _known("r3d_18", "layer4", (3, 16, 112, 112)),
        _known("vit_b_16", "encoder.layers.encoder_layer_10"),
    )
}
