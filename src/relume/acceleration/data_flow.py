"""The flow of data through a network, which proves which BatchNorms can be folded into the convolution before them.

No network is traced symbolically: it runs once on an example, and below autograd every operation is seen with the memory that
it takes, whether or not a gradient flows through it. A BatchNorm may go where its module ran once, on the very tensor that a
convolution's module made in its only run, by its own weights as they are; where the one operation that ever took that tensor
normalised it by that module's own statistics; and where nothing else took any of these weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from relume.acceleration.fold_batch_norm import CONVOLUTIONS, Convolution
from relume.engine.fingerprint import Fingerprint
from relume.engine.module_state import AnyBatchNorm, parameter_of
from relume.engine.tensor_state import memory_key
from relume.engine.trees import tree_iter

__all__ = ["Flow", "observe"]

_BATCH_NORMS = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.cudnn_batch_norm.default,
    torch.ops.aten.miopen_batch_norm.default,
)


def _memory(tensor: Tensor | None) -> int:
    """Tell where ``tensor`` lies; views of it lie there too. It means something while that memory is held."""
    return 0 if tensor is None or tensor.layout is not torch.strided else memory_key(tensor.untyped_storage())


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that take each memory, and notes which of them are convolutions and BatchNorms."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: Counter[int] = Counter()
        self.convolved: dict[int, tuple[int, int]] = {}  # by what was made: by which weights
        self.normed: dict[int, tuple[Any, ...]] = {}  # by what was taken: by which weights and statistics
        self._held: list[Tensor] = []

    def clear(self) -> None:
        """Forget what was seen."""
        self.uses, self.convolved, self.normed, self._held = Counter(), {}, {}, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.uses.update({_memory(t) for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)})
        result = func(*args, **kwargs)
        if func is torch.ops.aten.convolution.default and not args[6]:
            key = _memory(result)
            self._held.append(result)
            self.uses[key] = 0  # those of what lay there before
            self.convolved[key] = _memory(args[1]), _memory(args[2])
        elif func in _BATCH_NORMS:
            self.normed[_memory(args[0])] = *map(_memory, args[1:5]), args[5], args[7]
        return result


def observe(network: nn.Module, run: Callable[[], Any]) -> Flow:
    """Watch ``run``, which runs ``network`` or a replica of it, and returns what that returned."""
    flow = Flow(network)
    # what made this run's private network is none of its uses
    handles = [network.register_forward_pre_hook(flow._begin, prepend=True)]
    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS):  # before hooks of the caller's take what it made
            handles.append(module.register_forward_hook(flow._convolution(name), prepend=True))
        elif isinstance(module, AnyBatchNorm):  # after hooks of the caller's, which may give it something else
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
    if flow._before is not None:
        flow.written = frozenset(flow._before[1].changed())
        flow._before = None
    return flow


@dataclass(slots=True)
class Flow:
    """The way of data through the convolutions and BatchNorms of a network, as one run showed it.

    Attributes:
        network: the network.
        sizes: the size of the last input of each convolution.
        written: the attributes that its forward pass wrote itself.
    """

    network: nn.Module
    sizes: dict[str, torch.Size] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    _before: tuple[nn.Module, Fingerprint] | None = None
    _runs: Counter[str] = field(default_factory=Counter)
    _made: dict[int, tuple[str, Convolution, Tensor]] = field(default_factory=dict)
    _took: dict[str, tuple[AnyBatchNorm, Tensor]] = field(default_factory=dict)
    _watch: _Watch = field(default_factory=_Watch)

    def _begin(self, runs: nn.Module, *_: Any) -> None:
        # a network may run again, on a tape: the last run counts
        self._before = runs, Fingerprint.of(runs)  # which holds what it is of weakly
        self._runs, self._made, self._took = Counter(), {}, {}
        self._watch.clear()

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

    @property
    def norms(self) -> list[str]:
        """Every BatchNorm."""
        return [name for name, module in self.network.named_modules() if isinstance(module, AnyBatchNorm)]

    def foldable(self) -> tuple[dict[str, str], dict[str, str]]:
        """Find each BatchNorm that may be folded, with its convolution, and each of the others, with the reason why not."""
        folded: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for name in self.norms:
            reason = self._obstacle(name)
            if reason:
                reasons[name] = reason
            else:
                folded[name] = self._made[id(self._took[name][1])][0]
        return folded, reasons

    def _obstacle(self, name: str) -> str:
        """Say why the BatchNorm ``name`` may not be folded; nothing if it may."""
        if self._runs[name] != 1:
            return f"ran {self._runs[name]} times" if self._runs[name] else "did not run"
        norm, features = self._took.get(name, (None, None))
        if norm is None or features is None or id(features) not in self._made:
            return "does not take what a convolution made"
        convolution, module, _ = self._made[id(features)]
        weights = _memory(parameter_of(module, "weight")), _memory(parameter_of(module, "bias"))
        own = tuple(_memory(t) for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
        uses = self._watch.uses
        reasons = {
            "normalises by the batch": norm.running_mean is None or norm.running_var is None or norm.training,
            "its forward, or that of its convolution, was exchanged": "forward" in vars(norm) or "forward" in vars(module),
            f"its convolution ran {self._runs[convolution]} times": self._runs[convolution] != 1,
            "the weight of its convolution is computed": self._watch.convolved.get(_memory(features)) != weights,
            "something else takes what its convolution made": uses[_memory(features)] != 1 or bool(features._backward_hooks),
            "does not normalise just what it takes": self._watch.normed.get(_memory(features)) != (*own, False, norm.eps),
            "something else takes its weights, or its convolution's": any(uses[key] != 1 for key in (*weights, *own) if key),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")
