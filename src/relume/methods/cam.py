"""The formulas of the methods that weight the channels of a target layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from relume import rules
from relume.maps import upsample
from relume.methods.gradients import Gradients

__all__ = ["gradcam", "guided_gradcam", "weighted_sums"]


def weighted_sums(gradients: Gradients) -> list[Tensor]:
    """Compute ``Σ_k α_k A_k`` of each target layer, ``α_k`` the spatial mean of the plain gradient.

    Selvaraju et al. 2017, arXiv:1610.02391, equation 1.
    """
    alphas = [gradient.flatten(2).mean(2) for gradient in gradients.layers[rules.gradient]]
    return [torch.einsum("nk,nk...->n...", a, A) for a, A in zip(alphas, gradients.activations, strict=True)]


def gradcam(gradients: Gradients) -> Tensor:
    """Compute ``ReLU(Σ_k α_k A_k)``: Selvaraju et al. 2017, equation 2."""
    heats = [values.relu() for values in weighted_sums(gradients)]
    return heats[0] if len(heats) == 1 else _fused(heats, gradients)


def guided_gradcam(gradients: Gradients) -> Tensor:
    """Compute guided gradient × Grad-CAM upsampled to the input: Selvaraju et al. 2017, section 3.1."""
    fine = gradients.inputs[rules.guided]
    return fine * upsample(gradcam(gradients), fine.shape[2:])[:, None]


def _fused(heats: Sequence[Tensor], gradients: Gradients) -> Tensor:
    """Fuse heat maps of several layers at the finest resolution; each is divided by its highest value first."""
    size = max((heat.shape[1:] for heat in heats), key=math.prod)
    heats = [heat.to(torch.promote_types(heat.dtype, torch.float32)) for heat in heats]  # half has no room for small values
    highest = [heat.flatten(1).amax(1).clamp(min=torch.finfo(heat.dtype).tiny) for heat in heats]
    scaled = [upsample(heat / high.view(-1, *[1] * (heat.ndim - 1)), size) for heat, high in zip(heats, highest, strict=True)]
    stacked = torch.stack(scaled)
    return stacked.mean(0) if gradients.fuse == "mean" else stacked.amax(0)
