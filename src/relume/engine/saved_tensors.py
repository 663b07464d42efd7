"""Keep less between the forward and the backward pass: of what torch saves, only what a data gradient asks for.

Every operation saves what *all* of its gradients might need. An explanation asks for the gradient of the data alone, and so

* a convolution, an average or a max-pooling, and a BatchNorm in evaluation mode need their input's size and no value of it;
* a ReLU needs to know where its output is positive, one bit a value, as does a leaky ReLU; a ReLU6 needs one byte.

:class:`Lean` goes around a forward pass. After each operation it exchanges what that node saved for what is needed, and the
node gives it back as a tensor of which nothing but that is right. Gradients stay the same to the last bit, by any rule that
asks a rectifier where it was active; one that asks for its ``output`` is refused, since that is gone.

Functions written by the caller, fused and checkpointed regions are left as they are. Measured against the two other ways to
the same end, a flat graph and a convolution of our own, in ``docs/performance.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.overrides import TorchFunctionMode

from relume.engine.trees import tree_iter

__all__ = ["LEAN", "Lean", "Saved", "is_lean", "looking"]

#: Why a rule cannot have the output of a rectifier.
LEAN = (
    "this rule asks for a rectifier's output, of which a network prepared with lean=True keeps only where it is positive; "
    "prepare it with lean=False"
)

#: The key in a node's metadata that says that its values are gone.
_KEY = "relume.engine.saved_tensors"


def looking() -> AbstractContextManager[Any]:
    """Group the looks at what nodes saved: a checkpointed region recomputes it, once in each group."""
    group: Any = getattr(torch.utils.checkpoint, "GraphExecGroup", None)
    if group is None or group._get_current_group() is not None:
        return nullcontext()
    context: AbstractContextManager[Any] = group()
    return context


class Saved:
    """The attributes of a node, each looked at once."""

    def __init__(self, node: Any) -> None:
        """Begin with ``node``, at which nothing was looked yet."""
        self._node = node

    def __getattr__(self, name: str) -> Any:
        with looking():
            value = getattr(self._node, name)
        self.__dict__[name] = value
        return value


@dataclass(frozen=True, slots=True)
class _Less:
    """The little that is kept of one value that a kind of node saves.

    Attributes:
        value: its name.
        pack: makes what is kept of it.
        unpack: makes the tensor that stands for it in the backward pass.
        holds: True if this node may do with that; it looks at no tensor but what a value before was exchanged for, since a
            checkpointed region would compute that again.
        values: True if the values are gone, and not only those that nothing reads.
    """

    value: str
    pack: Callable[[Tensor], Any]
    unpack: Callable[[Any], Tensor]
    holds: Callable[[Any], bool] = lambda _: True
    values: bool = False


def _size(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _unread(size: tuple[Any, ...]) -> Tensor:
    """Make a tensor of that size in memory that is neither read nor written, and so takes none on a CPU."""
    shape, stride, dtype, device = size
    return torch.empty_strided(shape, stride, dtype=dtype, device=device)


def _sized(name: str, holds: Callable[[Any], bool] = lambda _: True) -> _Less:
    return _Less(name, _size, _unread, holds)


def _weight_fixed(node: Any) -> bool:
    return node.next_functions[1][0] is None


def _evaluating(node: Any) -> bool:
    return not node._saved_training and _weight_fixed(node)


# Eight booleans lie in memory as the bytes of one integer, 0 or 1. Multiplied with _GATHER, its highest byte is all their bits;
# one byte multiplied with _SPREAD is eight of them, of which _EACH keeps the first bit in the first, the second in the second.
_GATHER, _SPREAD, _EACH = 0x0102040810204080, 0x0101010101010101, 0x8040201008040201 - 2**64


@dataclass(frozen=True, slots=True)
class _Bits:
    """The signs of a tensor: a bit for each value, set where it is positive; a byte where they do not fill whole bytes."""

    kept: Tensor
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> _Bits:
        """Find where ``tensor`` is positive."""
        positive = tensor > 0  # fresh, and so without gaps in memory
        kept = positive.as_strided((positive.numel(),), (1,))
        if kept.numel() % 8 == 0 and sys.byteorder == "little":
            kept = kept.view(torch.int64).mul_(_GATHER).view(torch.uint8)[7::8].clone(memory_format=torch.contiguous_format)
        return cls(kept, positive.shape, positive.stride(), tensor.dtype)

    def unpack(self) -> Tensor:
        """Make a tensor that is positive there, and 0 elsewhere."""
        spread = self.kept
        if spread.dtype == torch.uint8:
            spread = spread.to(torch.int64).mul_(_SPREAD).bitwise_and_(_EACH).view(torch.uint8)
        return spread.to(self.dtype).as_strided(self.shape, self.stride)


def _rising(node: Any) -> bool:
    """Tell whether one bit tells where it is active: a negative slope makes it active below zero, and not at zero."""
    return bool(node._saved_negative_slope >= 0)


def _from_zero(node: Any) -> bool:
    return bool(node._saved_min_val == 0 < node._saved_max_val < torch.inf)


def _few(node: Any) -> bool:
    return bool(node._saved_self.shape[1:].numel() < 2**31)


_POOLED = (_sized("self"), _Less("result1", lambda t: t.to(torch.int32), lambda t: t.to(torch.int64), _few))

_LESS: dict[str, tuple[_Less, ...]] = {
    "ReluBackward0": (_Less("result", _Bits.of, _Bits.unpack, values=True),),
    "LeakyReluBackward0": (_Less("self", _Bits.of, _Bits.unpack, _rising, values=True),),
    "LeakyReluBackward1": (_Less("result", _Bits.of, _Bits.unpack, values=True),),
    "ConvolutionBackward0": (_sized("input", _weight_fixed),),
    "NativeBatchNormBackward0": (_sized("input", _evaluating),),
    "CudnnBatchNormBackward0": (_sized("input", _evaluating),),
    "MaxPool2DWithIndicesBackward0": _POOLED,
    "MaxPool3DWithIndicesBackward0": _POOLED,
    "AvgPool2DBackward0": (_sized("self"),),
    "AvgPool3DBackward0": (_sized("self"),),
    "AdaptiveAvgPool2DBackward0": (_sized("self"),),
    "AdaptiveAvgPool3DBackward0": (_sized("self"),),
}


def _hardtanh(node: Any) -> _Less:
    """Keep which of three pieces of a ReLU6 each value is in, 0, between, or cut off; a value well inside stands for it."""
    highest = node._saved_max_val

    def pack(tensor: Tensor) -> tuple[Tensor, torch.dtype]:
        # as torch's own formula compares them, which no dtype narrower than float32 does
        wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        return (tensor > 0).to(torch.uint8).add_(wide >= highest), tensor.dtype

    def unpack(kept: tuple[Tensor, torch.dtype]) -> Tensor:
        return kept[0].to(kept[1]).mul_(0.75 * highest)

    return _Less("self", pack, unpack, values=True)


def is_lean(node: Any) -> bool:
    """Tell whether the values that ``node`` saved are gone, all but their signs."""
    return bool(node.metadata.get(_KEY))


class Lean(TorchFunctionMode):
    """Around a forward pass: every node made inside keeps what a gradient of the data needs, and no more."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, and look at what it left."""
        made = func(*args, **(kwargs or {}))
        for tensor in [made] if isinstance(made, Tensor) else tree_iter(made):
            if isinstance(tensor, Tensor) and (node := tensor.grad_fn) is not None:
                _reduce(node)
        return made


def _reduce(node: Any) -> None:
    name = node.name()
    table = (_hardtanh(node),) if name == "HardtanhBackward0" and _from_zero(node) else _LESS.get(name, ())
    if not table or _KEY in node.metadata:
        return
    values = False
    for less in table:
        if less.holds(node):
            try:
                getattr(node, f"_raw_saved_{less.value}").register_hooks(less.pack, less.unpack)
            except RuntimeError:  # the caller's hooks are there already: checkpointing, or offloading
                return
            values = values or less.values
    node.metadata[_KEY] = values
