"""One flat graph of a network's forward and backward passes, split into a forward graph and a backward graph for each pass.

``make_fx`` records what runs, the hooks of the rules with it, as a list of operations on tensors. This file drops from it what
an eager run keeps needlessly: a convolution or a pooling is given the *shape* of its input to find its gradient, so that the
input need not be kept, and a rectifier's mask is made in the forward graph and kept, a byte a value, in place of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from relume.errors import GraphError

__all__ = ["Flat", "flatten"]

aten = torch.ops.aten

#: Those whose gradient is a mask times something: taken apart, the mask no longer waits for the gradient.
_TAKEN_APART = (aten.threshold_backward, aten.hardtanh_backward, aten.native_batch_norm_backward)

#: Their second argument, the input of the forward operation, tells nothing but its shape and strides.
_SIZES_ONLY = {
    aten.convolution_backward.default,
    aten.max_pool2d_with_indices_backward.default,
    aten.max_pool3d_with_indices_backward.default,
    aten.avg_pool2d_backward.default,
    aten.avg_pool3d_backward.default,
    aten._adaptive_avg_pool2d_backward.default,
    aten._adaptive_avg_pool3d_backward.default,
}
_NOTHING = {aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default, aten._lazy_clone.default}


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """The two halves of a flat graph.

    Attributes:
        forward: ``images -> (*values, *kept)``.
        kept: how many tensors the forward graph keeps for the backward graphs.
        backward: of each pass, ``(*kept that it reads, *cotangents) -> gradients``, and which of those kept it reads.
    """

    forward: GraphModule
    kept: int
    backward: tuple[tuple[GraphModule, tuple[int, ...]], ...]


def flatten(
    joint: Callable[..., Sequence[Tensor]],
    images: Tensor,
    cotangents: Sequence[Sequence[Tensor]],
    values: int,
    gradients: Sequence[int],
) -> Flat:
    """Record ``joint(images, *cotangents of every pass) -> (*values, *gradients of every pass)`` and split it.

    Args:
        joint: what to record; it runs once, on real tensors.
        images: an example of its input.
        cotangents: examples for each pass.
        values: how many values it returns.
        gradients: how many gradients each pass returns after them.

    Raises:
        GraphError: what runs is not the same for every input: it looks at values, draws random numbers, or writes into itself.
    """
    inputs = [images, *(c for group in cotangents for c in group)]
    with torch.enable_grad():
        # looks at values are recorded, and judged below: at a weight they are harmless, at an image they are not
        recorded = make_fx(joint, _error_on_data_dependent_ops=False)(*inputs)
    _check(recorded.graph)
    with torch.no_grad():
        module = make_fx(
            functionalize(recorded),
            decomposition_table=get_decompositions(_TAKEN_APART),  # type: ignore[arg-type]
            tracing_mode="fake",
            _allow_non_fake_inputs=True,
        )(*inputs)
    for node in module.graph.nodes:
        if getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            raise GraphError(f"its forward pass writes into a tensor of its own ({node.target})")
    _forget(module.graph)
    return _split(module, [len(group) for group in cotangents], values, gradients)


def _check(graph: Graph) -> None:
    behind = _reached(graph, [node for node in graph.nodes if node.op == "placeholder"])
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and not _switched_off(node):
            raise GraphError(f"its forward pass draws random numbers ({node.target})")
        if node in behind and (torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags):
            raise GraphError(f"what it does depends on the values in the images ({node.target})")


def _switched_off(node: Node) -> bool:
    """Whether an operation that can draw random numbers, attention or a dropout say, is told not to."""
    given = {**node.kwargs}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        given.setdefault(argument.name, node.args[i] if i < len(node.args) else argument.default_value)
    return any(given.get(name) in (0, False) for name in ("dropout_p", "train", "training"))


def _reached(graph: Graph, roots: Iterable[Node]) -> set[Node]:
    """``roots`` and every node that depends on one."""
    found = set(roots)
    for node in graph.nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _forget(graph: Graph) -> None:
    """Leave out copies that nothing writes to, and inputs that only tell their shape."""
    for node in list(graph.nodes):
        plain_copy = node.target is aten.clone.default and not node.kwargs and len(node.args) == 1
        if node.target in _NOTHING or plain_copy:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in _SIZES_ONLY and (
            node.target is not aten.convolution_backward.default or not any(node.args[-1][1:])
        ):
            like = node.args[1].meta["val"]
            with graph.inserting_before(node):
                options = {"dtype": like.dtype, "device": like.device}
                blank = graph.call_function(aten.empty_strided.default, (list(like.shape), list(like.stride())), options)
            blank.meta["val"] = like
            node.update_arg(1, blank)
    graph.eliminate_dead_code()


def _split(module: GraphModule, cotangents: Sequence[int], values: int, gradients: Sequence[int]) -> Flat:
    graph = module.graph
    images, *arriving = [node for node in graph.nodes if node.op == "placeholder"]
    returned: list[Node] = list(graph.output_node().args[0])  # type: ignore[arg-type]
    late, moving = _reached(graph, arriving), _reached(graph, [images, *arriving])
    constant = {node for node in graph.nodes if node not in moving}
    groups = [arriving[a:b] for a, b in pairwise(accumulate(cotangents, initial=0))]
    ends = [returned[a:b] for a, b in pairwise(accumulate(gradients, initial=values))]
    halves = [_backward(module, group, found, late, constant) for group, found in zip(groups, ends, strict=True)]
    kept = list(dict.fromkeys(node for _, needs in halves for node in needs))
    place = {node: i for i, node in enumerate(kept)}
    backward = tuple((half, tuple(place[node] for node in needs)) for half, needs in halves)
    return Flat(_forward(module, returned[:values], kept, late), len(kept), backward)


def _forward(module: GraphModule, values: Sequence[Node], kept: Sequence[Node], late: Collection[Node]) -> GraphModule:
    """What depends on no cotangent; what the backward pass alone asks for is made as soon as it can be."""
    place = {node: float(i) for i, node in enumerate(module.graph.nodes)}
    end = max((place[node] for node in values), default=0)
    for node in module.graph.nodes:
        if place[node] > end:  # a mask, say: late it would keep what it is made of alive until then
            place[node] = max((place[source] for source in node.all_input_nodes), default=0)
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in sorted(module.graph.nodes, key=place.__getitem__):
        if node.op != "output" and node not in late:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in (*values, *kept)))
    graph.eliminate_dead_code()
    return GraphModule(module, graph)


def _backward(
    module: GraphModule,
    cotangents: Sequence[Node],
    gradients: Sequence[Node],
    late: Collection[Node],
    constant: Collection[Node],
) -> tuple[GraphModule, list[Node]]:
    """The graph of one pass, and what it reads of the forward graph; constants are made again."""
    needed: set[Node] = set()
    stack = list(gradients)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += node.all_input_nodes if node in late or node in constant else []
    reads = [node for node in module.graph.nodes if node in needed and node not in late and node not in constant]
    graph = Graph()
    copies: dict[Node, Node] = {node: graph.placeholder(node.name) for node in (*reads, *cotangents)}
    for node in module.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in gradients))
    return GraphModule(module, graph), reads
