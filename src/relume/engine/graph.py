"""Walk an autograd graph, sort its nodes, and hook its rectifiers for the span of one backward pass.

The graph that a forward pass leaves behind names every operation that ran, however it was written, so a rule is applied
there and never to modules or to torch's functions. What shapes this file:

* A node's post-hook sees that node's own ``grad_inputs``, before the engine adds the gradients of other consumers.
* A node's Python object lives only while Python holds it; after that, another node's may take its ``id``. The walk keeps
  the nodes themselves, never ids, and they are held until the backward pass is over.
* A hook that does not run leaves the plain gradient, which looks like any other map. Torch has had ways to lose one (a
  collection could clear hooks that the graph should have kept: pytorch/pytorch#102174). :func:`hooked` therefore counts,
  and a pass in which any hook did not run exactly once is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from relume.engine.by_hand import Region, Tape, hook_region, suspects
from relume.engine.rectifiers import Rectifier, is_of_torchvision, may_rectify, rectifier_of
from relume.engine.saved_tensors import LEAN, Saved, is_lean, looking
from relume.errors import GraphError, HiddenRegionError, HookError, LayerError, NoRectifierError

__all__ = ["GuidesItself", "NodeLocal", "RectifiesNothing", "Survey", "between", "gradients", "hooked", "survey", "walk"]

NodeRule: TypeAlias = Callable[[Tensor, Any], Tensor]

#: Nodes that stand for several operations and show none of them, with what to do about each.
_HIDING = {
    "CompiledFunctionBackward": "torch.compile fused its operations; pass the module as it was before torch.compile",
    "CheckpointFunctionBackward": "reentrant checkpointing re-runs them out of sight; use checkpoint(..., use_reentrant=False)",
    "DifferentiableGraphBackward": "TorchScript fused its operations; pass the Python module it was made from",
}
_HIGHER_ORDER = "torch.cond, map, scan and the like keep their branches to themselves; write the branch in Python"
_IN_PLACE_ON_A_VIEW = "an in-place operation on a view hides what it computes; write it out of place, y = f(x[...])"
_CUSTOM = "a custom autograd.Function, whose formula the graph does not show"
_EXCLUDED = "not of the ReLU family, and rectifiers='relu' was asked for"
_OWN_RULE = "brings its own guided backward"
_BY_HAND = "may be a rectifier written by hand"
_UNSEEN = f"{_BY_HAND}; the operations do not tell"
_READ_INSIDE = f"{_BY_HAND}; a value in the middle of it is used elsewhere too"


class GuidesItself:
    """The mark of relume's own autograd.Functions whose backward pass is guided already."""


class RectifiesNothing:
    """The mark of relume's own autograd.Functions that rules have nothing to do with."""


# --- Walking -------------------------------------------------------------------------------------------------------------


def walk(root: Node) -> dict[Node, list[Node]]:
    """List ``root`` and every node behind it, each once, producers before consumers, with those just behind it."""
    sources: dict[Node, list[Node]] = {}
    order: dict[Node, list[Node]] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        if node not in sources:
            sources[node] = behind = [source for source, _ in node.next_functions if source is not None]
            stack.extend(source for source in behind if source not in sources)
        else:
            stack.pop()
            order.setdefault(node, sources[node])
    return order


def between(root: Node, ends: Collection[Node]) -> list[Node]:
    """List the nodes that a backward pass from ``root`` to ``ends`` runs, each once, producers before consumers.

    These are the nodes with at least one edge that leads to an end: an end itself runs only if another end lies behind it.
    """
    ends = set(ends)
    leads: dict[Node, None] = {}
    for node, sources in walk(root).items():
        if any(source in leads or source in ends for source in sources):
            leads[node] = None
    return list(leads)


@dataclass(frozen=True, slots=True)
class Survey:
    """The nodes of a graph that matter to a rule.

    Attributes:
        rectifiers: every rectifier with its kind; of one written by hand, the node that makes its output.
        excluded: name and reason of every rectifier that was not asked for.
        unguided: name and reason of every node that may rectify and cannot be guided.
        hidden: name and reason of every node that stands for operations it does not show.
    """

    rectifiers: tuple[tuple[Node, Rectifier | Region], ...]
    excluded: tuple[tuple[str, str], ...]
    unguided: tuple[tuple[str, str], ...]
    hidden: tuple[tuple[str, str], ...]

    def guidable(self) -> tuple[tuple[Node, Rectifier | Region], ...]:
        """Return the rectifiers, to which a rule is to be applied.

        Raises:
            HiddenRegionError: part of the graph hides its operations.
            NoRectifierError: there is none.
        """
        if self.hidden:
            name, why = self.hidden[0]
            raise HiddenRegionError(f"{name} hides part of the network, where rectifiers would stay unguided: {why}")
        if not self.rectifiers:
            others = ", ".join(f"{name} ({why})" for name, why in dict((*self.excluded, *self.unguided)).items())
            raise NoRectifierError(
                "no rectifier ran between score and input, so every rule would give the plain gradient; "
                f"ask for 'gradient' or 'gradcam'{'; found ' + others if others else ''}"
            )
        return self.rectifiers


def survey(nodes: Sequence[Node], *, relu_only: bool = False, tape: Tape | None = None, ends: Collection[Node] = ()) -> Survey:
    """Sort ``nodes`` by what a rule can do about them.

    Args:
        nodes: those that a backward pass to ``ends`` runs, producers before consumers.
        relu_only: rules are for the ReLU family alone.
        tape: tells the rectifiers written by hand; None if nothing looked like one.
        ends: where the backward pass ends.
    """
    rectifiers: list[tuple[Node, Rectifier | Region]] = []
    excluded, unguided, hidden = [], [], []
    regions, doubtful = _by_hand(nodes, tape, ends) if tape is not None else ({}, {})
    inside = {node for region in regions.values() for node in region.nodes}
    with looking():
        for node in nodes:
            name, saved = node.name(), Saved(node)
            kind = regions.get(node) or (rectifier_of(name, saved) if node not in inside else None)
            if kind is not None and relu_only and not kind.relu(saved):
                excluded.append((kind.label, _EXCLUDED))
            elif kind is not None:
                rectifiers.append((node, kind))
            elif reason := _hides(node, name):
                hidden.append((_name(node), reason))
            elif reason := doubtful.get(node) or _may_rectify(node, name):
                unguided.append((_name(node), reason))
    return Survey(tuple(rectifiers), tuple(excluded), tuple(unguided), tuple(hidden))


def _by_hand(nodes: Sequence[Node], tape: Tape, ends: Collection[Node]) -> tuple[dict[Node, Region], dict[Node, str]]:
    """Find the rectifiers written by hand that end among ``nodes``, and the nodes that may end another."""
    inner = {node: region for region in tape.regions.values() for node in region.nodes[:-1]}
    reading: set[Region] = set()
    for node in nodes:
        for source, _ in node.next_functions:
            region = inner.get(source) if source is not None else None
            if region is not None and node not in region.nodes:
                reading.add(region)
    running = set(nodes)
    regions, doubtful = {}, {node: f"{_BY_HAND}; {why}" for node, why in tape.doubtful.items()}
    for end, region in tape.regions.items():
        if any(node in ends for node in region.nodes[:-1]):
            raise LayerError(
                f"the layer lies in the middle of a {region.label}, which a rule treats as one; name another layer"
            )
        if region in reading:
            doubtful[end] = _READ_INSIDE
        elif end in running:  # without what only a mask was made of, which has no gradient
            regions[end] = replace(region, nodes=tuple(node for node in region.nodes if node in running))
    known = tape.nodes.union(*(region.nodes for region in regions.values()))
    doubtful.update((node, _UNSEEN) for node in suspects(nodes, tape.begin) if node not in known)
    return regions, doubtful


def _name(node: Node) -> str:
    name = node.name()
    return (name if "<" in name else name.rpartition("::")[2]).removeprefix("torch::autograd::").removesuffix("Backward")


def _function(node: Node) -> type | None:
    """Find the class of the autograd.Function written in Python that the node belongs to; None if it is none."""
    return getattr(type(node), "_forward_cls", None) if issubclass(type(node), BackwardCFunction) else None


def _hides(node: Node, name: str) -> str | None:
    name = name.rpartition("::")[2]
    # besides the base it writes to, a copy into a view has an edge to what was copied; relu_() has none, clamp_(tensors) empty
    # ones; with a single empty one it may be either, and _may_rectify lists it
    if name == "CopySlices":
        others = [source for source, _ in node.next_functions[1:]]
        return _IN_PLACE_ON_A_VIEW if len(others) != 1 and not any(others) else None
    if getattr(_function(node), "__module__", "").startswith("torch._higher_order_ops"):
        return _HIGHER_ORDER
    return _HIDING.get(name)


def _may_rectify(node: Node, name: str) -> str | None:
    if is_of_torchvision(name):
        return None
    function = _function(node)
    if function is not None:
        if issubclass(function, RectifiesNothing):
            return None
        return _OWN_RULE if issubclass(function, GuidesItself) else _CUSTOM
    if "CppNode" in name:
        return _CUSTOM
    if name.endswith("CopySlices"):
        return _IN_PLACE_ON_A_VIEW if [source for source, _ in node.next_functions[1:]] == [None] else None
    return _BY_HAND if may_rectify(name) else None


# --- Gradients ------------------------------------------------------------------------------------------------------------

# Where an axis has one entry, its stride is arbitrary. torch's batch_norm on a CPU (2.13; instance_norm is made of it) asks two
# functions whether a gradient lies in memory as its input does, of which one heeds that stride and the other does not. It then
# reads the gradient in the wrong order: docs/how-it-works.md, "A fault of torch". The nodes are those of its spellings.
_NORMALISING = frozenset(
    {
        "BatchNormNoUpdateBackward0",
        "BatchNormWithUpdateBackward0",
        "NativeBatchNormBackward0",
        "NativeBatchNormLegitBackward0",
        "NativeBatchNormLegitBackward1",
        "NativeBatchNormLegitNoTrainingBackward0",
    }
)
_LAYOUTS = {4: (torch.contiguous_format, torch.channels_last), 5: (torch.contiguous_format, torch.channels_last_3d)}
_LAYOUT_KEY = "relume.layout"


def gradients(
    value: Tensor, wrt: Sequence[Tensor] | Sequence[GradientEdge], nodes: Iterable[Node] | None = None, *, keep: bool = True
) -> Sequence[Tensor | None]:
    """Run one backward pass: the gradient of ``value.sum()`` with respect to each tensor of ``wrt``, None where there is none.

    Every backward pass of relume is this one, since it mends what torch gets wrong. ``nodes`` are those that it runs, if they
    are known; ``keep`` leaves the graph for another.
    """
    if nodes is None:
        nodes = [] if value.grad_fn is None else between(value.grad_fn, [_edge(end).node for end in wrt])
    with ExitStack() as handles:
        for node in nodes:
            if node.name() in _NORMALISING:
                handles.callback(node.register_prehook(functools.partial(_laid_as_the_input, node)).remove)
        return torch.autograd.grad(value, wrt, torch.ones_like(value), retain_graph=keep, allow_unused=True)


def _edge(end: Tensor | GradientEdge) -> GradientEdge:
    return end if isinstance(end, GradientEdge) else get_gradient_edge(end)


def _laid_as_the_input(node: Any, arriving: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
    """Lay the gradient that arrives at ``node`` out as its input lies; None where it may stay as it is."""
    gradient = arriving[0]
    if gradient is None or not gradient.is_cpu or gradient.ndim not in _LAYOUTS:
        return None
    if 1 not in (gradient.shape[0], *gradient.shape[2:]):
        return None
    if _LAYOUT_KEY not in node.metadata:  # a look at a checkpointed region computes it again
        with looking():
            given = node._saved_input
        node.metadata[_LAYOUT_KEY] = next((f for f in _LAYOUTS[given.ndim] if given.is_contiguous(memory_format=f)), None)
    layout = node.metadata[_LAYOUT_KEY]
    if layout is None or gradient.is_contiguous(memory_format=layout):
        return None
    return (gradient.contiguous(memory_format=layout), *arriving[1:])


# --- Hooking -------------------------------------------------------------------------------------------------------------


class NodeLocal:
    """A rectifier as a rule sees it, see :class:`relume.rules.Local`, answered by its node while the post-hook runs."""

    __slots__ = ("_grad_in", "_grad_out", "_kind", "_node", "_saved")

    def __init__(self, node: Node, kind: Rectifier, grad_out: Tensor, grad_in: Tensor | None) -> None:
        """Answer for ``node``, at which ``grad_out`` arrived; ``grad_in`` is that pulled through it, if that is at hand."""
        self._node: Any = node  # calling it runs its backward formula, which its type does not tell
        self._saved = Saved(node)
        self._kind, self._grad_out = kind, grad_out
        self._grad_in = grad_in

    @property
    def output(self) -> Tensor:
        """``f(x)``.

        Raises:
            GraphError: the network was prepared to keep no more of it than where it is positive.
        """
        if is_lean(self._node):
            raise GraphError(LEAN)
        return self._kind.output(self._saved)

    @property
    def active(self) -> Tensor:
        """``f(x) > 0``."""
        return self._kind.active(self._saved)

    def pull(self, grad: Tensor) -> Tensor:
        """``grad · f'(x)``."""
        if grad is self._grad_out and self._grad_in is not None:
            fresh, self._grad_in = self._grad_in, None  # handed over once: the rule may write into it
            return fresh
        with looking():
            result = self._node(grad)
        pulled: Tensor = result[self._kind.operand(self._saved)] if isinstance(result, tuple) else result
        return pulled

    def pull_positive(self, grad: Tensor) -> Tensor:
        """``max(grad, 0) · f'(x)``."""
        # max(g, 0) f' = max(g f', 0) where f' is not negative: no second pass through the node, no allocation
        if grad is self._grad_out and self._grad_in is not None and self._kind.rises(self._saved):
            return self.pull(grad).clamp_min_(0)
        return self.pull(grad.clamp(min=0))

    def where_active(self, grad: Tensor) -> Tensor:
        """``grad · 1[f(x) > 0]``."""
        return grad if self._kind.sealed(self._saved) else grad * self.active


@contextmanager
def hooked(rectifiers: Sequence[tuple[Node, Rectifier | Region]], rule: NodeRule) -> Iterator[None]:
    """Apply ``rule`` at ``rectifiers`` during the one backward pass run inside; afterwards no hook is left.

    Raises:
        HookError: a hook did not run exactly once, so the gradient of that pass must not be used.
    """
    runs = [0] * len(rectifiers)
    with ExitStack() as handles:
        for i, (node, kind) in enumerate(rectifiers):
            ran = functools.partial(_count, runs, i)
            if isinstance(kind, Region):
                for remove in hook_region(kind, rule, ran):
                    handles.callback(remove)
            else:
                handles.callback(node.register_hook(_hook(node, kind, rule, ran)).remove)
        yield
    if wrong := sum(count != 1 for count in runs):
        raise HookError(
            f"{wrong} of {len(runs)} rectifiers were not guided exactly once in this backward pass, so its map is withheld; "
            "run it again, and report the network if it happens twice"
        )


def _count(runs: list[int], i: int) -> None:
    runs[i] += 1


def _hook(
    node: Node, kind: Rectifier, rule: NodeRule, ran: Callable[[], None]
) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]:
    def apply(grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        ran()
        operand = kind.operand(node)
        grad_out, grad_in = grad_outputs[0], grad_inputs[operand]
        if grad_out is None or grad_in is None:  # nothing arrived, nothing passes
            return grad_inputs
        # where x was broadcast or promoted, the node has summed or cast its gradient already, and a rule comes before that
        alike = grad_out.shape == grad_in.shape and grad_out.dtype == grad_in.dtype
        passed = rule(grad_out, NodeLocal(node, kind, grad_out, grad_in if alike else None))
        if not alike:
            passed = passed.sum_to_size(grad_in.shape).to(grad_in.dtype)
        return (*grad_inputs[:operand], passed, *grad_inputs[operand + 1 :])

    return apply
