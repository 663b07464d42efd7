"""Slips that keep a network from running on its images: a missing axis, a dtype, odd weights.

A guess is proved before it is said: the network has to run on the images as they would be after the correction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from relume.engine.module_state import AnyConvolution
from relume.engine.out_of_memory import out_of_memory
from relume.engine.wrappers import modules_of
from relume.errors import InputError, ModelError, RelumeError
from relume.targets.outputs import tensors_in
from relume.text import first_line

__all__ = ["AxesError", "misfit", "other_axes", "slip"]


class AxesError(InputError):
    """The images lack axes, or have others than the network is for."""


def slip(model: nn.Module, images: Tensor, error: Exception, run: Callable[[Tensor], Any]) -> RelumeError | None:
    """Find out why ``model`` raised ``error`` on ``images``; None if it is no slip that is known.

    Args:
        model: the network.
        images: what it was given.
        error: what it raised.
        run: runs it on other images.
    """
    if isinstance(error, RelumeError) or out_of_memory(error):
        return None
    if odd := _odd_weight(model):
        return ModelError(f"the network failed ({first_line(error).partition('. ')[0]}), and its {odd}")
    words = str(error)
    by_convolution = "conv" in words or "weight of size" in words
    return misfit(model, images, run, raised=True) or (other_axes(model, images) if by_convolution else None)


def misfit(model: nn.Module, images: Tensor, run: Callable[[Tensor], Any], *, raised: bool = False) -> InputError | None:
    """Find the axes that ``images`` lack, if ``model`` runs on such that have them; where it ``raised``, the dtype too."""
    conv = _first_convolution(model)
    needed = 4 if conv is None else len(conv.kernel_size) + 2
    dtype = next((p.dtype for p in model.parameters() if raised and p.is_floating_point()), images.dtype)
    for axes, cast in _corrections(images, needed, dtype):
        corrected = images.detach().to(dtype if cast else images.dtype)[(None,) * axes]
        if axes:  # twice: one image would not tell a batch from any other axis of one
            corrected = torch.cat([corrected, corrected])
        if _runs(run, corrected):
            told = [f"have shape {tuple(images.shape)}, without {_AXES[axes]}"] * bool(axes)
            told += [f"are {images.dtype} and the network's weights {dtype}"] * cast
            index = f"[{', '.join(['None'] * axes)}]" * bool(axes)
            written = (".float()" if dtype is torch.float32 else f".to({dtype})") * cast
            return (AxesError if axes else InputError)(f"the images {' and '.join(told)}; write images{index}{written}")
    if raised and conv is not None and images.ndim == needed - 2 < len(_KINDS):
        return InputError(
            f"the images have shape {tuple(images.shape)}, without {_AXES[2]}; "
            f"the network's first convolution takes (N, {conv.in_channels}, {_SIZES[len(conv.kernel_size)]})"
        )
    return None


def other_axes(model: nn.Module, images: Tensor) -> AxesError | None:
    """Say that images have other axes than the network's first convolution: those of volumes, where it is for pictures, say."""
    conv = _first_convolution(model)
    if conv is None or images.ndim - 2 in (len(conv.kernel_size), 0):
        return None
    axes = len(conv.kernel_size)
    return AxesError(
        f"the images have shape {tuple(images.shape)}, that of {_KINDS.get(images.ndim - 2, 'no images')}, and the network is "
        f"for {_KINDS[axes]}: its first convolution takes (N, {conv.in_channels}, {_SIZES[axes]})"
    )


def _first_convolution(model: nn.Module) -> AnyConvolution | None:
    return next((module for module in modules_of(model) if isinstance(module, AnyConvolution)), None)


#: What has so many spatial axes, and how their sizes are written.
_KINDS = {1: "signals", 2: "pictures", 3: "volumes or video"}
_SIZES = {1: "L", 2: "H, W", 3: "D, H, W"}

_AXES = ("", "a batch axis", "batch and channel axes")


def _corrections(images: Tensor, needed: int, dtype: torch.dtype) -> Iterator[tuple[int, bool]]:
    """Count the axes to put in front, and say whether to change the dtype: one slip before two."""
    other = images.dtype != dtype
    missing = range(1, max(0, min(2, needed - images.ndim)) + 1)
    yield from ((0, True),) if other else ()
    yield from ((axes, False) for axes in missing)
    yield from ((axes, True) for axes in missing if other)


def _runs(run: Callable[[Tensor], Any], images: Tensor) -> bool:
    """Tell whether the network runs, and returns something for each of the images."""
    try:
        outputs = run(images)
    except (Exception, SystemExit):  # noqa: BLE001 - it is the user's network, which may raise anything
        return False
    return any(tensor.ndim > 1 and len(tensor) == len(images) for _, tensor in tensors_in(outputs))


def _odd_weight(model: nn.Module) -> str:
    """Name a weight or buffer that no ordinary network has, and say what to do about it; nothing if there is none."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta:
            return f"weight {name!r} is on the meta device and holds no values; load the weights first"
        if tensor.is_quantized:
            return f"weight {name!r} is quantised ({tensor.dtype}), which has no gradients; give the network before it was"
        if tensor.layout is not torch.strided:
            return f"weight {name!r} is sparse ({tensor.layout}); make it dense with .to_dense()"
    return ""
