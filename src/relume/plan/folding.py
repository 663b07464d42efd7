"""Which BatchNorms can be folded into the convolution before them, proved by watching where data flows, and the folding.

No network is traced symbolically: it runs once on an example, and below autograd every operation is seen with the memory that
it takes, whether or not a gradient flows through it. A BatchNorm may go where its module ran once, on the very tensor that a
convolution's module made in its only run, by its own weights as they are; where the one operation that ever took that tensor
normalised it by that module's own statistics; and where nothing else took any of these weights.

Another input may take another way. What a folded convolution makes is therefore :class:`Reserved`: whatever else than its own
BatchNorm takes it is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from relume.errors import GraphError
from relume.plan.convolution import mix

__all__ = ["Reserved", "fold_into", "observe"]

_Norm = nn.modules.batchnorm._BatchNorm
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d


_BATCH_NORMS = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.cudnn_batch_norm.default,
    torch.ops.aten.miopen_batch_norm.default,
)


def _memory(tensor: Tensor | None) -> int:
    """Where ``tensor`` lies; views of it lie there too. It means something while that memory is held."""
    return 0 if tensor is None or tensor.layout is not torch.strided else tensor.untyped_storage()._cdata


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that take each memory, and notes which of them are convolutions and BatchNorms."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: Counter[int] = Counter()
        self.convolved: dict[int, tuple[int, int]] = {}  # by what was made: by which weights
        self.normed: dict[int, tuple[Any, ...]] = {}  # by what was taken: by which weights and statistics
        self._held: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.uses.update({_memory(t) for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)})
        made = func(*args, **kwargs)
        if func is torch.ops.aten.convolution.default and not args[6]:
            key = _memory(made)
            self._held.append(made)
            self.uses[key] = 0  # those of what lay there before
            self.convolved[key] = _memory(args[1]), _memory(args[2])
        elif func in _BATCH_NORMS:
            self.normed[_memory(args[0])] = *map(_memory, args[1:5]), args[5], args[7]
        return made


def observe(network: nn.Module, run: Callable[[], Any]) -> tuple[dict[str, str], dict[str, str], dict[str, torch.Size]]:
    """Watch ``run``, which runs ``network`` or a replica of it, and returns what that returned.

    Returns:
        Each BatchNorm that may be folded with its convolution; each of the others with the reason why not; and the size of what
        each convolution was given.
    """
    flow = _Flow.of(network, run)
    return *flow.foldable(), flow.sizes


@dataclass(slots=True)
class _Flow:
    """What one run of a network showed of its convolutions and BatchNorms."""

    network: nn.Module
    sizes: dict[str, torch.Size] = field(default_factory=dict)
    _runs: Counter[str] = field(default_factory=Counter)
    _made: dict[int, tuple[str, Convolution, Tensor]] = field(default_factory=dict)
    _took: dict[str, tuple[_Norm, Tensor]] = field(default_factory=dict)
    _watch: _Watch = field(default_factory=_Watch)

    @classmethod
    def of(cls, network: nn.Module, run: Callable[[], Any]) -> _Flow:
        flow = cls(network)
        # what made this run's private network is none of its uses
        handles = [network.register_forward_pre_hook(flow._begin, prepend=True)]
        for name, module in network.named_modules():
            if isinstance(module, _CONVOLUTIONS):  # before hooks of the caller's take what it made
                handles.append(module.register_forward_hook(flow._convolution(name), prepend=True))
            elif isinstance(module, _Norm):  # after hooks of the caller's, which may give it something else
                handles.append(module.register_forward_pre_hook(flow._norm(name)))
        try:
            with flow._watch:
                outputs = run()
        finally:
            for handle in handles:
                handle.remove()
        for tensor in tree_iter(outputs):  # what is returned is taken too
            if isinstance(tensor, Tensor):
                flow._watch.uses[_memory(tensor)] += 1
        return flow

    def _begin(self, *_: Any) -> None:
        self._watch.uses.clear()

    def _convolution(self, name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            self._runs[name] += 1
            if args and isinstance(args[0], Tensor):
                self.sizes[name] = args[0].shape
            if type(output) is Tensor:
                self._made[id(output)] = name, module, output

        return hook

    def _norm(self, name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any) -> None:
            self._runs[name] += 1
            if args and isinstance(args[0], Tensor):
                self._took[name] = module, args[0]

        return hook

    def foldable(self) -> tuple[dict[str, str], dict[str, str]]:
        """Each BatchNorm that may be folded with its convolution, and each of the others with the reason why not."""
        found: dict[str, str] = {}
        kept: dict[str, str] = {}
        for name, module in self.network.named_modules():
            if isinstance(module, _Norm):
                reason = self._obstacle(name)
                if reason:
                    kept[name] = reason
                else:
                    found[name] = self._made[id(self._took[name][1])][0]
        return found, kept

    def _obstacle(self, name: str) -> str:
        """Why the BatchNorm ``name`` may not be folded, if there is a reason."""
        if self._runs[name] != 1:
            return f"ran {self._runs[name]} times" if self._runs[name] else "did not run"
        norm, taken = self._took.get(name, (None, None))
        if norm is None or taken is None or id(taken) not in self._made:
            return "does not take what a convolution made"
        convolution, module, _ = self._made[id(taken)]
        weights = _memory(module._parameters.get("weight")), _memory(module._parameters.get("bias"))
        own = tuple(_memory(t) for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
        uses = self._watch.uses
        reasons = {
            "normalises by the batch": norm.running_mean is None or norm.running_var is None or norm.training,
            "its forward, or that of its convolution, was exchanged": "forward" in vars(norm) or "forward" in vars(module),
            f"its convolution ran {self._runs[convolution]} times": self._runs[convolution] != 1,
            "the weight of its convolution is computed": self._watch.convolved.get(_memory(taken)) != weights,
            "something else takes what its convolution made": uses[_memory(taken)] != 1 or bool(taken._backward_hooks),
            "does not normalise just what it takes": self._watch.normed.get(_memory(taken)) != (*own, False, norm.eps),
            "something else takes its weights, or its convolution's": any(uses[key] != 1 for key in (*weights, *own) if key),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")


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

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse, unless ``func`` asks for no value."""
        if func in cls._shown:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        raise GraphError(
            _ANOTHER_WAY.format("what a convolution made is taken by something else than the BatchNorm folded into it")
        )


_INSIDE = "_relume_folded"


class Folding:
    """Mixed into the class of a convolution: reserves what it makes for its own BatchNorm."""

    merged: ClassVar[bool] = True  # read by relume.layers: what it makes is what its BatchNorm made, and goes by its name
    mark: object

    def forward(self, *args: Any) -> Any:
        """What the convolution makes, reserved."""
        made = super().forward(*args)  # type: ignore[misc]
        reserved = made
        if type(made) is Tensor:  # not so while a compiler looks on
            reserved = made.detach()
            reserved.__class__ = Reserved
        setattr(reserved, _INSIDE, (self.mark, made))
        return reserved


class Folded:
    """Mixed into the class of a BatchNorm: what it did is in the convolution now; what else its module does, it still does."""

    of: object  # what marks the outputs of its convolution

    def forward(self, x: Tensor) -> Any:
        """What the convolution made, or what the module makes of that after its BatchNorm."""
        mark, made = getattr(x, _INSIDE, (None, x))
        if mark is not self.of:
            raise GraphError(_ANOTHER_WAY.format("a BatchNorm that is folded into its convolution was given something else"))
        delattr(x, _INSIDE)
        x = made
        if super().forward.__func__ is _Norm.forward:  # type: ignore[misc]
            return x
        with _WithoutNorm(x):
            return super().forward(x)  # type: ignore[misc]


class _WithoutNorm(TorchFunctionMode):
    """Inside, the one call of ``batch_norm`` that takes ``x`` hands it on."""

    _calls: ClassVar[tuple[Any, ...]] = (F.batch_norm, torch.batch_norm)

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._x: Tensor | None = x

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._calls and self._x is not None and (args[0] if args else kwargs["input"]) is self._x:
            x, self._x = self._x, None
            return x
        return func(*args, **kwargs)


@torch.no_grad()
def fold_into(convolution: Convolution, norm: _Norm) -> None:
    """Fold ``norm`` into ``convolution``, both of a private network, in float64."""
    tensors = convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias
    weight, bias, mean, var, gamma, beta = (None if t is None else t.double() for t in tensors)
    assert weight is not None
    assert mean is not None
    assert var is not None
    folded = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, gamma, beta)
    for key, values in zip(("weight", "bias"), folded, strict=True):
        convolution._parameters[key] = nn.Parameter(values.to(convolution.weight.dtype), requires_grad=False)
    norm._parameters.update(weight=None, bias=None)
    norm._buffers.update(running_mean=None, running_var=None, num_batches_tracked=None)
    mark = object()
    convolution.__dict__["mark"], norm.__dict__["of"] = mark, mark
    mix(convolution, Folding)
    mix(norm, Folded)
