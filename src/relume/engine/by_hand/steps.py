"""Steps: the values that a forward pass made of its input, each with the operation that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils._python_dispatch import _disable_current_modes

from relume.engine.by_hand.operations import Operation
from relume.engine.rectifiers import RECTIFIERS
from relume.engine.tensor_state import version

if TYPE_CHECKING:
    from relume.engine.by_hand.tape import Region

__all__ = ["Constant", "Step", "Value", "between", "meeting", "steps_in"]

#: A node of a graph, and which of its outputs.
Value: TypeAlias = tuple[Node, int]

_MOST_CHANNELS = 8192


@dataclass(eq=False, slots=True)
class Constant:
    """A tensor that does not depend on the input; ``computed`` if this forward pass made it, of nothing but that."""

    tensor: Tensor
    version: int
    computed: bool

    def value(self, shape: torch.Size) -> Tensor | None:
        """Return one number, or one for each channel of what has this ``shape``; None if it differs from place to place."""
        if version(self.tensor) != self.version:
            return None
        with _disable_current_modes():
            values = self.tensor.detach()
            if values.numel() == 1 or bool((values == values.flatten()[0]).all()):
                values = values.flatten()[0]
            elif values.shape == shape or values.numel() > _MOST_CHANNELS:
                return None
            return values.cpu().to(torch.float64 if values.is_floating_point() else values.dtype)

    def is_foreign_mask(self, shape: torch.Size) -> bool:
        """Tell whether it is a mask over what has this ``shape``, made where operations cannot be seen."""
        if self.computed or self.tensor.shape != shape or self.tensor.numel() == 1:
            return False
        with _disable_current_modes():
            values = self.tensor.detach().float()
            low, high = values.min(), values.max()
            return bool(low < high and ((values == low) | (values == high)).all())


@dataclass(eq=False, slots=True)
class Step:
    """A value that depends on the input: of the network, or computed beside it, such as a mask.

    Attributes:
        shape: its shape.
        edge: its node in the graph, and which of the node's outputs it is; None if it has none.
        version: how often its memory had been written to.
        floating: True if it holds numbers with a fraction, not indices or a mask.
        origin: the value where its formula begins, the same place by place or rearranged; itself if None.
        views: how it was rearranged on the way from there.
        operation: the elementwise operation that made it; None if another did, and formulas begin here.
        operands: what the operation was given.
        options: the same, by keyword.
        steps: the operands that depend on the input.
        nearest: the nearest value that it is a function of.
        depth: how many such values lie one behind the other.
        bends: True if it is more than its operands scaled, shifted and added up.
        bent: True if it bends, or a step behind it does.
        scales: True if it is its operand times a number.
        rectifies: True if its node alone is a rectifier.
        region: the rectifier written by hand that it is part of.
        digests: what tells its formulas apart, by the values that they are functions of.
    """

    shape: torch.Size
    edge: Value | None
    version: int
    floating: bool = True
    origin: Step | None = None
    views: tuple[str, ...] = ()
    operation: Operation | None = None
    operands: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    nearest: Step | None = None
    depth: int = 0
    bends: bool = False
    bent: bool = False
    scales: bool = False
    rectifies: bool = False
    region: Region | None = None
    digests: dict[Step, bytes | None] = field(default_factory=dict)

    @classmethod
    def of(cls, tensor: Tensor) -> Step:
        """Make the step that ``tensor`` is."""
        edge = None if tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)
        return cls(tensor.shape, edge, version(tensor), tensor.is_floating_point())

    @property
    def is_detached(self) -> bool:
        """True if it holds values that were computed without gradient; a mask, and what jumps, has none to begin with."""
        jumps = self.operation is not None and self.operation.name in ("heaviside", "sgn", "sign")
        if self.edge is not None or not self.floating or jumps:
            return False
        return any(step.is_detached or (step.edge is not None and step.floating) for step in self.steps)

    @property
    def may_end(self) -> bool:
        """True if a rectifier may end here: at what bends or joins, and at a factor behind that."""
        assert self.operation is not None, "only formulas end"
        return self.bent and not self.operation.identity and (self.bends or self.scales or len(self.steps) > 1)

    def set_formula(
        self, operation: Operation, operands: tuple[Any, ...], options: Mapping[str, Any], steps: Sequence[Step], nearest: Step
    ) -> None:
        """Note that it is the ``operation`` on ``operands``, and so a function of ``nearest``."""
        self.operation, self.operands, self.options, self.steps = operation, operands, options, steps
        self.nearest, self.depth = nearest, nearest.depth + 1
        factor = operation.name in ("mul", "div")
        self.bends = not operation.affine or (factor and (len(steps) > 1 or operands[0] is not steps[0]))
        self.bent = self.bends or any(step.bent for step in steps)
        numbers = all(not isinstance(o, Constant) or o.tensor.numel() == 1 for o in operands)
        self.scales = operation.name == "neg" or operation.identity or (factor and numbers and not self.bends)
        name = "" if self.edge is None else self.edge[0].name()
        if name in RECTIFIERS and self.edge is not None:
            if operation.name in ("clamp", "clamp_min", "fmax", "maximum"):  # whose bounds may be tensors
                bounds = [o.value(self.shape) if isinstance(o, Constant) else o for o in operands if not isinstance(o, Step)]
                self.rectifies = bool(bounds) and bounds[0] is not None and bool(torch.as_tensor(bounds[0] == 0).all())
            else:
                self.rectifies = RECTIFIERS[name].rectifies(self.edge[0])


def steps_in(operands: Sequence[Any]) -> list[Step]:
    """List the operands that depend on the input, those in lists too."""
    steps = []
    for operand in operands:
        if isinstance(operand, Step):
            steps.append(operand)
        elif isinstance(operand, tuple):
            steps += steps_in(operand)
    return steps


def meeting(steps: Sequence[Step]) -> Step | None:
    """Find the nearest value that all ``steps`` are functions of."""
    values = set(steps)
    while len(values) > 1:
        furthest = max(values, key=lambda step: step.depth)
        if furthest.nearest is None:
            return None
        values.remove(furthest)
        values.add(furthest.nearest)
    return values.pop()


def between(source: Step, end: Step) -> list[Step]:
    """List the steps from behind ``source`` to ``end``, producers first."""
    window: dict[Step, None] = {}
    _visit(end, source, window)
    return list(window)


def _visit(step: Step, source: Step, window: dict[Step, None]) -> None:
    for operand in step.steps:
        if operand is not source and operand not in window:
            _visit(operand, source, window)
    window[step] = None
