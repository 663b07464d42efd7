"""Guiding a rectifier written by hand: its nodes pass on what a rule makes of it, as one node would."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from relume.engine.by_hand.tape import Region
from relume.engine.saved_tensors import LEAN, looking
from relume.errors import GraphError, HookError

__all__ = ["RegionLocal", "hook_region"]


class RegionLocal:
    """A rectifier written by hand as a rule sees it, see :class:`relume.rules.Local`, while its nodes' post-hooks run."""

    __slots__ = ("_grad_in", "_grad_out", "_region")

    def __init__(self, region: Region, grad_out: Tensor, grad_in: Tensor) -> None:
        """Answer for ``region``, at which ``grad_out`` arrived; ``grad_in`` is that pulled through it."""
        self._region, self._grad_out, self._grad_in = region, grad_out, grad_in

    @property
    def output(self) -> Tensor:
        """``f(x)``.

        Raises:
            GraphError: the network was prepared to keep no more of it than where it is positive.
        """
        if self._region.lean:
            raise GraphError(LEAN)
        return self._region.output

    @property
    def active(self) -> Tensor:
        """``f(x) > 0``."""
        return self._region.output if self._region.lean else self._region.output > 0

    def pull(self, grad: Tensor) -> Tensor:
        """``grad · f'(x)``."""
        if grad is self._grad_out:
            return self._grad_in.clone()  # a sum hands its gradient on as it is, and others may read that
        source, nodes = self._region.source, self._region.nodes
        inside, arriving = set(nodes), {(nodes[-1], 0): grad}
        for node in reversed(nodes):
            if (node, 0) not in arriving:
                continue
            call: Any = node  # runs its backward formula, which its type does not tell
            with looking():
                pulled: Any = call(arriving.pop((node, 0)))
            edges: Any = node.next_functions
            for edge, part in zip(edges, pulled if isinstance(pulled, tuple) else (pulled,), strict=False):
                if part is not None and (edge == source or edge[0] in inside):
                    arriving[edge] = arriving[edge] + part if edge in arriving else part
        return arriving[source]

    def pull_positive(self, grad: Tensor) -> Tensor:
        """``max(grad, 0) · f'(x)``."""
        if grad is not self._grad_out:
            return self.pull(grad.clamp(min=0))
        return self._grad_in.clamp(min=0) if self._region.verdict.rises else self._grad_in * (grad > 0)

    def where_active(self, grad: Tensor) -> Tensor:
        """``grad · 1[f(x) > 0]``."""
        return grad * self.active


def hook_region(
    region: Region, rule: Callable[[Tensor, RegionLocal], Tensor], ran: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    """Apply ``rule`` at a rectifier written by hand in the next backward pass; ``ran`` is called once it was applied.

    Every node that reads ``x`` makes a part of ``g · f'(x)``. The last one to run passes on what the rule makes of their
    sum, and the others nothing.

    Returns:
        What removes the hooks.
    """
    readers = {n: [i for i, edge in enumerate(n.next_functions) if edge == region.source] for n in region.nodes}
    waiting = {node for node, slots in readers.items() if slots}
    arrived: list[Tensor] = []
    parts: list[Tensor] = []

    def hook(node: Node, slots: Sequence[int], grad_inputs: Any, grad_outputs: Any) -> Any:
        if node is region.nodes[-1]:
            arrived.extend(grad for grad in grad_outputs if grad is not None)
        waiting.discard(node)
        handed = list(grad_inputs)
        filled = [slot for slot in slots if handed[slot] is not None]
        parts.extend(handed[slot] for slot in filled)
        for slot in filled:
            handed[slot] = None
        if slots and not waiting:
            ran()
            if arrived and parts:
                if not filled:
                    raise HookError("a rectifier written by hand passed its gradient on in another order than its graph tells")
                grad_in = functools.reduce(lambda one, other: one + other, parts)
                handed[filled[-1]] = rule(arrived[0], RegionLocal(region, arrived[0], grad_in)).to(grad_in.dtype)
        return tuple(handed)

    for node, slots in readers.items():
        if slots or node is region.nodes[-1]:
            yield node.register_hook(functools.partial(hook, node, slots)).remove
