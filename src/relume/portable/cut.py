"""A trace cut off at what the network returned: the score is made eagerly, the network's passes by whatever can run them.

What a network returns, and the layers captured, become fresh leaves. The score is made of these as ever; one short backward
pass brings its gradient to them, rules and all, and ``source.pull`` takes it from there to the images or the layers.
:class:`Live` is the plainest source, an eager run; it is also what is recorded to compile the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from relume.engine.forward_pass import guard
from relume.engine.graph import Survey, between, hooked, survey, walk
from relume.engine.inputs import Output, pick
from relume.engine.layers import Layer, Probe, Reshape
from relume.engine.replica import replicate
from relume.engine.trace import Guidable, Score, Trace, full_precision
from relume.errors import GraphError
from relume.rules import Rule, gradient

__all__ = ["Asked", "Cut", "Facts", "Live", "Seen", "Source", "cut"]


class Asked(NamedTuple):
    """A backward pass by ``rule`` from some of the values that a run returned to some of its ends, both by number."""

    rule: Rule
    roots: tuple[int, ...]
    ends: tuple[int, ...]


class Source(Protocol):
    """One run of the network: what it returned, and backward passes through it.

    Attributes:
        values: every tensor that the network returned, and then the output of every layer captured.
        seen: what is known of its graph.
    """

    values: Sequence[Tensor]
    seen: Seen

    def pull(self, asked: Asked, cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The gradient at each end asked for (the images are end 0, the layers follow), given those at the roots."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a graph told of itself before it was let go.

    Attributes:
        rest: how the values are put together again to what the network returned.
        depends: which of the values depend on the images.
        reach: which values, by number, depend on which ends.
        parts: every node that matters to a rule, and between which values and ends it lies.
    """

    rest: tuple[list[Any], TreeSpec]
    depends: tuple[bool, ...]
    reach: frozenset[tuple[int, int]]
    parts: tuple[tuple[Survey, frozenset[tuple[int, int]]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What an ordinary trace told about a network for inputs of one form: names of layers, and how each becomes a map.

    ``by_scores`` says that the layer was chosen by what matters to the scores, so that other scores may want another.
    """

    layers: tuple[str, ...]
    units: tuple[str, ...]
    maps: Mapping[str, Reshape]
    candidates: tuple[str, ...]
    relu_only: bool
    by_scores: bool = False

    @property
    def captured(self) -> tuple[str, ...]:
        """Every layer to capture, once."""
        return tuple(dict.fromkeys((*self.layers, *self.units)))


class _Named(Probe):
    """Captures layers that are known by name, and looks for no others."""

    def _grid(self, output: Tensor) -> None:  # noqa: ARG002
        return None


class Live:
    """An eager run on a replica, kept with its graph."""

    def __init__(self, network: nn.Module, facts: Facts, feed: Callable[[Tensor], Any], images: Tensor) -> None:
        """Run ``network`` on ``images``, handed to it as ``feed`` says."""
        leaf = images.detach().requires_grad_()
        runs = replicate(network)
        probe = _Named(runs, leaf, facts.captured, reshape=lambda values: values)
        args, kwargs = feed(leaf.clone())  # it may begin with an in-place operation
        with guard(network):
            outputs = runs(*args, **kwargs)
        flat, spec = tree_flatten(outputs)
        layers = [layer.output for layer in probe.layers()]
        self.values: list[Tensor] = [value for value in flat if isinstance(value, Tensor)] + layers
        self._ends, self._relu_only = [leaf, *layers], facts.relu_only
        self._rest = [_TENSOR if isinstance(value, Tensor) else value for value in flat], spec
        for value in self._rest[0]:
            if value is not _TENSOR and not isinstance(value, int | float | str | None):
                raise GraphError(f"it returns a {type(value).__name__}, of which nothing tells how to make another")

    def pull(self, asked: Asked, cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """See :class:`Source`."""
        roots, ends = [self.values[i] for i in asked.roots], [self._ends[i] for i in asked.ends]
        nodes = dict.fromkeys(chain.from_iterable(_between(root, ends) for root in roots))
        rectifiers = () if asked.rule is gradient else survey(nodes, relu_only=self._relu_only).rectifiers
        with full_precision(roots[0].device.type), hooked(rectifiers, asked.rule):
            return torch.autograd.grad(roots, ends, cotangents, retain_graph=True, allow_unused=True)

    @functools.cached_property
    def seen(self) -> Seen:
        """What to know of the graph once it is gone."""
        where: dict[Node, set[tuple[int, int]]] = {}
        reach: set[tuple[int, int]] = set()
        for (r, root), (e, end) in product(enumerate(self.values), enumerate(self._ends)):
            nodes = _between(root, [end])
            if nodes or root is end:
                reach.add((r, e))
            for node in nodes:
                where.setdefault(node, set()).add((r, e))
        found = ((survey([node], relu_only=self._relu_only), frozenset(places)) for node, places in where.items())
        parts = tuple((_without_nodes(part), places) for part, places in found if part != _EMPTY)
        return Seen(self._rest, tuple(value.requires_grad for value in self.values), frozenset(reach), parts)


_TENSOR: Any = object()  # where a value goes, in what the network returned
_EMPTY = Survey((), (), (), ())
_ELSEWHERE = cast("Node", None)  # in place of a node of a graph that is not at hand


def _without_nodes(found: Survey) -> Survey:
    return Survey(tuple((_ELSEWHERE, kind) for _, kind in found.rectifiers), found.excluded, found.unguided, found.hidden)


def _between(value: Tensor, ends: Sequence[Tensor]) -> list[Node]:
    return [] if value.grad_fn is None else between(value.grad_fn, [_node(end) for end in ends])


def _node(tensor: Tensor) -> Node:
    return get_gradient_edge(tensor).node


def cut(model: Any, images: Tensor, source: Source, facts: Facts, output: Output) -> Cut:
    """The trace of ``model`` on ``images`` that rests on ``source``."""
    leaves = [value.detach().requires_grad_(flows) for value, flows in zip(source.values, source.seen.depends, strict=True)]
    first = len(leaves) - len(facts.captured)
    # not the leaves themselves: a target may return what it is given, and may write into it
    returned = (leaf.clone() if leaf.requires_grad else leaf for leaf in leaves[:first])
    flat, spec = source.seen.rest
    outputs = tree_unflatten([next(returned) if value is _TENSOR else value for value in flat], spec)
    layers = {name: Layer(name, leaf, facts.maps[name]) for name, leaf in zip(facts.captured, leaves[first:], strict=True)}
    return Cut(
        model,
        images,
        pick(outputs, output),
        tuple(layers[name] for name in facts.layers),
        {name: layers[name] for name in facts.units},
        facts.relu_only,
        facts.candidates,
        leaves=tuple(leaves),
        ends=(images, *leaves[first:]),
        source=source,
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Cut(Trace):
    """A trace of which the network's part is behind ``source``, and only the score's part is a graph.

    Attributes:
        leaves: what stands for each value of the source.
        ends: the images, and those leaves that stand for layers.
        source: the run.
    """

    leaves: tuple[Tensor, ...]
    ends: tuple[Tensor, ...]
    source: Source

    def _depends(self, score: Score) -> bool:
        return bool(self._roots(score.value))

    def _roots(self, value: Tensor) -> list[int]:
        """The numbers of the leaves that ``value`` is made of."""
        behind = set() if value.grad_fn is None else set(walk(value.grad_fn))
        return [i for i, leaf in enumerate(self.leaves) if leaf.requires_grad and _node(leaf) in behind]

    def _places(self, wrt: Sequence[Tensor]) -> tuple[int, ...]:
        return tuple(next(i for i, end in enumerate(self.ends) if end is tensor) for tensor in wrt)

    def _survey(self, score: Score, wrt: Sequence[Tensor]) -> Survey:
        ends = self._places(wrt)
        asked = {(r, e) for r in self._roots(score.value) for e in ends} & self.source.seen.reach
        parts = [part for part, places in self.source.seen.parts if places & asked]
        own = _between(score.value, [self.leaves[r] for r in sorted({r for r, _ in asked})])
        parts.append(survey(own, relu_only=self.relu_only))
        return Survey(
            tuple(chain.from_iterable(part.rectifiers for part in parts)),
            tuple(chain.from_iterable(part.excluded for part in parts)),
            tuple(chain.from_iterable(part.unguided for part in parts)),
            tuple(chain.from_iterable(part.hidden for part in parts)),
        )

    def _pull(
        self, score: Score, wrt: Sequence[Tensor], rule: Rule, rectifiers: Guidable, *, keep: bool
    ) -> Sequence[Tensor | None]:
        places = self._places(wrt)
        roots = [r for r in self._roots(score.value) if any((r, e) in self.source.seen.reach for e in places)]
        ends = tuple(e for e in places if any((r, e) in self.source.seen.reach for r in roots))
        if not ends:
            return [None] * len(wrt)
        own = [(node, kind) for node, kind in rectifiers if node is not _ELSEWHERE]
        arriving = Trace._pull(self, score, [self.leaves[r] for r in roots], rule, own, keep=keep)
        arrived = {r: cotangent for r, cotangent in zip(roots, arriving, strict=True) if cotangent is not None}
        found = self.source.pull(Asked(rule, tuple(arrived), ends), list(arrived.values())) if arrived else ()
        gradients = dict(zip(ends, found, strict=False))
        return [gradients.get(e) for e in places]
