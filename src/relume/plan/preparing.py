"""A private form of a network that is faster and smaller, and explained in its place."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from relume.errors import InputError, ModelError
from relume.evidence.localisation import rank_correlation
from relume.plan.compiled import Compiled
from relume.plan.convolution import pack
from relume.plan.folding import Flow, fold_into
from relume.preparation import Preparation, Source, preparation_of
from relume.replica import replicate, unwrap
from relume.targets import tensors_in
from relume.trace import Inputs, Trace, raised_by_network, recording

__all__ = ["Preparing", "prepare"]

#: A prepared network whose gradient ranks the values of the example less alike than this is refused. In float64 nothing but
#: rounding may differ; in less, random weights are chaotic, and such a GoogLeNet's agrees with itself in float64 to 0.96.
LEAST_AGREEMENT = {torch.float64: 0.9999}
LEAST_AGREEMENT_NARROW = 0.5

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Preparing(TypedDict, total=False):
    """What may be asked of a prepared network: see :func:`prepare`."""

    fold: bool
    channels_last: bool
    dtype: torch.dtype | None
    lean: bool
    compiled: bool


def prepare(
    model: nn.Module,
    images: Inputs,
    *,
    fold: bool = True,
    channels_last: bool = True,
    dtype: torch.dtype | None = None,
    lean: bool = False,
    compiled: bool = False,
) -> nn.Module:
    """A private, evaluation-only form of ``model`` that is faster, for every method and command in place of ``model``.

    What was done to it is in its ``preparation``, a :class:`relume.preparation.Preparation`; print it. Weights are shared
    with ``model`` where nothing had to be done to them. Where they were copied and ``model`` changes afterwards, the
    prepared network refuses to run; what is written through ``parameter.data`` cannot be noticed.

    Args:
        model: the network, left as it is.
        images: an example of what it will be given, ``(N, C, *spatial)`` or as for :func:`relume.explain`; one image is
            enough, of the usual size. It shows which BatchNorms can be folded, and the result is checked on it.
        fold: fold each BatchNorm into the convolution before it where nothing else takes what that made.
        channels_last: lay images and maps out with their channels last, and pack the weights of convolutions on a CPU.
        dtype: what to compute in, such as ``torch.bfloat16``; what the network computes in if None. Scores and maps come
            in the dtype of the images all the same.
        lean: keep one byte of each value that a ReLU made, and no input of a convolution, between forward and backward pass.
        compiled: compile its passes as well, each when it is asked for the second time: see :mod:`relume.plan.compiled`. It is
            for a GPU, where they become CUDA graphs; on a CPU it is no faster, and convolutions are not packed.

    Returns:
        A network whose modules are called as in ``model``.

    Raises:
        InputError: ``model`` is no module, or has been prepared; or as :func:`relume.explain`.
        ModelError: the network cannot run in ``dtype``, or its prepared form gives something else.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"prepare takes a torch.nn.Module; got {type(model).__name__}")
    if preparation_of(model) is not None:
        raise InputError("this network is prepared already; prepare the one that it was made of")
    original = unwrap(model)
    if isinstance(original, torch.jit.ScriptModule):
        raise InputError("TorchScript cannot be prepared; give the Python module that it was made from")
    before = Trace.run(model, images)
    network = replicate(model)
    flow = Flow.of(network, lambda: Trace.run(network, images).outputs)
    modules = dict(network.named_modules())
    folded, kept = _fold(flow, modules, asked=fold)
    conversion = _Conversion(channels_last, *_dtypes(network, dtype))
    conversion.apply(network)
    packed = [name for name, size in flow.sizes.items() if channels_last and not compiled and pack(modules[name], size)]
    made = Preparation(
        folded,
        kept,
        tuple(packed),
        channels_last,
        conversion.narrow,
        lean,
        compiled,
        *_compare(before, _run(network, images, conversion.narrow)),
        tuple(_sources(original, modules, packed)),
        weakref.WeakKeyDictionary({module: _plain(name) for name, module in original.named_modules() if name}),
    )
    prepared = Compiled(network) if compiled else network
    prepared.__dict__[Preparation.KEY] = network.__dict__[Preparation.KEY] = _sound(made)
    return prepared


def _fold(flow: Flow, modules: Mapping[str, nn.Module], *, asked: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Fold what can be, and say what was and why the rest was not."""
    folded, kept = flow.foldable()
    if not asked:
        return {}, dict.fromkeys((*folded, *kept), "folding was not asked for")
    for norm, convolution in folded.items():
        fold_into(cast("Any", modules[convolution]), cast("Any", modules[norm]))
    return folded, kept


def _sound(made: Preparation) -> Preparation:
    """``made``, unless it gives something else than the network it was made of."""
    least = LEAST_AGREEMENT.get(made.dtype, LEAST_AGREEMENT_NARROW)
    if not made.agreement >= least:
        raise ModelError(
            f"the prepared network's gradient agrees with the network's own on the example by a rank correlation of "
            f"{made.agreement:.4f} only, below {least}; use the network itself, or leave out fold or dtype"
        )
    return made


def _run(network: nn.Module, images: Inputs, dtype: torch.dtype) -> Trace:
    try:
        return Trace.run(network, images)
    except (RuntimeError, TypeError, ValueError) as error:
        if not raised_by_network(error):
            raise
        raise ModelError(f"the network does not run in {_name(dtype)} once it is prepared: {error}") from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _plain(name: str) -> str:
    """A module's name without what torch.compile puts into it."""
    return name.replace("._orig_mod", "")


# --- What is converted on the way in and out -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Conversion:
    """How a network's tensors, its inputs and its outputs are converted.

    Attributes:
        last: lay tensors out with their channels last.
        narrow: what the network computes in.
        wide: what it returns.
    """

    last: bool
    narrow: torch.dtype
    wide: torch.dtype

    def apply(self, network: nn.Module) -> None:
        """Convert what ``network`` holds, and have it convert what it is given and what it returns."""
        for module in network.modules():
            if isinstance(module, torch.jit.ScriptModule):
                if self.narrow != self.wide:
                    raise ModelError("part of the network is TorchScript, which cannot be converted; leave dtype out")
                continue
            for tensors in (module._parameters, module._buffers):
                tensors.update({key: t if t is None else self._held(t) for key, t in tensors.items()})
            held = {key: self._narrowed(value) for key, value in vars(module).items() if isinstance(value, Tensor)}
            module.__dict__.update(held)
        network.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
        network.register_forward_hook(self._leave)

    def _held(self, tensor: Tensor) -> Any:
        """A parameter or buffer, itself where nothing has to be done to it."""
        made = self._narrowed(tensor.detach())
        if (
            self.last and tensor.device.type != "cpu" and tensor.ndim in _LAST
        ):  # on a CPU they are packed, or as well as they are
            made = made.contiguous(memory_format=_LAST[tensor.ndim])
        if made.data_ptr() == tensor.data_ptr():
            return tensor
        return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made

    def _narrowed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.narrow) if tensor.is_floating_point() else tensor

    def _enter(self, network: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        made = preparation_of(network)
        if made is not None:
            made.check()
        converted: tuple[Any, Any] = tree_map_only(Tensor, self._given, (args, kwargs))
        return converted

    def _given(self, tensor: Tensor) -> Tensor:
        tensor = self._narrowed(tensor)
        return tensor.contiguous(memory_format=_LAST[tensor.ndim]) if self.last and tensor.ndim in _LAST else tensor

    def _leave(self, _network: nn.Module, _args: Any, outputs: Any) -> Any:
        if self.narrow == self.wide:
            return None
        return tree_map_only(Tensor, lambda t: t.to(self.wide) if t.dtype == self.narrow else t, outputs)


def _dtypes(network: nn.Module, dtype: torch.dtype | None) -> tuple[torch.dtype, torch.dtype]:
    """What the network is to compute in, and what it computes in."""
    held = chain(network.parameters(), network.buffers())
    wide = next((tensor.dtype for tensor in held if tensor.is_floating_point()), torch.get_default_dtype())
    if dtype is not None and not dtype.is_floating_point:
        raise InputError(f"a network computes in a floating-point dtype; got {dtype}")
    return dtype or wide, wide


# --- What was copied, and how near the result is ---------------------------------------------------------------------------


def _sources(original: nn.Module, modules: Mapping[str, nn.Module], packed: Collection[str]) -> Iterator[Source]:
    """Every parameter and buffer of ``original`` that the prepared ``modules`` do not share."""
    for name, module in original.named_modules():
        ours = modules.get(_plain(name))
        if ours is None or isinstance(module, torch.jit.ScriptModule):
            continue
        for theirs, held in ((module._parameters, ours._parameters), (module._buffers, ours._buffers)):
            for key, tensor in theirs.items():
                copy = held.get(key)
                shared = copy is not None and tensor is not None and copy.data_ptr() == tensor.data_ptr()
                if tensor is not None and (not shared or name in packed):
                    yield Source.of(name, module, key)


def _compare(before: Trace, after: Trace) -> tuple[float, float]:
    """The largest difference of outputs, relative, and the rank correlation of the gradients of their sums of squares."""
    a, b = ([t for _, t in tensors_in(trace.outputs) if t.is_floating_point()] for trace in (before, after))
    off = max(float((x - y).detach().abs().max() / x.detach().abs().max().clamp(min=1e-30)) for x, y in zip(a, b, strict=True))
    gradients = [_gradient(outputs, trace.images) for outputs, trace in ((a, before), (b, after))]
    correlation = rank_correlation(*gradients)
    return off, 1.0 if math.isnan(correlation) and np.array_equal(gradients[0], gradients[1]) else correlation


def _gradient(outputs: Sequence[Tensor], images: Tensor) -> NDArray[np.float64]:
    with recording():
        loss = torch.stack([t.double().square().sum() for t in outputs if t.requires_grad]).sum()
        (gradient,) = torch.autograd.grad(loss, images)
    return gradient.detach().double().cpu().numpy().ravel()
