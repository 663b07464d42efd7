"""A private form of a network that is faster and smaller, and explained in its place."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from relume.acceleration.data_flow import observe
from relume.acceleration.fold_batch_norm import fold_into, settle
from relume.acceleration.packed_convolution import pack, ran_packed
from relume.engine.fingerprint import Fingerprint
from relume.engine.forward_pass import raised_by_network
from relume.engine.graph import gradients
from relume.engine.inputs import Inputs
from relume.engine.preparation import Preparation, Source, preparation_of
from relume.engine.reading import Reading
from relume.engine.replica import replicate
from relume.engine.trace import Trace, recording
from relume.engine.wrappers import modules_of, unwrap
from relume.errors import InputError, ModelError
from relume.measures.localisation import rank_correlation
from relume.targets.outputs import tensors_in

__all__ = ["Preparing", "prepare"]

#: A prepared network whose outputs differ by more, relative to the largest, is refused: TensorFloat32 rounds to a thousandth,
#: bfloat16 to a hundredth. So is one whose gradient does, unless it ranks the values of the example as much alike as this. In
#: float64 nothing but rounding may differ; in less, random weights are chaotic: a GoogLeNet of such ranks 0.7 alike then.
MOST_DIFFERENCE = {torch.float64: 1e-9, torch.float32: 0.01}
MOST_DIFFERENCE_NARROW = 0.1
LEAST_AGREEMENT = {torch.float64: 0.9999}
LEAST_AGREEMENT_NARROW = 0.5

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Preparing(TypedDict, total=False):
    """What may be asked of a prepared network: see :func:`prepare`."""

    fold: bool
    channels_last: bool
    dtype: torch.dtype | None
    lean: bool


@recording()
def prepare(
    model: nn.Module,
    images: Inputs,
    *,
    fold: bool = True,
    channels_last: bool = True,
    dtype: torch.dtype | None = None,
    lean: bool = False,
) -> nn.Module:
    """A private, evaluation-only form of ``model`` that is faster, for every method and command in place of ``model``.

    What was done to it is in its ``preparation``: print it. Weights that nothing was done to are shared with ``model``, and
    followed. When others are written to, or a parameter, buffer, module, attribute or forward hook of ``model`` changes, the
    prepared network refuses to run; :meth:`Preparation.check` says what cannot be noticed.

    Args:
        model: the network, left as it is.
        images: an example of what it will be given, ``(N, C, *spatial)`` or as for :func:`relume.explain`; one image is
            enough. It shows which BatchNorms can be folded, and the result is checked on it.
        fold: fold each BatchNorm into the convolution before it where nothing else takes what that made.
        channels_last: lay images and maps out with their channels last, and pack the weights of convolutions on a CPU.
        dtype: what to compute in, such as ``torch.bfloat16``; scores and maps come in the dtype that they have without it.
        lean: keep one bit of each value that a ReLU made, and no input of a convolution, between forward and backward pass.

    Returns:
        A network whose modules are called as in ``model``.

    Raises:
        InputError: ``model`` is no module, or has been prepared; or as :func:`relume.explain`.
        ModelError: the network cannot run in ``dtype``, or its prepared form gives something else.
    """
    original = _preparable(model, dtype)
    before = _Answer.of(Trace.run(model, images, Reading()))
    network = replicate(model)
    modules = dict(network.named_modules())
    flow = observe(network, lambda: Trace.run(network, images, Reading()).outputs)
    folded, kept = flow.foldable() if fold else ({}, dict.fromkeys(flow.norms, "folding was not asked for"))
    fold_into(network, [cast("Any", (modules[convolution], modules[norm])) for norm, convolution in folded.items()])
    _Conversion(channels_last, dtype, before.dtype).apply(network)
    packable = [name for name, size in flow.sizes.items() if channels_last and pack(modules[name], size)]
    after = _run(network, images, dtype)
    made = Preparation(
        folded,
        kept,
        tuple(name for name in packable if ran_packed(modules[name])),
        channels_last,
        dtype or _dtype(original),
        lean,
        *_compare(before, after, _coarser(dtype or _dtype(original), _dtype(original))),
        tuple(_sources(original, modules, {*folded, *folded.values()})),
        Fingerprint.of(model, flow.written),
        weakref.WeakKeyDictionary({module: name for module, name in modules_of(original).items() if name}),
    )
    made.hang_on(network)
    return network


def _preparable(model: Any, dtype: torch.dtype | None) -> nn.Module:
    """The network inside ``model``, if it can be prepared."""
    if not isinstance(model, nn.Module):
        raise InputError(f"prepare takes a torch.nn.Module; got {type(model).__name__}")
    original = unwrap(model)
    if preparation_of(model) is not None:
        raise InputError("this network is prepared already; prepare the one that it was made of")
    if isinstance(original, torch.jit.ScriptModule):
        raise InputError("TorchScript cannot be prepared; give the Python module that it was made from")
    if dtype is not None and not dtype.is_floating_point:
        raise InputError(f"a network computes in a floating-point dtype; got {dtype}")
    return original


def _run(network: nn.Module, images: Inputs, dtype: torch.dtype | None) -> _Answer:
    try:
        return _Answer.of(Trace.run(network, images, Reading()))
    except (RuntimeError, TypeError, ValueError) as error:
        if not raised_by_network(error):
            raise
        into = "" if dtype is None else f" in {str(dtype).removeprefix('torch.')}"
        raise ModelError(f"the network does not run{into} once it is prepared: {error}") from error


def _dtype(network: nn.Module) -> torch.dtype:
    """What the network computes in."""
    held = chain(network.parameters(), network.buffers())
    return next((tensor.dtype for tensor in held if tensor.is_floating_point()), torch.get_default_dtype())


# --- What is converted on the way in and out -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Conversion:
    """How a network's tensors, its inputs and its outputs are converted.

    Attributes:
        last: lay tensors out with their channels last.
        narrow: what the network is to compute in; as it does if None.
        wide: what it returns.
    """

    last: bool
    narrow: torch.dtype | None
    wide: torch.dtype

    def apply(self, network: nn.Module) -> None:
        """Convert what ``network`` holds, and have it convert what it is given and what it returns."""
        for module in network.modules():
            if isinstance(module, torch.jit.ScriptModule):
                if self.narrow is not None:
                    raise ModelError("part of the network is TorchScript, which cannot be converted; leave dtype out")
                continue
            for tensors in (module._parameters, module._buffers):
                tensors.update({key: t if t is None else self._held(t) for key, t in tensors.items()})
            held = {key: self._narrowed(value) for key, value in vars(module).items() if isinstance(value, Tensor)}
            module.__dict__.update(held)
        settle(network, self._held)
        network.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
        network.register_forward_hook(self._leave)

    def _held(self, tensor: Tensor) -> Any:
        """Convert a parameter or buffer; it stays itself where nothing has to be done to it."""
        made = self._narrowed(tensor.detach())
        # on a CPU they are packed, or as well as they are
        if self.last and tensor.device.type != "cpu" and tensor.ndim in _LAST:
            made = made.contiguous(memory_format=_LAST[tensor.ndim])
        if made.data_ptr() == tensor.data_ptr():
            return tensor
        return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made

    def _narrowed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.narrow) if self.narrow is not None and tensor.is_floating_point() else tensor

    def _enter(self, network: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        made = preparation_of(network)
        if made is not None:
            made.check()
            settle(network)
        converted: tuple[Any, Any] = tree_map_only(Tensor, self._given, (args, kwargs))
        return converted

    def _given(self, tensor: Tensor) -> Tensor:
        tensor = self._narrowed(tensor)
        return tensor.contiguous(memory_format=_LAST[tensor.ndim]) if self.last and tensor.ndim in _LAST else tensor

    def _leave(self, _network: nn.Module, _args: Any, outputs: Any) -> Any:
        if self.narrow in (None, self.wide):
            return None
        return tree_map_only(Tensor, lambda t: t.to(self.wide) if t.dtype == self.narrow else t, outputs)


# --- What was copied, and how near the result is ---------------------------------------------------------------------------


def _sources(original: nn.Module, modules: Mapping[str, nn.Module], folded: Collection[str]) -> Iterator[Source]:
    """Every parameter and buffer of ``original`` that the prepared ``modules`` share, or copied, or have ``folded``."""
    for module, name in modules_of(original).items():
        ours = modules.get(name)
        if ours is None or isinstance(module, torch.jit.ScriptModule):
            continue
        for theirs, held in ((module._parameters, ours._parameters), (module._buffers, ours._buffers)):
            for key, tensor in theirs.items():
                if tensor is not None:
                    copy = held.get(key)
                    shared = copy is not None and copy.data_ptr() == tensor.data_ptr()
                    yield Source.of(name, module, key, copied=not shared or name in folded)


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """What a network made of the example: its outputs, and the gradient of the sum of their squares."""

    outputs: tuple[Tensor, ...]
    gradient: NDArray[np.float64]

    @classmethod
    def of(cls, trace: Trace) -> _Answer:
        outputs = [tensor for _, tensor in tensors_in(trace.outputs) if tensor.is_floating_point()]
        if not any(t.requires_grad for t in outputs):
            raise ModelError("nothing that the network returned is a floating-point tensor; let it return one, to be compared")
        loss = torch.stack([t.cpu().double().square().sum() for t in outputs if t.requires_grad]).sum()  # MPS has no float64
        (gradient,) = gradients(loss, [trace.images], keep=False)
        assert gradient is not None, "a trace's outputs depend on its images"
        return cls(tuple(t.detach() for t in outputs), gradient.cpu().double().numpy().ravel())

    @property
    def dtype(self) -> torch.dtype:
        return self.outputs[0].dtype


def _coarser(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """Return the dtype that rounds more: what was computed in float32 is no nearer than that, whatever it is compared with."""
    return max(one, other, key=lambda dtype: torch.finfo(dtype).eps)


def _compare(before: _Answer, after: _Answer, dtype: torch.dtype) -> tuple[float, float]:
    """The largest difference of outputs, relative, and the rank correlation of the gradients.

    Raises:
        ModelError: they differ by more than computing in ``dtype`` explains.
    """
    pairs = zip(before.outputs, after.outputs, strict=True)
    off = torch.stack([((x - y).abs().max() / x.abs().max().clamp(min=1e-30)).cpu().double() for x, y in pairs if x.numel()])
    difference = float(off.max())
    apart = float(np.linalg.norm(before.gradient - after.gradient)) / max(float(np.linalg.norm(before.gradient)), 1e-300)
    agreement = rank_correlation(before.gradient, after.gradient)
    most = MOST_DIFFERENCE.get(dtype, MOST_DIFFERENCE_NARROW)
    least = LEAST_AGREEMENT.get(dtype, LEAST_AGREEMENT_NARROW)
    # rounding ranks equal values at random, and where all are equal there are no ranks
    if not (difference <= most and (agreement >= least or apart <= most)):
        raise ModelError(
            f"on the example the prepared network's outputs differ by {difference:.1e} of the largest, at most {most}; its "
            f"gradient differs by {apart:.1e}, and its rank correlation is {agreement:.4f}, at least {least}; "
            "use the network itself, or leave out fold or dtype"
        )
    return difference, 1.0 if math.isnan(agreement) else agreement
