"""The inputs of a network, of which one is explained, and the part of its outputs that is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from relume.engine.module_state import tensors_of
from relume.engine.trees import tree_map_only
from relume.engine.wrappers import modules_of, unwrap
from relume.errors import InputError, ModelError, NonFiniteError, TargetError
from relume.targets.outputs import tensors_in

__all__ = [
    "Inputs",
    "Model",
    "Output",
    "all_finite",
    "device_with_values",
    "entries_of",
    "extremes",
    "feed",
    "model_device",
    "pick",
    "stacked",
]

Model: TypeAlias = "nn.Module | Callable[..., Any]"
Inputs: TypeAlias = "Tensor | Sequence[Any] | Mapping[str, Any]"
Output: TypeAlias = "int | str | Callable[[Any], Any] | None"


def all_finite(tensor: Tensor) -> bool:
    """Tell whether every value of ``tensor`` is finite."""
    # one that is not makes the sum not finite: a finite sum settles it in one reading, without another tensor of that size
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def model_device(model: Model) -> torch.device | None:
    """Find the device of a model; None if it holds no tensors, or is spread over several and moves its inputs itself."""
    if not isinstance(model, nn.Module):
        return None
    devices = {tensor.device for module in modules_of(model) for _, _, tensor in tensors_of(module)}
    return devices.pop() if len(devices) == 1 else None


def device_with_values(model: Model) -> torch.device | None:
    """Find the device of a model, as :func:`model_device` does.

    Raises:
        ModelError: on the meta device, where its weights hold no values.
    """
    device = model_device(model)
    if device is not None and device.type == "meta":
        raise ModelError("the network is on the meta device and its weights hold no values; load them before you explain it")
    return device


def stacked(model: Model, inputs: Inputs) -> Inputs:
    """Stack the list of images ``(C, H, W)`` that a detector of torchvision takes; all else is handed on.

    Raises:
        InputError: the images of the list have different sizes.
    """
    transform = getattr(unwrap(model), "transform", None) if isinstance(model, nn.Module) else None
    if type(transform).__name__ != "GeneralizedRCNNTransform" or not isinstance(inputs, list | tuple) or not inputs:
        return inputs
    if not all(isinstance(image, Tensor) and image.ndim == 3 for image in inputs):
        return inputs
    if len(shapes := dict.fromkeys(tuple(image.shape) for image in inputs)) > 1:
        raise InputError(
            f"images that are explained together have one shape, and these have {', '.join(map(str, shapes))}; "
            "explain each in a list of its own"
        )
    return torch.stack([*inputs])


def entries_of(inputs: Inputs, wrt: int | str | None) -> tuple[dict[int | str, Any], int | str | None]:
    """Return the inputs by position or name, and which of them is explained; None if there is no floating-point tensor.

    Raises:
        InputError: they are no inputs at all, or the one explained is a tensor out of the ordinary.
    """
    if isinstance(inputs, Tensor):
        inputs = [inputs]
    if isinstance(inputs, str) or not isinstance(inputs, Mapping | Sequence):
        raise InputError(
            f"images are a tensor (N, C, H, W), a sequence of inputs or a mapping of them; got {type(inputs).__name__}; "
            "relume.preprocess_image reads a picture file, torch.from_numpy takes an array"
        )
    entries: dict[int | str, Any] = {**inputs} if isinstance(inputs, Mapping) else dict(enumerate(inputs))  # type: ignore[dict-item]
    if wrt is None:
        wrt = next((k for k, v in entries.items() if isinstance(v, Tensor) and v.is_floating_point()), None)
    if wrt is not None and isinstance(explained := entries.get(wrt), Tensor) and explained.is_floating_point():
        _check_ordinary(explained)
    return entries, wrt


def feed(
    inputs: Inputs, wrt: int | str | None, device: torch.device | None, instead: Tensor | None = None
) -> tuple[list[Any], dict[str, Any], Tensor]:
    """Copy to ``device`` positional inputs, keyword inputs, and the explained one, a leaf that stands for the caller's.

    Raises:
        InputError: nothing to explain.
        NonFiniteError: NaN or infinity.
    """
    entries, wrt = entries_of(inputs, wrt)
    explained = instead
    if explained is None and wrt is not None:
        explained = entries.get(wrt)
    if not isinstance(explained, Tensor) or not explained.is_floating_point():
        seen = ", ".join(f"{k}: {v.dtype if isinstance(v, Tensor) else type(v).__name__}" for k, v in entries.items())
        place = "" if wrt is None else f" at {wrt!r}"
        raise InputError(f"no floating-point tensor to explain{place} among the inputs ({seen}); images must be floats")
    if explained.ndim < 1 or explained.numel() == 0:
        raise InputError(f"images of shape {tuple(explained.shape)} hold no sample; pass a batch (N, C, H, W)")
    if not all_finite(explained):
        raise NonFiniteError(f"the input holds {extremes(explained)}; clean it before explaining it")
    # a network may begin with an in-place operation: it gets copies, and the leaf is never written to
    leaf = explained.detach().as_subclass(Tensor).to(device, copy=True).requires_grad_()
    # tensors inside lists and dicts too: the network may write into them
    copies = {k: tree_map_only(Tensor, lambda t: t.detach().to(device, copy=True), v) for k, v in entries.items() if k != wrt}
    fed = {k: leaf.clone() if k == wrt else copies[k] for k in entries}
    if isinstance(inputs, Mapping):
        return [], {str(k): v for k, v in fed.items()}, leaf
    return list(fed.values()), {}, leaf


def _check_ordinary(images: Tensor) -> None:
    if images.is_nested:
        raise InputError("the images are a nested tensor; give one of shape (N, C, H, W)")
    if images.layout is not torch.strided:
        kind = str(images.layout).removeprefix("torch.")
        raise InputError(f"the images are a {kind} tensor; give an ordinary one, such as images.to_dense()")
    if images.is_meta:
        raise InputError("the images are on the meta device and hold no values; give images that do")
    if images.dtype.itemsize == 1:
        raise InputError(f"the images are {images.dtype}, in which nothing can be computed; write images.float()")


def extremes(tensor: Tensor) -> str:
    """Count the values that are NaN or infinite, in words."""
    nans, infinities = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    return " and ".join(f"{n} {what}" for n, what in ((nans, "NaN"), (infinities, "infinite values")) if n)


def pick(outputs: Any, output: Output) -> Any:
    """Take the part of ``outputs`` that ``output`` names; a number as text, as in a command, is an index if no key.

    Raises:
        TargetError: there is no such part; the message says what there is.
    """
    if output is None:
        return outputs
    if callable(output):
        return output(outputs)
    if isinstance(outputs, Tensor):
        raise TargetError(f"the network returned one tensor and no output {output!r}; leave output away")
    if (
        isinstance(output, str)
        and re.fullmatch(r"-?[0-9]+", output)
        and not (isinstance(outputs, Mapping) and output in outputs)
    ):
        output = int(output)
    named = isinstance(output, str) and not isinstance(outputs, Mapping)
    try:
        return getattr(outputs, str(output)) if named and hasattr(outputs, str(output)) else outputs[output]
    except (LookupError, TypeError):
        keys = list(outputs) if isinstance(outputs, Mapping) else [name or "a tensor" for name, _ in tensors_in(outputs)]
        raise TargetError(
            f"the network returned no output {output!r}, but a {type(outputs).__name__} of "
            f"{', '.join(map(str, keys)) or 'nothing'}; name one of these, or give a callable that takes what it returns"
        ) from None
