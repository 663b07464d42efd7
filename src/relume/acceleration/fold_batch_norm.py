"""A BatchNorm folded into the convolution before it: both compute as one convolution.

Each module keeps its own parameters and statistics, which are what anybody reads there. What was folded lies beside them, and
is folded again if they change.

:mod:`relume.acceleration.data_flow` proved on an example that a BatchNorm may be folded; another input may take another
way. What a
folded convolution makes is therefore :class:`Reserved`: whatever else than its own BatchNorm takes it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

from relume.acceleration.packed_convolution import convolve, mix
from relume.engine.module_state import AnyBatchNorm, parameter_of
from relume.engine.tensor_state import version
from relume.engine.wrappers import Merged, unwrap
from relume.errors import GraphError, ModelError

__all__ = ["CONVOLUTIONS", "Convolution", "Folding", "Reserved", "fold_into", "settle"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d


_ANOTHER_WAY = (
    "{}, so this input takes another way through the network than the example that it was prepared with; "
    "prepare with fold=False"
)


class Reserved(Tensor):
    """Stands for what a folded convolution made, which only its own BatchNorm gets out, and once.

    To anything else it shows its size and no value.
    """

    _shown: ClassVar[frozenset[Any]] = frozenset(
        (
            *(getattr(Tensor, key).__get__ for key in ("shape", "ndim", "dtype", "device", "_version")),
            *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_inference, Tensor.is_floating_point),
        )
    )

    _conversions: ClassVar[frozenset[Any]] = frozenset((Tensor.to, Tensor.float, Tensor.contiguous))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse, unless ``func`` asks for no value, or converts to what it is already."""
        if func in cls._shown or func in cls._conversions:
            returned = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
            if func in cls._shown or returned is args[0]:
                return returned
        raise GraphError(
            _ANOTHER_WAY.format("what a convolution made is taken by something else than the BatchNorm folded into it")
        )


_INSIDE = "_relume_inside"
_FOLD, _NORM, _FOLDING, _WRITTEN = "_relume_fold", "_relume_norm", "_relume_folding", "_relume_written"


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A convolution and the BatchNorm after it, as the weights of one convolution.

    Both modules keep their own parameters and statistics, which are what anybody reads there.

    Attributes:
        weight: the folded weight.
        bias: the folded bias.
        parameters: weight and bias of both modules, which it was made of; their memory is shared.
        versions: how often these had been written to.
        statistics: mean and variance, copies.
        eps: what was added to the variance.
    """

    weight: Tensor
    bias: Tensor
    parameters: tuple[Tensor | None, ...]
    versions: tuple[int, ...]
    statistics: tuple[Tensor, Tensor]
    eps: float

    @classmethod
    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def of(cls, convolution: Convolution, norm: AnyBatchNorm, folded: tuple[Tensor, Tensor] | None = None) -> Fold:
        """Fold ``norm`` into ``convolution``, in float64, or take what was ``folded`` of just these."""
        parameters, (mean, var) = _parameters(convolution, norm), _statistics(norm)
        if folded is None:
            # on the CPU, since MPS has no float64
            weight, bias, gamma, beta = (None if t is None else t.cpu().double() for t in parameters)
            assert weight is not None
            fused = fuse_conv_bn_weights(weight, bias, mean.cpu().double(), var.cpu().double(), norm.eps, gamma, beta)
            folded = fused[0].detach().to(convolution.weight), fused[1].detach().to(convolution.weight)
        detached = tuple(None if t is None else t.detach() for t in parameters)
        versions = tuple(map(version, parameters))
        return cls(*folded, detached, versions, (mean.clone(), var.clone()), norm.eps)

    def __deepcopy__(self, _: Any) -> Fold:
        return self  # nothing in it changes; the copy will compare its own tensors with these

    def holds(self, convolution: Convolution, norm: AnyBatchNorm) -> bool:
        """Tell whether the parameters of the two are the very ones that it was made of, as they were then."""
        now = _parameters(convolution, norm)
        return norm.eps == self.eps and all(
            one is other if one is None or other is None else one.data_ptr() == other.data_ptr() and version(one) == count
            for one, other, count in zip(now, self.parameters, self.versions, strict=True)
        )

    def renewed(self, convolution: Convolution, norm: AnyBatchNorm) -> Fold:
        """Make what holds for the two now: nothing is computed if the values are the same, as those of a copy are."""
        now = *_parameters(convolution, norm), *_statistics(norm)
        unwritten = all(version(t) == count for t, count in zip(self.parameters, self.versions, strict=True))
        pairs = zip(now, (*self.parameters, *self.statistics), strict=True)
        same = unwritten and norm.eps == self.eps and all(map(_equal, *zip(*pairs, strict=True)))
        return Fold.of(convolution, norm, (self.weight, self.bias) if same else None)


def _parameters(convolution: Convolution, norm: AnyBatchNorm) -> tuple[Tensor | None, ...]:
    return tuple(parameter_of(module, key) for module in (convolution, norm) for key in ("weight", "bias"))


def _own_parameters(convolution: Convolution) -> dict[str, Tensor | None]:
    return {key: parameter_of(convolution, key) for key in ("weight", "bias")}


def _statistics(norm: AnyBatchNorm) -> tuple[Tensor, Tensor]:
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise ModelError("a BatchNorm that is folded into its convolution has lost its statistics; call relume.prepare again")
    return mean, var


def _written(convolution: Convolution, norm: AnyBatchNorm) -> tuple[object, ...]:
    """Tell apart, within one run, what was folded from the same after a write or an exchange; the BatchNorm's part is last."""
    tensors = *_parameters(convolution, norm), *_statistics(norm)
    return *((id(tensor), version(tensor)) for tensor in tensors), norm.eps


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = (one.device, one.dtype, one.shape) == (other.device, other.dtype, other.shape)
    return alike and torch.equal(one, other)


def settle(network: nn.Module, convert: Callable[[Tensor], Tensor] | None = None) -> None:
    """Fold again whatever has changed since it was folded in ``network``, which is prepared or a replica of one that is.

    With ``convert``, the network's tensors were converted, and all that was folded is converted likewise.
    """
    pairs = [(convolution, vars(convolution)[_NORM]) for convolution in vars(unwrap(network)).get(_FOLDING, ())]
    if not pairs or torch.compiler.is_compiling():  # which knows no values
        return
    folds = [vars(convolution)[_FOLD] for convolution, _ in pairs]
    statistics = [t for _, norm in pairs for t in _statistics(norm)]
    # a replica's are copies, told by their values alone: all at once, since a GPU is waited for at each comparison
    known = _all_equal(statistics, [t for fold in folds for t in fold.statistics])
    for (convolution, norm), fold in zip(pairs, folds, strict=True):
        if convert is not None:
            vars(convolution)[_FOLD] = Fold.of(convolution, norm, (convert(fold.weight), convert(fold.bias)))
        elif not (known and fold.holds(convolution, norm)):
            vars(convolution)[_FOLD] = fold.renewed(convolution, norm)
        vars(convolution)[_WRITTEN] = _written(convolution, norm)


def _all_equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    kinds = {(t.device, t.dtype) for t in (*some, *others)}
    alike = len(kinds) == 1 and all(a.shape == b.shape for a, b in zip(some, others, strict=True))
    return alike and torch.equal(torch.cat(list(some)), torch.cat(list(others)))


def _use(x: Tensor, *weights: Tensor | None) -> Tensor:
    """Return ``x``; modes that watch torch's functions see that it is made by ``weights``."""
    if has_torch_function((x,)):
        result: Tensor = handle_torch_function(_use, (x,), x, *weights)
        return result
    return x


class Folding(Merged):
    """The class mixed into a convolution's: convolves by the folded weights, and reserves the result for its BatchNorm."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what convolution and BatchNorm make, reserved; or the convolution alone, if the BatchNorm is to train."""
        state, convolution = vars(self), cast("Any", super())
        norm: AnyBatchNorm = state[_NORM]
        if norm.training:
            return convolution.forward(*args, **kwargs)
        written = _written(cast("Any", self), norm)
        if written != state[_WRITTEN] and not torch.compiler.is_compiling():  # since the run began
            state.update({_FOLD: state[_FOLD].renewed(self, norm), _WRITTEN: written})
        convolved = self._folded(state[_FOLD], *args, **kwargs)
        convolved = _use(convolved, *_own_parameters(cast("Any", self)).values())
        reserved = _reserve(convolved)
        setattr(reserved, _INSIDE, (norm, convolved, written))
        return reserved

    def _folded(self, fold: Fold, input: Tensor) -> Any:  # noqa: A002
        return cast("Any", self)._conv_forward(input, fold.weight, fold.bias)


class FoldingInside(Folding):
    """A :class:`Folding` for convolutions with a forward of their own, in which one call convolves, and which returns that."""

    def _folded(self, fold: Fold, *args: Any, **kwargs: Any) -> Any:
        with _WithFolded(_own_parameters(cast("Any", self)), fold) as watch:
            returned = super(Folding, self).forward(*args, **kwargs)  # type: ignore[misc]
        if watch.convolved is None or returned is not watch.reserved:
            raise GraphError(
                _ANOTHER_WAY.format(
                    "a convolution with a BatchNorm folded into it returns something else, or does not convolve by its weight"
                )
            )
        return watch.convolved


class Folded:
    """Mixed into the class of a BatchNorm: what it did is in the convolution now; what else its module does, it still does."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Hand on what the convolution made, or what the module makes of that after its BatchNorm."""
        norm, module = cast("Any", self), cast("Any", super())
        owner, convolved, written = getattr(x, _INSIDE, (None, x, ()))
        if norm.training and owner is None:
            return module.forward(x, *args, **kwargs)
        if norm.training or owner is not self or written[2:] != _written(norm, norm)[2:]:
            raise GraphError(
                _ANOTHER_WAY.format(
                    "a BatchNorm that is folded into its convolution was given something else, or is another one by now"
                )
            )
        delattr(x, _INSIDE)
        convolved = _use(convolved, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        if module.forward.__func__ is AnyBatchNorm.forward:
            return convolved
        with _WithoutNorm(norm, x, convolved) as watch:
            returned = module.forward(x, *args, **kwargs)
        if not watch.done:
            raise GraphError(
                _ANOTHER_WAY.format(
                    "a BatchNorm that is folded into its convolution does not normalise by its own weights and statistics"
                )
            )
        return returned


def _reserve(convolved: Any) -> Any:
    """Return what stands for ``convolved``; ``convolved`` itself while a compiler looks on."""
    if type(convolved) is not Tensor:
        return convolved
    reserved = convolved.detach()
    reserved.__class__ = Reserved
    return reserved


def _alike(given: Tensor | None, own: Tensor | None) -> bool:
    """Tell whether ``given`` is the tensor ``own``, or the same of its memory in the same order."""
    if given is own or given is None or own is None:
        return given is own
    return given.data_ptr() == own.data_ptr() and (given.shape, given.stride()) == (own.shape, own.stride())


class _WithFolded(TorchFunctionMode):
    """Inside, the one call that convolves by the weight and bias of ``parameters`` convolves by what was folded.

    Attributes:
        convolved: the result of that call.
        reserved: what it returned in place of that.
    """

    _calls: ClassVar[tuple[Any, ...]] = (F.conv1d, F.conv2d, F.conv3d, convolve)
    _names: ClassVar[tuple[str, ...]] = ("input", "weight", "bias")

    def __init__(self, parameters: Mapping[str, Tensor | None], fold: Fold) -> None:
        super().__init__()
        self.convolved: Any = None
        self.reserved: Any = None
        self._parameters, self._fold = parameters, fold

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._calls or self.convolved is not None:
            return func(*args, **kwargs)
        arguments = {"bias": None, **dict(zip(self._names, args, strict=False)), **kwargs}
        if not all(_alike(arguments[key], self._parameters.get(key)) for key in ("weight", "bias")):
            return func(*args, **kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in self._names}
        self.convolved = func(arguments["input"], self._fold.weight, self._fold.bias, *args[3:], **kwargs)
        self.reserved = _reserve(self.convolved)
        return self.reserved


class _WithoutNorm(TorchFunctionMode):
    """Inside, the one call that normalises ``x``, just as ``norm`` does, gives ``convolved``.

    Attributes:
        done: that call was made.
    """

    _calls: ClassVar[dict[Any, tuple[str, ...]]] = {
        F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
        torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
    }

    def __init__(self, norm: AnyBatchNorm, x: Tensor, convolved: Tensor) -> None:
        super().__init__()
        self.done = False
        self._norm, self._x, self._convolved = norm, x, convolved

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.done and func in self._calls:
            named = dict(zip(self._calls[func], args, strict=False))
            arguments = {"weight": None, "bias": None, "training": False, "eps": 1e-5, **named, **kwargs}
            tensors = ("weight", "bias", "running_mean", "running_var")
            same = all(_alike(arguments[key], getattr(self._norm, key)) for key in tensors)
            if arguments["input"] is self._x and same and not arguments["training"] and arguments["eps"] == self._norm.eps:
                self.done = True
                return self._convolved
        return func(*args, **kwargs)


def fold_into(network: nn.Module, pairs: Sequence[tuple[Convolution, AnyBatchNorm]]) -> None:
    """Fold each BatchNorm into the convolution beside it, all of them modules of the private ``network``."""
    for convolution, norm in pairs:
        own = not any(
            type(convolution).forward is kind.forward and type(convolution)._conv_forward is kind._conv_forward
            for kind in CONVOLUTIONS
        )
        vars(convolution).update({_FOLD: Fold.of(convolution, norm), _NORM: norm, _WRITTEN: ()})
        mix(convolution, FoldingInside if own else Folding)
        mix(norm, Folded)
    vars(network)[_FOLDING] = tuple(convolution for convolution, _ in pairs)
