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

from relume.acceleration.data_flow import Flow, observe
from relume.acceleration.fold_batch_norm import fold_into, settle
from relume.acceleration.packed_convolution import pack, ran_packed
from relume.engine.fingerprint import Fingerprint
from relume.engine.forward_pass import raised_by_network
from relume.engine.graph import gradients
from relume.engine.inputs import Inputs
from relume.engine.module_state import tensor_of, tensors_of
from relume.engine.preparation import Preparation, Source, preparation_of
from relume.engine.reading import Reading
from relume.engine.replica import replicate
from relume.engine.trace import Trace, recording
from relume.engine.trees import tree_map_only
from relume.engine.weights import weights_hash
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
    """The options of :func:`prepare`."""

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
    """Make a private, evaluation-only form of ``model`` that is faster, for every method and command in place of ``model``.

    Its ``preparation`` describes what was done: print it. Weights that nothing was done to are shared with ``model``, so that
    the prepared network follows them. If others are written to, or a parameter, buffer, module, attribute or forward hook of
    ``model`` changes, it refuses to run; :meth:`Preparation.check` says what cannot be noticed.

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

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
        >>> fast = prepare(model, torch.rand(1, 3, 8, 8))
        >>> fast.preparation.folded
        {'1': '0'}
    """
    original = _preparable(model, dtype)
    before = _Answer.of(Trace.run(model, images, Reading()))
    network = replicate(model)
    flow = observe(network, lambda: Trace.run(network, images, Reading()).outputs)
    folded, reasons = flow.foldable() if fold else ({}, dict.fromkeys(flow.norms, "folding was not asked for"))
    packable = _change(network, flow, folded, _Conversion(channels_last, dtype, before.dtype))
    after = _run(network, images, dtype)
    original_dtype, modules = _dtype(original), dict(network.named_modules())
    packed = tuple(name for name in packable if ran_packed(modules[name]))
    dtype = dtype or original_dtype
    nearness = _compare(before, after, _coarser(dtype, original_dtype))
    sources = tuple(_sources(original, modules, {*folded, *folded.values()}))
    watched = Fingerprint.of(model, flow.written)
    names = weakref.WeakKeyDictionary({module: name for module, name in modules_of(original).items() if name})
    weights = weights_hash(original)
    preparation = Preparation(
        folded, reasons, packed, channels_last, dtype, lean, *nearness, sources, watched, names, weights, settle
    )
    preparation.hang_on(network)
    return network


def _change(network: nn.Module, flow: Flow, folded: Mapping[str, str], conversion: _Conversion) -> list[str]:
    """Fold, convert and pack what the private ``network`` holds, and name the convolutions that were packed."""
    modules = dict(network.named_modules())
    fold_into(network, [cast("Any", (modules[convolution], modules[norm])) for norm, convolution in folded.items()])
    conversion.apply(network)
    return [name for name, size in flow.sizes.items() if conversion.last and pack(modules[name], size)]


def _preparable(model: Any, dtype: torch.dtype | None) -> nn.Module:
    """Find the network inside ``model`` that is to be prepared.

    Raises:
        InputError: it cannot be.
    """
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
    """Find the dtype that the network computes in."""
    tensors = chain(network.parameters(), network.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())


# --- What is converted on the way in and out -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Conversion:
    """The conversion of a network's tensors, its inputs and its outputs.

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
            for tensors, key, tensor in tensors_of(module):
                tensors[key] = self._held(tensor)
            attributes = {key: self._narrowed(value) for key, value in vars(module).items() if isinstance(value, Tensor)}
            module.__dict__.update(attributes)
        settle(network, self._held)
        network.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
        network.register_forward_hook(self._leave)

    def _held(self, tensor: Tensor) -> Any:
        """Convert a parameter or buffer; it stays itself where nothing has to be done to it."""
        converted = self._narrowed(tensor.detach())
        # on a CPU they are packed, or as well as they are
        if self.last and tensor.device.type != "cpu" and tensor.ndim in _LAST:
            converted = converted.contiguous(memory_format=_LAST[tensor.ndim])
        if converted.data_ptr() == tensor.data_ptr():
            return tensor
        return nn.Parameter(converted, requires_grad=False) if isinstance(tensor, nn.Parameter) else converted

    def _narrowed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.narrow) if self.narrow is not None and tensor.is_floating_point() else tensor

    def _enter(self, network: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        preparation = preparation_of(network)
        if preparation is not None:
            preparation.check()
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
    """List every parameter and buffer of ``original`` that the prepared ``modules`` share, or copied, or have ``folded``."""
    for module, name in modules_of(original).items():
        ours = modules.get(name)
        if ours is None or isinstance(module, torch.jit.ScriptModule):
            continue
        for _, key, tensor in tensors_of(module):
            copy = tensor_of(ours, key)
            shared = copy is not None and copy.data_ptr() == tensor.data_ptr()
            yield Source.of(name, module, key, copied=not shared or name in folded)


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """The outputs of a network for the example, and the gradient of the sum of their squares."""

    outputs: tuple[Tensor, ...]
    gradient: NDArray[np.float64]

    @classmethod
    def of(cls, trace: Trace) -> _Answer:
        outputs = [tensor for _, tensor in tensors_in(trace.outputs) if tensor.is_floating_point() and tensor.numel()]
        if not any(t.requires_grad for t in outputs):
            raise ModelError(
                "nothing that the network returned is a floating-point tensor with values; let it return one, to be compared, "
                "and give a detector an example in which it finds something"
            )
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
    """Compute the largest difference of outputs, relative, and the rank correlation of the gradients.

    Raises:
        ModelError: they differ by more than computing in ``dtype`` explains.
    """
    if [t.shape for t in before.outputs] != [t.shape for t in after.outputs]:
        raise ModelError(
            "on the example the prepared network returned more or fewer values than the network, as detectors may by rounding; "
            "use the network itself, or give another example"
        )
    pairs = zip(before.outputs, after.outputs, strict=True)
    off = torch.stack([((x - y).abs().max() / x.abs().max().clamp(min=1e-30)).cpu().double() for x, y in pairs])
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
