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

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from relume.errors import HookError
from relume.rectifiers import Rectifier, rectifier_of

__all__ = ["NodeLocal", "Survey", "between", "hooked", "survey"]

NodeRule: TypeAlias = Callable[[Tensor, "NodeLocal"], Tensor]

#: Nodes that stand for several operations and show none of them, with what to do about each.
_HIDING = {
    "CompiledFunctionBackward": "torch.compile fused its operations; pass the module as it was before torch.compile",
    "CheckpointFunctionBackward": "reentrant checkpointing re-runs them out of sight; use checkpoint(..., use_reentrant=False)",
    "DifferentiableGraphBackward": "TorchScript fused its operations; pass the Python module it was made from",
}
_HIDDEN_IN_PLACE = "an in-place operation on a view hides what it computes; write it out of place, y = f(x[...])"
_CUSTOM = "a custom autograd.Function, whose formula the graph does not show"
_OWN_RULE = "brings its own guided backward"


# --- Walking -------------------------------------------------------------------------------------------------------------


def between(root: Node, ends: Collection[Node]) -> list[Node]:
    """The nodes that a backward pass from ``root`` to ``ends`` runs, each once, consumers after producers.

    These are the nodes with at least one edge that leads to an end: an end itself runs only if another end lies behind it.
    """
    ends = set(ends)
    leads: dict[Node, bool] = {}
    order: list[Node] = []
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            leads[node] = any(leads[source] or source in ends for source in _sources(node))
            if leads[node]:
                order.append(node)
        elif node not in leads:
            leads[node] = False
            stack.append((node, True))
            stack.extend((source, False) for source in _sources(node) if source not in leads)
    return order


def _sources(node: Node) -> list[Node]:
    return [source for source, _ in node.next_functions if source is not None]


@dataclass(frozen=True, slots=True)
class Survey:
    """The nodes of a graph that matter to a rule.

    Attributes:
        rectifiers: every rectifier with its kind.
        custom: name and reason of every custom Function, which may rectify and cannot be guided.
        hidden: name and reason of every node that stands for operations it does not show.
    """

    rectifiers: tuple[tuple[Node, Rectifier], ...]
    custom: tuple[tuple[str, str], ...]
    hidden: tuple[tuple[str, str], ...]


def survey(nodes: Sequence[Node]) -> Survey:
    """Sort ``nodes`` by what a rule can do about them."""
    hidden = [(node, reason) for node in nodes if (reason := _hides(node))]
    custom = [node for node in nodes if _is_custom(node) and not _hides(node)]
    return Survey(
        rectifiers=tuple((node, kind) for node in nodes if (kind := rectifier_of(node))),
        custom=tuple((_name(node), _OWN_RULE if _guides(node) else _CUSTOM) for node in custom),
        hidden=tuple((_name(node), reason) for node, reason in hidden),
    )


def _name(node: Node) -> str:
    return node.name().removeprefix("torch::autograd::").removesuffix("Backward")


def _is_custom(node: Node) -> bool:
    return issubclass(type(node), BackwardCFunction) or "CppNode" in node.name()


def _guides(node: Node) -> bool:
    """Whether the node is of a Function that says, as :class:`relume.GuidedReLU` does, that its backward is guided."""
    return bool(getattr(getattr(type(node), "_forward_cls", None), "guides", False))


def _hides(node: Node) -> str | None:
    name = node.name().rpartition("::")[2]
    # a copy into a view has a second edge, to what was copied; with one edge the operation itself is inside the node
    if name == "CopySlices" and len(node.next_functions) == 1:
        return _HIDDEN_IN_PLACE
    return _HIDING.get(name)


# --- Hooking -------------------------------------------------------------------------------------------------------------


class NodeLocal:
    """What :class:`relume.rules.Local` promises, answered by a node while its post-hook runs."""

    __slots__ = ("_grad_in", "_grad_out", "_kind", "_node")

    def __init__(self, node: Node, kind: Rectifier, grad_out: Tensor, grad_in: Tensor) -> None:
        """Answer for ``node``, whose post-hook was given ``grad_out`` and ``grad_in``."""
        self._node: Any = node  # calling it runs its backward formula, which its type does not tell
        self._kind, self._grad_out = kind, grad_out
        self._grad_in: Tensor | None = grad_in

    @property
    def output(self) -> Tensor:
        """``f(x)``."""
        return self._kind.output(self._node)

    @property
    def active(self) -> Tensor:
        """``f(x) > 0``."""
        return self._kind.active(self._node)

    def pull(self, grad: Tensor) -> Tensor:
        """``grad · f'(x)``."""
        if grad is self._grad_out and self._grad_in is not None:
            fresh, self._grad_in = self._grad_in, None  # handed over once: the rule may write into it
            return fresh
        result = self._node(grad)
        pulled: Tensor = result[self._kind.operand(self._node)] if isinstance(result, tuple) else result
        return pulled

    def pull_positive(self, grad: Tensor) -> Tensor:
        """``max(grad, 0) · f'(x)``."""
        # max(g, 0) f' = max(g f', 0) where f' is not negative: no second pass through the node, no allocation
        if self._kind.rises(self._node):
            return self.pull(grad).clamp_(min=0)
        return self.pull(grad.clamp(min=0))

    def where_active(self, grad: Tensor) -> Tensor:
        """``grad · 1[f(x) > 0]``."""
        return grad if self._kind.sealed(self._node) else grad * self.active


@contextmanager
def hooked(rectifiers: Sequence[tuple[Node, Rectifier]], rule: NodeRule) -> Iterator[None]:
    """Apply ``rule`` at ``rectifiers`` during the one backward pass run inside; afterwards no hook is left.

    Raises:
        HookError: a hook did not run exactly once, so the gradient of that pass must not be used.
    """
    runs = [0] * len(rectifiers)
    with ExitStack() as handles:
        for i, (node, kind) in enumerate(rectifiers):
            handles.callback(node.register_hook(_hook(node, kind, rule, runs, i)).remove)
        yield
    if wrong := sum(count != 1 for count in runs):
        raise HookError(
            f"{wrong} of {len(runs)} rectifiers were not guided exactly once in this backward pass, so its map is withheld; "
            "run it again, and report the network if it happens twice"
        )


def _hook(
    node: Node, kind: Rectifier, rule: NodeRule, runs: list[int], i: int
) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]:
    def apply(grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        runs[i] += 1
        operand = kind.operand(node)
        grad_out, grad_in = grad_outputs[0], grad_inputs[operand]
        if grad_out is None or grad_in is None:  # nothing arrived, nothing passes
            return grad_inputs
        guided = rule(grad_out, NodeLocal(node, kind, grad_out, grad_in))
        return (*grad_inputs[:operand], guided, *grad_inputs[operand + 1 :])

    return apply
