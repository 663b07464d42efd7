"""Convolutions whose weights lie in memory as oneDNN wants them, in the forward and in the backward pass.

torch's own convolution brings its weights into that order again at every call, twice: at batch 1 that is a third of the time
of ResNet-50's. And it keeps its input for a gradient of the weights that nobody asks for. A :class:`Packed` convolution has
both orders from the start and keeps nothing; its node in the graph is linear, so no rule has anything to do with it.

The first convolution of a network has three channels on the far side of its backward pass, and oneDNN computes sixteen at a
time. There a block of pixels is computed as so many more channels: see :class:`Blocks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from relume.graph import RectifiesNothing

__all__ = ["Packed", "mix", "pack"]

#: With so few channels the gradient of an input is computed in blocks.
FEW_CHANNELS = 4

_mkldnn: Any = torch.ops.mkldnn


@dataclass(frozen=True, slots=True)
class Shape:
    """The steps and windows of a convolution, a number for each axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def windows(self, size: Sequence[int]) -> list[int]:
        """How many windows lie along each axis of an input of ``size``."""
        return [(n - k) // s + 1 for n, k, s in self._padded(size)]

    def lost(self, size: Sequence[int]) -> list[int]:
        """How many pixels at the far end of each axis of an input of ``size`` no window reaches."""
        return [(n - k) % s for n, k, s in self._padded(size)]

    def _padded(self, size: Sequence[int]) -> list[tuple[int, int, int]]:
        """For each axis its length with padding, the length of a window, and the step between windows."""
        axes = zip(size, self.padding, self.dilation, self.kernel, self.stride, strict=True)
        return [(n + 2 * p, d * (k - 1) + 1, s) for n, p, d, k, s in axes]


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """The gradient of an input as oneDNN computes it: ``packed`` transposed."""

    packed: Tensor
    shape: Shape

    @classmethod
    def of(cls, weight: Tensor, shape: Shape, size: torch.Size) -> Plain:
        """Pack ``weight`` for inputs of about ``size``."""
        grad = (size[0], len(weight), *shape.windows(size[2:]))
        lost = shape.lost(size[2:])
        args = (shape.padding, lost, shape.stride, shape.dilation, shape.groups, grad)
        return cls(_mkldnn._reorder_convolution_transpose_weight(weight, *args), shape)

    def __call__(self, grad: Tensor, size: torch.Size) -> Tensor:
        """The gradient of an input of ``size``, from that of the output."""
        s = self.shape
        args = (s.padding, s.lost(size[2:]), s.stride, s.dilation, s.groups)
        made: Tensor = _mkldnn._convolution_transpose_pointwise(grad, self.packed, None, *args, "none", [], "")
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The gradient of an input of few channels, each block of its pixels computed as channels of one.

    Pixel ``B i + a`` of an axis, of the ``a``-th phase of block ``i``, takes from the gradient of output ``m`` what weight
    ``k = B i + a + padding - stride m`` says; with ``B`` a multiple of the stride that is one convolution for all phases,
    over the gradient, with steps of ``B / stride``.

    Attributes:
        packed: its weights, ``(channels × phases, output channels, *windows)``.
        shape: the convolution that it is the gradient of.
        block: ``B`` for each axis.
        first: the output from which a block's first pixel takes, relative to ``B i / stride``, for each axis; at most 0.
    """

    packed: Tensor
    shape: Shape
    block: tuple[int, ...]
    first: tuple[int, ...]

    @classmethod
    def of(cls, weight: Tensor, shape: Shape, size: torch.Size) -> Blocks:
        """Arrange and pack ``weight``, ``(output channels, channels, *kernel)``, for inputs of about ``size``."""
        axes = len(shape.kernel)
        block = tuple(2 if s == 1 and axis >= axes - 2 else s for axis, s in enumerate(shape.stride))
        takes = [
            [(a, k, (a + p - k) // s) for a in range(b) for k in range(n) if (a + p - k) % s == 0]
            for b, n, s, p in zip(block, shape.kernel, shape.stride, shape.padding, strict=True)
        ]
        first = tuple(min(0, *(m for *_, m in axis)) for axis in takes)
        windows = [max(m for *_, m in axis) - low + 1 for axis, low in zip(takes, first, strict=True)]
        outputs, channels = weight.shape[:2]
        arranged = weight.new_zeros(channels, *block, outputs, *windows)
        for each in itertools.product(*takes):
            phases, taps, places = zip(*each, strict=True)
            at = tuple(m - low for m, low in zip(places, first, strict=True))
            arranged[(slice(None), *phases, slice(None), *at)] = weight[(slice(None), slice(None), *taps)].T
        blocks = cls(arranged.flatten(0, axes), shape, block, first)
        grad = (size[0], outputs, *shape.windows(size[2:]))
        return replace(blocks, packed=_packed(blocks.packed, blocks._convolution(size), grad))

    def _convolution(self, size: torch.Size) -> Shape:
        """The convolution that gives the gradient of an input of ``size``, with zeros enough around that of the output."""
        windows = self.packed.shape[2:]
        steps = tuple(b // s for b, s in zip(self.block, self.shape.stride, strict=True))
        padding = []
        for n, b, m, step, low, window in zip(
            size[2:], self.block, self.shape.windows(size[2:]), steps, self.first, windows, strict=True
        ):
            last = step * (math.ceil(n / b) - 1) + low + window - 1  # the output that the last block still takes from
            padding.append(-low + step * max(0, math.ceil((last - m + 1 + low) / step)))
        return Shape(windows, steps, tuple(padding), (1,) * len(windows), 1)

    def __call__(self, grad: Tensor, size: torch.Size) -> Tensor:
        """The gradient of an input of ``size``, from that of the output."""
        axes, s = len(self.block), self._convolution(size)
        made: Tensor = _mkldnn._convolution_pointwise(
            grad, self.packed, None, s.padding, s.stride, s.dilation, s.groups, "none", [], ""
        )
        blocks = [math.ceil(n / b) for n, b in zip(size[2:], self.block, strict=True)]
        for axis, (length, padding, low, step) in enumerate(zip(blocks, s.padding, self.first, s.stride, strict=True), start=2):
            made = made.narrow(axis, (padding + low) // step, length)
        made = made.reshape(*size[:2], *self.block, *blocks)
        order = itertools.chain.from_iterable((axis + axes, axis) for axis in range(2, axes + 2))
        made = made.permute(0, 1, *order).reshape(*size[:2], *(n * b for n, b in zip(blocks, self.block, strict=True)))
        for axis, length in enumerate(size[2:], start=2):
            made = made.narrow(axis, 0, length)
        return made


def _packed(weight: Tensor, shape: Shape, size: Sequence[int]) -> Tensor:
    packed: Tensor = _mkldnn._reorder_convolution_weight(
        weight, shape.padding, shape.stride, shape.dilation, shape.groups, size
    )
    return packed


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of one convolution for both passes, and the tensor they were made of, held so that no other has its place."""

    forward: Tensor
    backward: Plain | Blocks
    shape: Shape
    made_of: Tensor
    version: int

    def __deepcopy__(self, _: Any) -> Weights:
        return self  # cannot be copied, and a copy of the network has other weights

    def are_of(self, weight: Tensor) -> bool:
        """Whether ``weight`` lies where that tensor lay, and has not been written to since."""
        return weight.data_ptr() == self.made_of.data_ptr() and weight._version == self.version


class Convolve(RectifiesNothing, torch.autograd.Function):
    """A convolution, linear in its input, whose weights get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, weights: Weights) -> Tensor:
        """``W x + b``."""
        ctx.backward_of, ctx.size, s = weights.backward, x.shape, weights.shape
        args = (s.padding, s.stride, s.dilation, s.groups)
        made: Tensor = _mkldnn._convolution_pointwise(x, weights.forward, bias, *args, "none", [], "")
        return made

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """The transposed convolution of the gradient."""
        return ctx.backward_of(_channels_last(grad_outputs[0]), ctx.size), None, None


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, weights: Weights) -> Tensor:
    """What modes that watch torch's functions see: a function of the weights."""
    if has_torch_function((x, weight)):
        seen: Tensor = handle_torch_function(_convolve, (x, weight), x, weight, bias, weights)
        return seen
    made: Tensor = Convolve.apply(_channels_last(x), bias, weights)  # type: ignore[no-untyped-call]
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
        if fits and self.packed.are_of(weight) and not torch.is_autocast_enabled(x.device.type):
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
    wide = weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _mkldnn._is_mkldnn_bf16_supported())
    return bool(here and wide and module.padding_mode == "zeros" and not isinstance(module.padding, str))


def pack(module: nn.Module, size: torch.Size) -> bool:
    """Make ``module``, of a private network, run with packed weights if it can; ``size`` is that of its usual input."""
    if not _can_pack(module) or len(size) != module.weight.ndim:
        return False
    weight = module.weight.detach()
    padding: Any = module.padding
    shape = Shape(module.kernel_size, module.stride, padding, module.dilation, module.groups)
    few = module.in_channels <= FEW_CHANNELS and module.groups == 1 and set(module.dilation) == {1}
    backward: Plain | Blocks = (Blocks if few else Plain).of(weight, shape, size)
    module.__dict__["packed"] = Weights(_packed(weight, shape, size), backward, shape, weight, weight._version)
    mix(module, Packed)
    return True


def mix(module: nn.Module, mixin: type) -> None:
    """Make ``module``, of a private network, behave as ``mixin`` says, and be called what it was called."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
