"""The formulas of the class activation maps: each weights the channels, or every value, of a target layer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from relume import rules
from relume.maps import upsample
from relume.methods.gradients import Gradients

__all__ = [
    "WeightedSum",
    "gradcam",
    "gradcam_plusplus",
    "guided_product",
    "heat",
    "hirescam",
    "layercam",
    "weighted_sums",
    "xgradcam",
]

#: From a layer's activations ``A`` and the plain gradient ``g`` there, both ``(N, channels, *spatial)``, to ``(N, *spatial)``.
WeightedSum: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def gradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``Σ_k α_k A_k``, ``α_k`` the spatial mean of ``g_k``: Selvaraju et al. 2017, arXiv:1610.02391, equation 1."""
    return _weighted(gradient.flatten(2).mean(2), activation)


def hirescam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``Σ_k g_k ⊙ A_k``: Draelos & Carin 2020, arXiv:2011.08891."""
    return (gradient * activation).sum(1)


def layercam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``Σ_k max(g_k, 0) ⊙ A_k``: Jiang et al. 2021, doi:10.1109/TIP.2021.3089943."""
    return (gradient.relu() * activation).sum(1)


def gradcam_plusplus(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``Σ_k w_k A_k``, ``w_k = Σ_ij α_ij max(g_ij, 0)``: Chattopadhyay et al. 2018, arXiv:1710.11063.

    ``α_ij = 1 / (2 + g_ij Σ_ab A_ab)`` is theirs, ``g² / (2 g² + g³ Σ_ab A_ab)``, without powers; it is 0 where the divisor is
    not positive.
    """
    divisor = 2 + gradient.flatten(2) * activation.flatten(2).sum(2, keepdim=True)
    weights = torch.where(divisor > 0, gradient.flatten(2).relu() / divisor, 0.0)
    return _weighted(weights.sum(2), activation)


def xgradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute ``Σ_k α_k A_k``, ``α_k = Σ_ij g_ij A_ij / Σ_ij A_ij``: Fu et al. 2020, arXiv:2008.02312.

    ``α_k`` is 0 where ``A_k`` sums to 0.
    """
    total = activation.flatten(2).sum(2)
    alpha = torch.where(total != 0, (gradient * activation).flatten(2).sum(2) / total, 0.0)
    return _weighted(alpha, activation)


def _weighted(alpha: Tensor, activation: Tensor) -> Tensor:
    return torch.einsum("nk,nk...->n...", alpha, activation)


def weighted_sums(formula: WeightedSum, gradients: Gradients) -> list[Tensor]:
    """Compute the weighted sum of each target layer."""
    return [formula(*pair) for pair in zip(gradients.activations, gradients.layers[rules.gradient], strict=True)]


def heat(formula: WeightedSum, gradients: Gradients) -> Tensor:
    """Compute the positive part of the weighted sum: Selvaraju et al. 2017, equation 2; those of several layers are fused."""
    heats = [values.relu() for values in weighted_sums(formula, gradients)]
    return heats[0] if len(heats) == 1 else _fused(heats, gradients)


def guided_product(coarse: Callable[[Gradients], Tensor], gradients: Gradients) -> Tensor:
    """Compute guided gradient × coarse map upsampled to the input: Selvaraju et al. 2017, section 3.1."""
    fine = gradients.inputs[rules.guided]
    return fine * upsample(coarse(gradients), fine.shape[2:])[:, None]


def _fused(heats: Sequence[Tensor], gradients: Gradients) -> Tensor:
    """Fuse heat maps of several layers at the finest resolution; each is divided by its highest value first.

    The product is RefineCAM's: Domeniconi et al. 2026, arXiv:2605.14641.
    """
    size = max((heat.shape[1:] for heat in heats), key=math.prod)
    heats = [heat.to(torch.promote_types(heat.dtype, torch.float32)) for heat in heats]  # half has no room for small values
    highest = [heat.flatten(1).amax(1).clamp(min=torch.finfo(heat.dtype).tiny) for heat in heats]
    scaled = [upsample(heat / high.view(-1, *[1] * (heat.ndim - 1)), size) for heat, high in zip(heats, highest, strict=True)]
    if gradients.fuse == "product":
        return functools.reduce(torch.mul, scaled)
    stacked = torch.stack(scaled)
    return stacked.mean(0) if gradients.fuse == "mean" else stacked.amax(0)
