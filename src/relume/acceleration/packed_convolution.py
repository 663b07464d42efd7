"""Convolutions whose weights lie in memory as oneDNN wants them, in the forward and in the backward pass.

torch's own convolution brings its weights into that order again at every call, twice: at batch 1 that is a third of the time
of ResNet-50's. And it keeps its input for a gradient of the weights that nobody asks for. A :class:`Packed` convolution keeps
both orders for the next input of that size, and no input; its node in the graph is linear, so no rule has anything to do with
it.

The first convolution of a network has three channels on the far side of its backward pass, and oneDNN computes sixteen at a
time. There a block of pixels is computed as so many more channels: see :class:`Blocks`.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from relume.engine.graph import RectifiesNothing
from relume.engine.module_state import AnyConvolution, parameter_of
from relume.engine.tensor_state import version

__all__ = ["Packed", "Shape", "Weights", "convolve", "mix", "pack", "ran_packed"]

#: How many sizes of input the packed weights of a convolution are kept for: enough for a batch, the last, smaller one, the rest
#: of a chunk, and one image. Each takes as much memory as the weights for each pass, unless two lie in the same order.
SIZES = 4

#: With so few channels the gradient of an input is computed in blocks.
FEW_CHANNELS = 4

_mkldnn: Any = torch.ops.mkldnn

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Shape:
    """The steps and windows of a convolution, a number for each axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, module: Any) -> Shape:
        """Read it off a convolution."""
        return cls(module.kernel_size, module.stride, module.padding, module.dilation, module.groups)

    def is_of(self, module: Any) -> bool:
        """Tell whether ``module`` still has it: somebody may have set another stride."""
        ours = self.stride, self.padding, self.dilation, self.groups
        return ours == (module.stride, module.padding, module.dilation, module.groups) and module.padding_mode == "zeros"

    def windows(self, size: Sequence[int]) -> list[int]:
        """Count the windows along each axis of an input of ``size``."""
        return [(n - k) // s + 1 for n, k, s in self._padded(size)]

    def lost(self, size: Sequence[int]) -> list[int]:
        """Count the pixels at the far end of each axis of an input of ``size`` that no window reaches."""
        return [(n - k) % s for n, k, s in self._padded(size)]

    def _padded(self, size: Sequence[int]) -> list[tuple[int, int, int]]:
        """List for each axis its length with padding, the length of a window, and the step between windows."""
        axes = zip(size, self.padding, self.dilation, self.kernel, self.stride, strict=True)
        return [(n + 2 * p, d * (k - 1) + 1, s) for n, p, d, k, s in axes]


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """The gradient of an input as oneDNN computes it: ``packed`` transposed."""

    packed: Tensor
    shape: Shape

    @classmethod
    def of(cls, weight: Tensor, shape: Shape, size: torch.Size) -> Plain:
        """Pack ``weight`` for inputs of ``size``."""
        grad = (size[0], len(weight), *shape.windows(size[2:]))
        lost = shape.lost(size[2:])
        args = (shape.padding, lost, shape.stride, shape.dilation, shape.groups, grad)
        return cls(_mkldnn._reorder_convolution_transpose_weight(weight, *args), shape)

    def __call__(self, grad: Tensor, size: torch.Size) -> Tensor:
        """Compute the gradient of an input of ``size`` from that of the output."""
        s = self.shape
        args = (s.padding, s.lost(size[2:]), s.stride, s.dilation, s.groups)
        grad_input: Tensor = _mkldnn._convolution_transpose_pointwise(grad, self.packed, None, *args, "none", [], "")
        return grad_input


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
        """Arrange and pack ``weight``, ``(output channels, channels, *kernel)``, for inputs of ``size``."""
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
        """Describe the convolution that gives the gradient of an input of ``size``: zeros enough lie around its own input."""
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
        """Compute the gradient of an input of ``size`` from that of the output."""
        axes, s = len(self.block), self._convolution(size)
        grad_input: Tensor = _mkldnn._convolution_pointwise(
            grad, self.packed, None, s.padding, s.stride, s.dilation, s.groups, "none", [], ""
        )
        blocks = [math.ceil(n / b) for n, b in zip(size[2:], self.block, strict=True)]
        for axis, (length, padding, low, step) in enumerate(zip(blocks, s.padding, self.first, s.stride, strict=True), start=2):
            grad_input = grad_input.narrow(axis, (padding + low) // step, length)
        grad_input = grad_input.reshape(*size[:2], *self.block, *blocks)
        order = itertools.chain.from_iterable((axis + axes, axis) for axis in range(2, axes + 2))
        grad_input = grad_input.permute(0, 1, *order).reshape(
            *size[:2], *(n * b for n, b in zip(blocks, self.block, strict=True))
        )
        for axis, length in enumerate(size[2:], start=2):
            grad_input = grad_input.narrow(axis, 0, length)
        return grad_input


def _packed(weight: Tensor, shape: Shape, size: Sequence[int]) -> Tensor:
    packed: Tensor = _mkldnn._reorder_convolution_weight(
        weight, shape.padding, shape.stride, shape.dilation, shape.groups, size
    )
    return packed


def _same_order(one: Tensor, other: Tensor) -> bool:
    """Compare the order in which two packed forms of the same weights lie in memory."""
    return torch.equal(*map(_mkldnn._get_mkldnn_serialized_md, (one, other)))


_Size: TypeAlias = "tuple[torch.Size, int]"


class Weights:
    """The weights of one convolution, packed for both passes and for the few sizes of input that it was given last.

    oneDNN picks their order by the size of the input, the batch included, and by the number of threads. Weights in another
    order are brought into that one at every call, by slower code than torch's own convolution runs. So each size is packed when
    it is first seen, and for each pass when that first runs: the very work that torch's own convolution does at every call, so
    that nothing is lost if the size never comes again.

    All replicas of a network share it, in any thread. It holds packed weights of one tensor as that is now: given another, or
    the same one after it was written to, it begins anew.
    """

    __slots__ = ("_backward", "_blocks", "_forward", "_lock", "_made_of", "_version", "dtype", "shape")

    def __init__(self, shape: Shape, dtype: torch.dtype, *, blocks: bool) -> None:
        """Pack nothing yet; ``blocks`` says how the gradient of the input will be computed."""
        self.shape, self.dtype, self._blocks = shape, dtype, blocks
        self._lock = threading.Lock()
        self._made_of: Tensor | None = None  # held, so that no other tensor comes to lie in its place
        self._version = 0
        self._forward: OrderedDict[_Size, Tensor] = OrderedDict()
        self._backward: OrderedDict[_Size, Plain | Blocks] = OrderedDict()

    def __deepcopy__(self, _: Any) -> Weights:
        # packed tensors cannot be copied, and a copy of the network has weights of its own
        return Weights(self.shape, self.dtype, blocks=self._blocks)

    def forward(self, weight: Tensor, size: torch.Size) -> Tensor:
        """Pack ``weight`` for an input of ``size``, unless that was done."""
        with self._lock:
            return self._recent(self._forward, weight, size, lambda: _packed(weight, self.shape, size), lambda packed: packed)

    def backward(self, weight: Tensor, size: torch.Size) -> Plain | Blocks:
        """Pack ``weight`` for the gradient of an input of ``size``, unless that was done."""
        way: type[Plain | Blocks] = Blocks if self._blocks else Plain
        with self._lock:
            return self._recent(
                self._backward, weight, size, lambda: way.of(weight, self.shape, size), lambda backward: backward.packed
            )

    def _recent(
        self,
        packed_by_size: OrderedDict[_Size, _Made],
        weight: Tensor,
        size: torch.Size,
        make: Callable[[], _Made],
        order: Callable[[_Made], Tensor],
    ) -> _Made:
        """Return the packed weight for ``size``, or make it now; the size that was not asked for longest gives way."""
        written = version(weight)
        if self._made_of is None or weight.data_ptr() != self._made_of.data_ptr() or written != self._version:
            self._forward.clear()
            self._backward.clear()
            self._made_of, self._version = weight.detach(), written
        key = size, torch.get_num_threads()
        if key not in packed_by_size:
            # tensors made in the caller's inference_mode would be of no use to a later gradient
            with torch.inference_mode(mode=False), torch.no_grad():
                packed = make()
                packed = next((other for other in packed_by_size.values() if _same_order(order(other), order(packed))), packed)
            packed_by_size[key] = packed
            if len(packed_by_size) > SIZES:
                packed_by_size.popitem(last=False)
        packed_by_size.move_to_end(key)
        return packed_by_size[key]


class Convolve(RectifiesNothing, torch.autograd.Function):
    """A convolution, linear in its input, whose weights get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, weights: Weights) -> Tensor:
        """``W x + b``."""
        ctx.size, s = x.shape, weights.shape
        if ctx.needs_input_grad[0]:  # now: the weights may be others by the time of the backward pass
            ctx.backward_of = weights.backward(weight, x.shape)
        args = (s.padding, s.stride, s.dilation, s.groups)
        packed = weights.forward(weight, x.shape)
        result: Tensor = _mkldnn._convolution_pointwise(x, packed, bias, *args, "none", [], "")
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        """Convolve the gradient by the transposed weights."""
        return ctx.backward_of(_channels_last(grad_outputs[0]), ctx.size), None, None, None


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, weights: Weights) -> Tensor:
    """Convolve ``x`` by ``weight``, packed; modes that watch torch's functions see a function of both."""
    if has_torch_function((x, weight)):
        result: Tensor = handle_torch_function(convolve, (x, weight), x, weight, bias, weights)
    else:
        result = Convolve.apply(_channels_last(x), weight, bias, weights)  # type: ignore[no-untyped-call]
    return result


if TYPE_CHECKING:
    _Base = AnyConvolution
else:
    _Base = object


class Packed(_Base):
    """Mixed into the class of a convolution: it runs with packed weights wherever that gives what its own would."""

    _relume_weights: Weights

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weights = self._relume_weights
        alike = x.device.type == weight.device.type == "cpu" and x.dtype == weight.dtype == weights.dtype
        trained = torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad))
        fits = (
            alike and x.ndim == weight.ndim and x.shape[1] == self.in_channels and x.numel() > 0 and weights.shape.is_of(self)
        )
        if fits and not trained and not torch.is_autocast_enabled("cpu"):
            return convolve(x, weight, bias, weights)
        plain: Tensor = super()._conv_forward(x, weight, bias)
        return plain


def _can_pack(module: nn.Module) -> TypeGuard[nn.Conv2d | nn.Conv3d]:
    weight = parameter_of(module, "weight")
    if not isinstance(module, nn.Conv2d | nn.Conv3d) or weight is None:
        return False
    if type(module)._conv_forward not in (nn.Conv2d._conv_forward, nn.Conv3d._conv_forward):
        return False  # it does something of its own to its weights
    here = weight.device.type == "cpu" and torch._C._get_mkldnn_enabled() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    wide = weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _mkldnn._is_mkldnn_bf16_supported())
    return bool(here and wide and module.padding_mode == "zeros" and not isinstance(module.padding, str))


def pack(module: nn.Module, size: torch.Size) -> bool:
    """Make ``module``, of a private network, run with packed weights if it can; ``size`` is that of some input."""
    if not _can_pack(module) or len(size) != module.weight.ndim:
        return False
    few = module.in_channels <= FEW_CHANNELS and module.groups == 1 and set(module.dilation) == {1}
    module.__dict__["_relume_weights"] = Weights(Shape.of(module), module.weight.dtype, blocks=few)
    mix(module, Packed)
    return True


def ran_packed(module: nn.Module) -> bool:
    """Tell whether ``module``, which :func:`pack` took, ever ran so: its class may convolve in a way of its own."""
    return bool(vars(module)["_relume_weights"]._forward)


def mix(module: nn.Module, mixin: type) -> None:
    """Make ``module``, of a private network, behave as ``mixin`` says, and be called what it was called."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
