"""Steps: the values that a forward pass made of its input, each with the operation that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from relume.engine.by_hand.operations import AFFINE, IDENTITIES, name_of
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
    """A tensor that does not depend on the input; ``computed`` if this forward pass made it."""

    tensor: Tensor
    version: int
    computed: bool

    def value(self, shape: torch.Size) -> Tensor | None:
        """Return one number, or one for each channel of what has this ``shape``; None if it differs from place to place."""
        values = self.tensor.detach()
        if version(self.tensor) != self.version:
            return None
        if values.numel() == 1 or bool((values == values.flatten()[0]).all()):
            values = values.flatten()[0]
        elif values.shape == shape or values.numel() > _MOST_CHANNELS:
            return None
        return values.cpu().to(torch.float64 if values.is_floating_point() else values.dtype)

    def is_foreign_mask(self, shape: torch.Size) -> bool:
        """Tell whether it is a mask over what has this ``shape``, made out of the tape's sight."""
        if self.computed or self.tensor.shape != shape or self.tensor.numel() == 1 or self.tensor.requires_grad:
            return False
        low, high = (self.tensor == self.tensor.min()), (self.tensor == self.tensor.max())
        return bool((low | high).all()) if self.tensor.dtype != torch.bool else True


@dataclass(eq=False, slots=True)
class Step:
    """A value that depends on the input: of the network, or computed beside it, such as a mask.

    Attributes:
        shape: its shape.
        edge: its node in the graph, and which of the node's outputs it is; None if it has none.
        version: how often its memory had been written to.
        function: the elementwise operation that made it; None if another did, and formulas begin here.
        operands: what the operation was given.
        options: the same, by keyword.
        nearest: the nearest value that it is a function of.
        depth: how many such values lie one behind the other.
        origin: the value where its formula begins, the same place by place or rearranged.
        region: the rectifier written by hand that it is part of.
        numbers: its formulas, by the values that they are functions of.
    """

    shape: torch.Size
    edge: Value | None
    version: int
    function: Any = None
    operands: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    nearest: Step | None = None
    depth: int = 0
    origin: Step | None = None
    region: Region | None = None
    numbers: dict[Step, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, tensor: Tensor) -> Step:
        """Make the step that ``tensor`` is."""
        edge = None if not tensor.requires_grad else get_gradient_edge(tensor)
        return cls(tensor.shape, None if edge is None else (edge.node, edge.output_nr), version(tensor))

    @property
    def steps(self) -> list[Step]:
        """The operands that depend on the input."""
        return steps_in(self.operands)

    @property
    def bends(self) -> bool:
        """True if it is more than its operands scaled, shifted and added up."""
        name, steps = name_of(self.function), self.steps
        return name not in AFFINE or (name in ("mul", "div") and (len(steps) > 1 or self.operands[0] is not steps[0]))

    @property
    def scales(self) -> bool:
        """True if it is its operand times a number."""
        name = name_of(self.function)
        numbers = all(not isinstance(o, Constant) or o.tensor.numel() == 1 for o in self.operands)
        return name == "neg" or name in IDENTITIES or (name in ("mul", "div") and numbers and not self.bends)

    @property
    def rectifies(self) -> bool:
        """True if its node alone is a rectifier."""
        name = "" if self.edge is None else self.edge[0].name()
        if name not in RECTIFIERS:
            return False
        if name_of(self.function) in ("clamp", "clamp_min", "fmax", "maximum"):  # whose bounds may be tensors
            bounds = [o.value(self.shape) if isinstance(o, Constant) else o for o in self.operands if not isinstance(o, Step)]
            return bool(bounds) and bounds[0] is not None and bool(torch.as_tensor(bounds[0] == 0).all())
        return RECTIFIERS[name].rectifies(self.edge[0])  # type: ignore[index]


def steps_in(operands: Sequence[Any]) -> list[Step]:
    """List the operands that depend on the input, those in lists too."""
    nested = [steps_in(o) if isinstance(o, tuple) else [o] for o in operands]
    return [o for some in nested for o in some if isinstance(o, Step)]


def meeting(steps: Sequence[Step]) -> Step | None:
    """Find the nearest value that all ``steps`` are functions of."""
    values = set(steps)
    while len(values) > 1:
        furthest = max(values, key=lambda step: step.depth)
        if furthest.nearest is None:
            return None
        values = (values - {furthest}) | {furthest.nearest}
    return values.pop()


def between(source: Step, end: Step) -> list[Step]:
    """List the steps from behind ``source`` to ``end``, producers first."""
    window: dict[Step, None] = {}

    def visit(step: Step) -> None:
        for operand in step.steps:
            if operand is not source and operand not in window:
                visit(operand)
        window[step] = None

    visit(end)
    return list(window)
