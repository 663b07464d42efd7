"""One flat graph of a network's forward and backward passes, as a portable graph needs.

``make_fx`` records what runs, the hooks of the rules with it, as a list of operations on tensors, so that no rule is written a
second time. :class:`Run` is a run that can be recorded: it looks at no value, unlike :class:`relume.engine.trace.Trace`, which
refuses what is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from relume.engine.forward_pass import guard
from relume.engine.graph import gradients, hooked
from relume.engine.reading import Reading
from relume.engine.recorder import recorder_of
from relume.engine.replica import replicate
from relume.engine.trace import Score, tape_of
from relume.errors import GraphError
from relume.rules import Rule, gradient
from relume.targets.conversion import as_target

__all__ = ["Run", "flat_graph"]

aten = torch.ops.aten

#: Operations whose gradient is a mask times something: taken apart, they are plain operations that any runtime has.
_TAKEN_APART = (aten.threshold_backward, aten.hardtanh_backward, aten.native_batch_norm_backward)

#: Operations that hand their input on; nothing writes into it any more.
_COPIES = {aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default, aten._lazy_clone.default}


class Run:
    """A run of a network on a private replica, and backward passes through it.

    Attributes:
        outputs: what the network returned.
        layers: the output of each layer that was named, in that order.
    """

    def __init__(self, model: nn.Module, images: Tensor, layers: Sequence[str] = ()) -> None:
        """Run ``model`` on ``images`` ``(N, C, *spatial)`` as in evaluation mode, and capture ``layers``, by name."""
        self._images = images.detach().requires_grad_()
        replica = replicate(model)
        recorder = recorder_of(model, replica, self._images, Reading(layers=layers))
        self._tape = tape_of(model, replica, self._images)
        with guard(model), self._tape:
            self.outputs: Any = replica(self._images.clone())  # it may begin with an in-place operation
        recording = None if recorder is None else recorder.finish()
        self.layers = [recording.layer(name).output for name in layers] if recording else []

    def pull(self, scores: Tensor, rule: Rule = gradient) -> list[Tensor]:
        """Run one backward pass by ``rule`` from ``scores`` ``(N,)``.

        Returns:
            The gradient of the images and of each layer.

        Raises:
            GraphError: the scores do not depend on one of them, or ``rule`` cannot be applied to every rectifier.
        """
        ends = [self._images, *self.layers]
        score = Score(scores, as_target(None), self._tape)
        _, nodes = score.between(ends)
        rectifiers = () if rule is gradient else score.survey(ends, relu_only=False).guidable()
        with hooked(rectifiers, rule):
            pulled = gradients(scores, ends, nodes)
        if any(values is None for values in pulled):
            raise GraphError("the scores do not depend on the images, or on one of the layers named")
        return [values for values in pulled if values is not None]


def flat_graph(function: Callable[..., Sequence[Tensor]], *examples: Tensor) -> GraphModule:
    """Record ``function(*examples)``, which runs a network and pulls gradients through it, as one graph without autograd.

    Args:
        function: what to record; it runs once, on real tensors, and returns tensors.
        examples: its inputs, such as images; the graph is for inputs of their shapes.

    Returns:
        A module that takes what ``function`` takes, and returns what it returns.

    Raises:
        GraphError: what runs is not the same for every input: it looks at values, draws random numbers, writes into itself, or
            computes outside torch.

    Example:
        >>> import torch
        >>> from relume import rules
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> def guided(images):
        ...     run = Run(network, images)
        ...     return run.pull(run.outputs[:, 0], rules.guided)
        >>> images = torch.rand(1, 3, 8, 8)
        >>> graph = flat_graph(guided, images)
        >>> torch.equal(graph(images)[0], guided(images)[0])
        True
    """
    with torch.enable_grad():
        # looks at values are recorded, and judged below: at a weight they are harmless, at an image they are not
        recorded = make_fx(function, _error_on_data_dependent_ops=False)(*examples)
    _check(recorded.graph)
    with torch.no_grad():
        module = make_fx(
            functionalize(recorded),
            decomposition_table=get_decompositions(_TAKEN_APART),  # type: ignore[arg-type]
            tracing_mode="fake",
            _allow_non_fake_inputs=True,
        )(*examples)
    for node in module.graph.nodes:
        if getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            raise GraphError(f"its forward pass writes into a tensor of its own ({node.target})")
    _drop_copies(module.graph)
    module.recompile()
    # other values than those recorded, so that one that found its way into the graph shows
    others = [values * 0.75 + 0.125 if values.is_floating_point() else values for values in examples]
    if not all(_alike(*pair) for pair in zip(module(*others), function(*others), strict=True)):
        raise GraphError("recorded, it gives other values, so something in it is not an operation on tensors")
    return module


def _alike(recorded: Tensor, eager: Tensor) -> bool:
    """Tell whether two results are the same but for rounding, which may turn a mask here and there."""
    if not eager.is_floating_point():
        return torch.equal(recorded, eager)
    tolerance = torch.finfo(eager.dtype).eps ** (1 / 3)
    return bool((recorded - eager).double().norm() <= tolerance * eager.double().norm())


def _check(graph: Graph) -> None:
    """Refuse a graph that would do something else for other inputs, or another time."""
    moving = _behind(graph, [node for node in graph.nodes if node.op == "placeholder"])
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and not _is_switched_off(node):
            raise GraphError(f"its forward pass draws random numbers ({node.target})")
        if node in moving and (torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags):
            raise GraphError(f"what it does depends on the values in the images ({node.target})")


def _is_switched_off(node: Node) -> bool:
    """Tell whether an operation that can draw random numbers, such as attention or dropout, is told not to."""
    given = {**node.kwargs}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        given.setdefault(argument.name, node.args[i] if i < len(node.args) else argument.default_value)
    return any(given.get(name) in (0, False) for name in ("dropout_p", "train", "training"))


def _behind(graph: Graph, roots: Iterable[Node]) -> set[Node]:
    """Find ``roots`` and every node that depends on one."""
    behind = set(roots)
    for node in graph.nodes:
        if not behind.isdisjoint(node.all_input_nodes):
            behind.add(node)
    return behind


def _drop_copies(graph: Graph) -> None:
    """Leave out copies that nothing writes to."""
    for node in list(graph.nodes):
        is_plain_clone = node.target is aten.clone.default and not node.kwargs and len(node.args) == 1
        if node.target in _COPIES or is_plain_clone:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
