"""A tape: the operations of a forward pass with all that they were given, and the rectifiers written by hand among them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode

from relume.engine.by_hand.formulas import Formulas, Verdict
from relume.engine.by_hand.operations import Operation, operation_of
from relume.engine.by_hand.steps import Constant, Step, Value, between, meeting, steps_in
from relume.engine.rectifiers import Saved
from relume.engine.tensor_state import memory_key, version
from relume.engine.trees import tree_iter

__all__ = ["Region", "Tape"]

_REACH = 6  # as many values back a formula may begin
_ALONE = ("hardswish", "log_sigmoid_forward")  # of one operand, and not smooth on both sides


@dataclass(eq=False, slots=True)
class Region:
    """A rectifier written by hand ``y = f(x)``.

    Attributes:
        verdict: what is known of ``f``.
        module: the module in which it ran, by its dotted name.
        source: the value ``x``.
        nodes: its nodes, producers before consumers; the last one makes ``y``.
        output: ``y``; where it is positive, if ``lean``.
        lean: True if no more of ``y`` is kept than that.
    """

    verdict: Verdict
    module: str
    source: Value
    nodes: tuple[Node, ...]
    output: Tensor
    lean: bool

    @property
    def label(self) -> str:
        """The name of the rectifier, with how it was written."""
        return f"{self.verdict.label} written by hand"

    def relu(self, _: Saved) -> bool:
        """Tell whether it is of the ReLU family."""
        return self.verdict.label == "ReLU"


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A record of the operations of a forward pass, which finds the rectifiers written by hand among them.

    Attributes:
        regions: the rectifiers, by the node that makes their output.
        doubtful: the nodes that may make the output of another, with what cannot be told.
        nodes: the nodes of elementwise operations that were seen.
        begin: the node of the input.
    """

    supports_higher_order_operators = True

    def __init__(self, images: Tensor, *, lean: bool = False) -> None:
        """Begin before a network runs on ``images``; if ``lean``, keep no more of an output than where it is positive."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._executor = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
        self.regions: dict[Node, Region] = {}
        self.doubtful: dict[Node, str] = {}
        self.nodes: set[Node] = set()
        self._lean, self._modules, self._formulas = lean, [""], Formulas()
        # the steps and constants that tensors are, by their ids; the id of a tensor that is gone may be that of another
        self._known: dict[int, tuple[weakref.ref[Tensor], Step | Constant]] = {}
        self._last: tuple[Operation, tuple[Any, ...], Mapping[str, Any], Any, str] | None = None
        self.begin = get_gradient_edge(images).node
        self._note(images, Step(images.shape, (self.begin, 0), version(images)))

    def watch(self, modules: Mapping[nn.Module, str]) -> None:
        """Note which of the ``modules`` of a private replica, given with their names, runs."""
        running = self._modules

        def before(name: str, *_: Any) -> None:
            running.append(name)

        def after(*_: Any) -> None:
            running.pop()

        for module, name in modules.items():
            if not isinstance(module, torch.jit.ScriptModule):
                module.register_forward_pre_hook(functools.partial(before, name))
                module.register_forward_hook(after, always_call=True)

    def __enter__(self) -> Self:
        """Begin the record; TorchScript fuses no operations meanwhile."""
        self._executor.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the record, and let go of all but what was found."""
        super().__exit__(kind, error, at)  # type: ignore[no-untyped-call]
        self._executor.__exit__(kind, error, at)
        with torch._C.DisableTorchFunctionSubclass():
            self._settle()
        self._known, self._formulas = {}, Formulas()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run an operation, and note what it was given."""
        with torch._C.DisableTorchFunctionSubclass():  # a look at a subclass is none of the network's
            self._settle()
            if not isinstance(func, torch._ops.OpOverload):  # torch.cond and its kind
                depends = self._depends(args)
                result = func(*args, **(kwargs or {}))
                self._note_unfollowed(result, depends=depends, grad=depends)
                return result
            operation = operation_of(func)
            if operation.writing and self.regions:
                self._save_from((args, kwargs))
            followed = operation.elementwise or operation.rearranging
            operands = tuple(map(self._operand, args)) if followed else ()
            depends = followed or (not operation.creating and self._depends(args))
            result = func(*args, **(kwargs or {}))
            if followed:
                self._last = operation, operands, kwargs or {}, result, self._modules[-1]
            else:
                self._note_unfollowed(result, depends=depends, grad=depends and torch.is_grad_enabled() and _has_grad(args))
            return result

    def _save_from(self, given: Any) -> None:
        """Copy the outputs of rectifiers that lie in memory that an operation is given, and may write to."""
        tensors = [
            t for t in tree_iter(given) if isinstance(t, Tensor) and t.layout is torch.strided and t.device.type != "meta"
        ]
        memories = {memory_key(tensor.untyped_storage()) for tensor in tensors}
        for region in self.regions.values():
            if memory_key(region.output.untyped_storage()) in memories:
                region.output = region.output.clone()

    # --- What tensors are -------------------------------------------------------------------------------------------------

    def _note(self, tensor: Tensor, what: Step | Constant) -> None:
        self._known[id(tensor)] = weakref.ref(tensor), what

    def _operand(self, value: Any) -> Any:
        """Find the step or constant that a tensor is."""
        if isinstance(value, list | tuple):
            return tuple(map(self._operand, value))
        if not isinstance(value, Tensor):
            return value
        known = self._known.get(id(value))
        if known is not None and known[0]() is value:
            what = known[1]
            if what.version == version(value) and (
                isinstance(what, Constant) or what.edge is not None or value.grad_fn is None
            ):
                return what
        elif value.grad_fn is None:
            return Constant(value, version(value), computed=False)
        step = Step.of(value)  # of an operation that is not followed, or written to by way of a view
        self._note(value, step)
        return step

    def _note_unfollowed(self, result: Any, *, depends: bool, grad: bool) -> None:
        """Note what an operation made that is not followed; what has a gradient is a step as soon as it is used."""
        for tensor in [result] if isinstance(result, Tensor) else [t for t in tree_iter(result) if isinstance(t, Tensor)]:
            if not depends:
                self._note(tensor, Constant(tensor, version(tensor), computed=True))
            elif not grad or not tensor.is_floating_point():
                self._note(tensor, Step(tensor.shape, None, version(tensor)))

    def _depends(self, value: Any) -> bool:
        """Tell whether a tensor, or one in a list, depends on the input."""
        if isinstance(value, list | tuple):
            return any(map(self._depends, value))
        if not isinstance(value, Tensor):
            return False
        known = self._known.get(id(value))
        if known is not None and known[0]() is value and known[1].version == version(value):
            return isinstance(known[1], Step)
        return known is not None or value.grad_fn is not None

    def _settle(self) -> None:
        """Note what the last operation made, which has its node by now."""
        if self._last is None:
            return
        (operation, operands, options, result, module), self._last = self._last, None
        tensor = result[0] if isinstance(result, tuple) else result
        if not isinstance(tensor, Tensor):  # torch.equal tells whether
            return
        if steps := steps_in(operands):
            self._note(tensor, step := Step.of(tensor))
            self._follow(step, operation, operands, options, steps, tensor, module)
        else:
            computed = all(o.computed for o in operands if isinstance(o, Constant))
            self._note(tensor, Constant(tensor, version(tensor), computed=computed))

    def _follow(
        self,
        step: Step,
        operation: Operation,
        operands: tuple[Any, ...],
        options: Mapping[str, Any],
        steps: Sequence[Step],
        tensor: Tensor,
        module: str,
    ) -> None:
        """Find what a ``step`` is a function of, and whether a rectifier written by hand ends there."""
        node = None if step.edge is None else step.edge[0]
        if node is not None and not _belongs(node.name(), operation):
            return
        _set_origin(step, operation, operands, steps)
        elementwise = operation.elementwise or (operation.name == "index_put" and _writes_a_number(operands))
        rearranged = operation.name == "permute" and list(operands[1]) != sorted(operands[1])
        if elementwise and not rearranged and all(s.shape == step.shape for s in steps):
            nearest = steps[0] if len(steps) == 1 else meeting(steps)
            if nearest is not None:
                step.set_formula(operation, operands, options, steps, nearest)
        if node is None or not tensor.is_floating_point():
            return
        if elementwise:
            self.nodes.add(node)
        if step.nearest is None:
            if operation.name != "index" and (reason := _doubt(step, steps)):  # what only picks values rectifies none
                self.doubtful[node] = reason
        elif any(isinstance(o, Constant) and o.is_foreign_mask(step.shape) for o in operands):
            self.doubtful[node] = "its mask was made where operations cannot be seen"
        elif step.may_end and (len(operands) > 1 or steps[0].bent or operation.name in _ALONE):
            self._judge(step, node, tensor, module)

    # --- Judging ----------------------------------------------------------------------------------------------------------

    def _judge(self, end: Step, node: Node, tensor: Tensor, module: str) -> None:
        """Find the rectifier written by hand that ends at a step, whose ``node`` made ``tensor`` in ``module``."""
        best: tuple[Step, list[Step], Verdict] | None = None
        doubt, source = "", end.nearest
        for _ in range(_REACH):
            if source is None:
                break
            window = between(source, end)
            if best is not None and not all(step.scales for step in window if step not in best[1]):
                break
            if any(step.edge is not None and any(s.is_detached for s in step.steps) for step in window):
                doubt = doubt or "a part of it was computed without gradient"
                break
            if source.edge is not None and _may_be_one(end, source, window):
                verdict = self._formulas.judge(end, source)
                if verdict.rectifies and (best is None or verdict.nearer(best[2])):
                    best = source, window, verdict
                doubt = doubt or verdict.doubt
            source = source.nearest
        if best is not None:
            self._take(*best, tensor, module)
        elif doubt:
            self.doubtful[node] = doubt

    def _take(self, source: Step, window: Sequence[Step], verdict: Verdict, tensor: Tensor, module: str) -> None:
        """Make a region of a ``window``, in place of those in it, unless it only scales one of them the wrong way."""
        inner = {step.region for step in window if step.region is not None}
        if window[-1].scales and any(not verdict.nearer(region.verdict) for region in inner):
            return
        for region in inner:
            self.regions.pop(region.nodes[-1], None)
        nodes = tuple(step.edge[0] for step in window if step.edge is not None)
        output = tensor.detach() > 0 if self._lean else tensor.detach()
        assert source.edge is not None, "only what has a gradient is guided"
        region = Region(verdict, module, source.edge, nodes, output, self._lean)
        self.regions[nodes[-1]] = region
        for step in window:
            step.region = region
        for node in nodes:
            self.doubtful.pop(node, None)


def _has_grad(value: Any) -> bool:
    return any(map(_has_grad, value)) if isinstance(value, list | tuple) else getattr(value, "requires_grad", False)


@functools.cache
def _belongs(node_name: str, operation: Operation) -> bool:
    """Tell whether nodes of this name belong to the operation, and not to a function that somebody wrote around it."""
    words = node_name.rpartition("Backward")[0].lower()
    return words == operation.name.replace("_", "").removesuffix("forward")


def _writes_a_number(operands: Sequence[Any]) -> bool:
    """Tell whether ``index_put`` writes one number, where a mask of the full shape is set: ``y[y < 0] = 0``."""
    written, places, values, *_ = operands
    masked = len(places) == 1 and isinstance(places[0], Step) and isinstance(written, Step) and places[0].shape == written.shape
    return masked and isinstance(values, Constant) and values.tensor.numel() == 1


def _set_origin(step: Step, operation: Operation, operands: tuple[Any, ...], steps: Sequence[Step]) -> None:
    """Note where a step's values come from, and how they were rearranged, if that is the same for all ``steps``."""
    origin = steps[0].origin or steps[0]
    if any((s.origin or s) is not origin or s.views != steps[0].views for s in steps):
        return
    step.origin, step.views = origin, steps[0].views
    if operation.rearranging or operation.name == "permute" or steps[0].shape != step.shape:
        step.views += (f"{operation.name}{tuple(o for o in operands if not isinstance(o, Step | Constant))}",)


def _doubt(step: Step, steps: Sequence[Step]) -> str:
    """Say why a step that is no function of one value may be one all the same; nothing if it is none."""
    values = [s for s in steps if s.edge is not None and s.shape == step.shape]
    if len(steps) < 2 or not values:
        return ""
    if step.origin is not None and not any(s is step.origin for s in steps):
        return "it meets itself, rearranged twice"
    for mask in (s for s in steps if s.edge is None and s.shape == step.shape):
        origin = mask.origin or mask
        if origin.edge is None or origin is (values[0].origin or values[0]):
            return "its mask was made in a way that is not followed"
    return ""


def _may_be_one(end: Step, source: Step, window: Sequence[Step]) -> bool:
    """Tell whether a window may be one rectifier, and is more than others in a row, or added up."""
    if not any(step.bends and not step.rectifies for step in window) or (end.rectifies and len(end.steps) == 1):
        return False
    inner = [step for step in window[:-1] if step.region is not None or step.rectifies]
    if not inner or (len(end.steps) > 1 and source is end.nearest):
        return True
    # a factor before or behind a rectifier may belong to it: (x + |x|) / 2
    return end.scales and all(step.region is not None or step.scales for step in window)
