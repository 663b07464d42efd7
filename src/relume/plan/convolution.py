"""Convolutions whose weights lie in memory as oneDNN wants them, in the forward and in the backward pass.

torch's own convolution brings its weights into that order again at every call, twice: at batch 1 that is a third of the time
of ResNet-50's. And it keeps its input for a gradient of the weights that nobody asks for. A :class:`Packed` convolution has
both orders from the start and keeps nothing; its node in the graph is linear, so no rule has anything to do with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["Packed", "mix", "pack"]


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of one convolution in both orders, and which tensor they were made of."""

    forward: Tensor
    backward: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    kernel: tuple[int, ...]
    made_of: tuple[int, int]

    def reached(self, size: torch.Size) -> list[int]:
        """How many windows lie along each axis of an input of ``size``."""
        return [(n - k) // s + 1 for n, k, s in self._padded(size)]

    def lost(self, size: torch.Size, grad: torch.Size) -> list[int]:
        """How many pixels at the far end of each axis of an input of ``size`` no window reached."""
        return [n - k - (m - 1) * s for m, (n, k, s) in zip(grad[2:], self._padded(size), strict=True)]

    def _padded(self, size: torch.Size) -> list[tuple[int, int, int]]:
        """For each axis its length with padding, the length of a window, and the step between windows."""
        axes = zip(size[2:], self.padding, self.dilation, self.kernel, self.stride, strict=True)
        return [(n + 2 * p, d * (k - 1) + 1, s) for n, p, d, k, s in axes]


def _state(weight: Tensor) -> tuple[int, int]:
    return weight.data_ptr(), weight._version


class Convolve(torch.autograd.Function):
    """A convolution, linear in its input, whose weights get no gradient."""

    rectifies: ClassVar[bool] = False  # read by relume.graph

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, packed: Weights) -> Tensor:
        """``W x + b``."""
        ctx.packed, ctx.size = packed, x.shape
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, packed.forward, bias, packed.padding, packed.stride, packed.dilation, packed.groups, "none", [], ""
        )
        return made

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """The transposed convolution of the gradient."""
        w: Weights = ctx.packed
        grad = grad_outputs[0].contiguous(memory_format=_last(grad_outputs[0]))
        made: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            grad, w.backward, None, w.padding, w.lost(ctx.size, grad.shape), w.stride, w.dilation, w.groups, "none", [], ""
        )
        return made, None, None


def _last(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, packed: Weights) -> Tensor:
    """What modes that watch torch's functions see: a function of the weights."""
    if has_torch_function((x, weight)):
        seen: Tensor = handle_torch_function(_convolve, (x, weight), x, weight, bias, packed)
        return seen
    made: Tensor = Convolve.apply(x.contiguous(memory_format=_last(x)), bias, packed)  # type: ignore[no-untyped-call]
    return made


if TYPE_CHECKING:
    _Base = nn.modules.conv._ConvNd
else:
    _Base = object


class Packed(_Base):
    """Mixed into the class of a convolution: it runs with packed weights while they are those of its ``weight``."""

    packed: Weights

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        fits = x.device == weight.device and x.dtype == weight.dtype and x.ndim == weight.ndim and x.numel() > 0
        if fits and _state(weight) == self.packed.made_of and not torch.is_autocast_enabled(x.device.type):
            return _convolve(x, weight, bias, self.packed)
        plain: Tensor = super()._conv_forward(x, weight, bias)
        return plain


def _can_pack(module: nn.Module) -> TypeGuard[nn.Conv2d | nn.Conv3d]:
    weight = module._parameters.get("weight")
    if not isinstance(module, nn.Conv2d | nn.Conv3d) or weight is None:
        return False
    if type(module)._conv_forward not in (nn.Conv2d._conv_forward, nn.Conv3d._conv_forward):
        return False  # it does something of its own to its weights
    here = weight.device.type == "cpu" and torch._C._get_mkldnn_enabled() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    wide = weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(here and wide and module.padding_mode == "zeros" and not isinstance(module.padding, str))


def pack(module: nn.Module, size: torch.Size) -> bool:
    """Make ``module``, of a private network, run with packed weights if it can; ``size`` is that of its usual input."""
    if not _can_pack(module) or len(size) != module.weight.ndim:
        return False
    weight = module.weight.detach()
    axes: Any = module.stride, module.padding, module.dilation
    stride, padding, dilation = axes
    plain = Weights(weight, weight, stride, padding, dilation, module.groups, module.kernel_size, _state(weight))
    grad = torch.Size((size[0], module.out_channels, *plain.reached(size)))
    args = (stride, dilation, module.groups)
    forward = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, *args, size)
    backward = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, padding, plain.lost(size, grad), *args, grad)
    module.__dict__["packed"] = replace(plain, forward=forward, backward=backward)
    mix(module, Packed)
    return True


def mix(module: nn.Module, mixin: type) -> None:
    """Make ``module``, of a private network, behave as ``mixin`` says, and be called what it was called."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
