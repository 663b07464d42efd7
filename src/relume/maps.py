"""Formulas on raw maps: interpolated, as saliency, as an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["array", "saliency", "upsample"]


def upsample(heat: Tensor, size: Sequence[int]) -> Tensor:
    """``heat`` ``(N, *coarse)`` interpolated linearly in every axis to ``(N, *size)``, with ``align_corners=False``."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(heat[:, None], tuple(size), mode=mode, align_corners=False)[:, 0]


def saliency(values: Tensor) -> Tensor:
    """``max_c |values|``: ``(N, C, *spatial)`` to ``(N, *spatial)``, not negative. Simonyan et al. 2013, section 3.1."""
    return values.abs().amax(dim=1)


def array(values: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """``values`` as an array, in float32 where numpy has no such dtype."""
    values = values.detach().cpu()
    return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
