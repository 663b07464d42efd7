"""Raw maps: what is known of each one, and the formulas that upsample it, make saliency of it and turn it into an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MapInfo", "Place", "array", "saliency", "saliency_at", "upsample"]

Place: TypeAlias = Literal["input", "layer"]


@dataclass(frozen=True, slots=True)
class MapInfo:
    """The description of one map, from which titles, default pictures, tables and help texts are made.

    Attributes:
        key: the key of the map in :attr:`relume.Explanation.maps`, and the name of its picture's file.
        title: its name in figures, pages and tables.
        place: ``input`` for a map with the shape of the network's input, ``(N, C, *spatial)``; ``layer`` for one with the
            resolution of a target layer and without channels, ``(N, *coarse)``.
        signed: True if the map can be negative.
        note: how the map was made, for the caption of a figure, where the title does not say it all.

    Example:
        >>> import relume
        >>> relume.METHODS["guided_gradcam"].maps
        (MapInfo(key='guided_gradcam', title='Guided Grad-CAM', place='input', signed=True, note=''),)
    """

    key: str
    title: str
    place: Place = "input"
    signed: bool = True
    note: str = ""


def upsample(heat: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate ``heat`` ``(N, *coarse)`` linearly in every axis to ``(N, *size)``, with ``align_corners=False``."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(heat[:, None], tuple(size), mode=mode, align_corners=False)[:, 0]


def saliency(values: Tensor) -> Tensor:
    """Compute ``max_c |values|`` ``(N, *spatial)`` of a map ``(N, C, *spatial)``: Simonyan et al. 2013, section 3.1."""
    return values.abs().amax(dim=1)


def saliency_at(values: Tensor, place: Place, size: Sequence[int]) -> Tensor:
    """Compute the saliency of a map at the resolution of the input, ``(N, *size)``, not negative; a layer's is upsampled."""
    return saliency(values) if place == "input" else upsample(values, size).abs()


def array(values: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """Return ``values`` as an array, in float32 where NumPy has no such dtype."""
    values = values.detach().cpu()
    return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
