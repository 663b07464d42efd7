"""Which BatchNorms can be folded into the convolution before them, proved by watching where data flows, and the folding.

No network is traced symbolically: it runs once on an example, and below autograd every operation that takes a convolution's
output, or a view of it, is seen, whether or not a gradient flows through it. A BatchNorm may go where its module ran once, on
the very tensor that a convolution's module made in its only run, and nothing else ever took that tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
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

__all__ = ["Flow", "fold_into"]

_Norm = nn.modules.batchnorm._BatchNorm
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, for each tensor watched, the operations that take it or a view of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()
        self._held: dict[int, Tensor] = {}  # an address means something while its memory is held

    def watch(self, tensor: Tensor) -> int:
        """Count for ``tensor`` from now on, under the key returned."""
        key: int = tensor.untyped_storage()._cdata
        self._held[key] = tensor
        return key

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        taken = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if type(t) is Tensor}
        self.counts.update(key for key in taken if key in self._held)
        return func(*args, **kwargs)


@dataclass(slots=True)
class Flow:
    """What one run of a network showed of its convolutions and BatchNorms."""

    network: nn.Module
    sizes: dict[str, torch.Size] = field(default_factory=dict)
    _runs: Counter[str] = field(default_factory=Counter)
    _made: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    _keys: dict[str, int] = field(default_factory=dict)
    _took: dict[str, Tensor] = field(default_factory=dict)
    _uses: _Uses = field(default_factory=_Uses)

    @classmethod
    def of(cls, network: nn.Module, run: Callable[[], Any]) -> Flow:
        """Watch ``run``, which runs ``network`` or a replica of it, and returns what that returned."""
        flow = cls(network)
        handles = []
        for name, module in network.named_modules():
            if isinstance(module, _CONVOLUTIONS):
                handles.append(module.register_forward_hook(flow._convolution(name)))
            elif isinstance(module, _Norm):
                handles.append(module.register_forward_pre_hook(flow._norm(name)))
        try:
            with flow._uses:
                outputs = run()
        finally:
            for handle in handles:
                handle.remove()
        for tensor in tree_iter(outputs):  # what is returned is taken too
            if isinstance(tensor, Tensor):
                flow._uses.counts[tensor.untyped_storage()._cdata] += 1
        return flow

    def _convolution(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, output: Any) -> None:
            self._runs[name] += 1
            if args and isinstance(args[0], Tensor):
                self.sizes[name] = args[0].shape
            if type(output) is Tensor:
                self._made[id(output)] = name, output
                self._keys[name] = self._uses.watch(output)

        return hook

    def _norm(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any) -> None:
            self._runs[name] += 1
            if args and isinstance(args[0], Tensor):
                self._took[name] = args[0]

        return hook

    def foldable(self) -> tuple[dict[str, str], dict[str, str]]:
        """Each BatchNorm that may be folded with its convolution, and each of the others with the reason why not."""
        modules = dict(self.network.named_modules())
        found: dict[str, str] = {}
        kept: dict[str, str] = {}
        for name, module in modules.items():
            if isinstance(module, _Norm):
                convolution, _ = self._made.get(id(self._took.get(name)), ("", None))
                reason = self._obstacle(name, module, convolution, modules)
                if reason:
                    kept[name] = reason
                else:
                    found[name] = convolution
        return found, kept

    def _obstacle(self, name: str, norm: _Norm, convolution: str, modules: Mapping[str, nn.Module]) -> str:
        times, before = self._runs[name], self._runs[convolution]
        reasons = {
            "did not run": not times,
            f"ran {times} times": times > 1,
            "normalises by the batch": norm.running_mean is None or norm.running_var is None,
            "does not take what a convolution made": not convolution,
            f"its convolution ran {before} times": before != 1,
            "the weight of its convolution is computed": modules[convolution]._parameters.get("weight") is None,
            "something else takes what its convolution made": self._uses.counts[self._keys.get(convolution, 0)] != 1,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")


class Folded:
    """Mixed into the class of a BatchNorm: what it did is in the convolution now; what else its module does, it still does."""

    of: object  # what marks the outputs of its convolution

    def forward(self, x: Tensor) -> Any:
        """``x``, or what the module makes of it after its BatchNorm."""
        if getattr(x, _MARK, None) is not self.of:
            raise GraphError(
                "a BatchNorm that is folded into its convolution was given something else, so this input takes another way "
                "through the network than the example that it was prepared with; prepare with fold=False"
            )
        if super().forward.__func__ is _Norm.forward:  # type: ignore[misc]
            return x
        with _WithoutNorm():
            return super().forward(x)  # type: ignore[misc]


class _WithoutNorm(TorchFunctionMode):
    """Inside, the one call of ``batch_norm`` hands its input on."""

    _calls: ClassVar[tuple[Any, ...]] = (F.batch_norm, torch.batch_norm)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._calls:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


_MARK = "_relume_folded"


class Folding:
    """Mixed into the class of a convolution: marks what it makes as meant for its own BatchNorm."""

    merged: ClassVar[bool] = True  # read by relume.layers: what it makes is what its BatchNorm made, and goes by its name
    mark: object

    def forward(self, *args: Any) -> Any:
        """What the convolution makes, marked."""
        made = super().forward(*args)  # type: ignore[misc]
        setattr(made, _MARK, self.mark)
        return made


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
    norm._parameters.update(dict.fromkeys(norm._parameters))
    norm._buffers.update(dict.fromkeys(norm._buffers))
    mark = object()
    convolution.__dict__["mark"], norm.__dict__["of"] = mark, mark
    mix(convolution, Folding)
    mix(norm, Folded)
