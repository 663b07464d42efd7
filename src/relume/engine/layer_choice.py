"""Which layer Grad-CAM reads where none is named, and why.

The last map before pooling; the last before a dense prediction, which is no layer to read but what it says already; or the last
block whose tokens matter to the score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from relume.engine.dense_predictions import dense, predicting
from relume.engine.graph import gradients
from relume.engine.reading import Reshape
from relume.errors import LayerError
from relume.targets.outputs import tensors_in

__all__ = ["COARSE", "HELD", "NO_GRADIENT", "Choice", "Layer", "choose", "describe"]

#: Why a layer was chosen, in words.
BEFORE_POOLING = "the last with spatial axes before pooling"
BEFORE_PREDICTION = "the last with spatial axes before the network's own prediction"
TOKENS_MATTER = "the last block whose tokens matter to the score"
NO_GRADIENT = (
    "it ran inside reentrant checkpointing, which use_reentrant=False mends, under torch.no_grad(), or on what was detached"
)
#: So many outputs that may yet be chosen are held at once; one before these is made again, should it be the one.
HELD = 8
#: A map of so few cells along an axis shows no place; before a dense prediction, one that does is taken instead.
COARSE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A captured layer.

    Attributes:
        name: its dotted name.
        output: what it returned, as it was.
        to_map: makes a map of the output, or of its gradient.
        version: of the output when it was captured.
        why: why it was chosen, in words; empty where it was named.
    """

    name: str
    output: Tensor
    to_map: Reshape
    version: int = 0
    why: str = ""

    def map(self, values: Tensor) -> Tensor:
        """``values`` of the output's shape as ``(N, channels, *spatial)``.

        Raises:
            LayerError: the caller's own ``reshape`` gave something else.
        """
        made: Any = self.to_map(values)
        if not isinstance(made, Tensor) or made.ndim < 3 or len(made) != len(values):
            raise LayerError(
                f"reshape made {describe(made)} of layer {self.name!r}, of shape {tuple(values.shape)}; "
                "it is to return (N, channels, *spatial)"
            )
        return made

    def untouched(self) -> Self:
        """Return itself, whose output is still what the layer returned.

        Raises:
            LayerError: it was overwritten.
        """
        if self.output._is_view() and self.output._version != self.version:
            raise LayerError(
                f"layer {self.name!r} returned a view, which was overwritten in place later on, so that its output is lost; "
                "name another"
            )
        return self


@dataclass(slots=True, eq=False)
class Choice:
    """An output among which a layer is chosen.

    Attributes:
        name: of the layer.
        shape: of its output.
        edge: where its gradient arrives.
        to_map: makes a map of its gradient; None for tokens that have no grid, or belong to no block.
        is_map: it is a map, and no tokens.
        coarse: its map has no more than two cells along an axis, which show no place.
        layer: the layer, until it is let go for later ones.
        why: why it was chosen, in words.
    """

    name: str
    shape: torch.Size
    edge: GradientEdge
    to_map: Reshape | None
    is_map: bool
    coarse: bool
    layer: Layer | None
    why: str = ""

    def matters(self, scores: Iterable[Tensor]) -> bool:
        """Find out whether a score depends on any cell of its map."""
        if self.to_map is None:
            return False
        for score in scores:
            (found,) = gradients(score.float().sum(), [self.edge])
            if found is not None and bool(self.to_map(found).any()):
                return True
        return False

    def because(self, why: str) -> Choice:
        """Say why it is the one chosen."""
        layer = None if self.layer is None else replace(self.layer.untouched(), why=why)
        return replace(self, layer=layer, why=why)


def choose(
    choices: Sequence[Choice],
    outputs: Any,
    batch: int,
    scores: Sequence[Tensor],
    unseen: str = "",
    again: Sequence[str] = (),
    cut: str = "",
) -> Choice:
    """Choose a layer: the last map, or in place of it tokens that matter after it.

    In the last block of a transformer that reads its class token alone, patches no longer matter. Where the score reads
    a dense prediction, such as a map of classes, no map is chosen that is this prediction already.

    Args:
        choices: what there is to choose among, in the order in which it ran.
        outputs: what the network returned.
        batch: how many images it was given.
        scores: what is to be explained; the layer is one that matters to them.
        unseen: a part of the network in which layers cannot be seen.
        again: layers with a map that ran more than once.
        cut: the first layer whose output carries no gradient.

    Raises:
        LayerError: there is none.
    """
    read = dense(outputs, batch, scores)
    why = f"{BEFORE_PREDICTION}, {_sizes(read)}" if read else BEFORE_POOLING
    after = last = None
    for choice in reversed(_feeding(choices, read, outputs)):
        if not choice.is_map:
            if choice.matters(scores):
                return choice.because(TOKENS_MATTER)
            after = choice
            continue
        if after is not None and last is None:
            raise LayerError(
                f"no target layer can be chosen: the last map, {choice.name!r}, is followed by {after.name!r}, which works on "
                f"tokens of shape {tuple(after.shape)}; name the target layer, with reshape= if its output is no map"
            )
        last = last or choice
        if after is None and (not scores or choice.matters(scores)):
            return choice.because(why)
    if last is not None:  # nothing matters to a score whose gradient is zero
        return last.because(why)
    raise _nothing(outputs, unseen, again, cut, predicts=bool(read))


def _nothing(outputs: Any, unseen: str, again: Sequence[str], cut: str, *, predicts: bool) -> LayerError:
    """Say why there is no layer to choose, of a network that ``predicts`` densely or pools."""
    if next(tensors_in(outputs), None) is None:
        return LayerError(
            f"no target layer can be chosen, since the network returned {describe(outputs)}, in which no tensor is seen; "
            "let it return tensors, or name the layer, layer=, for a target that is a callable"
        )
    inside = f"; those inside TorchScript ({unseen}) cannot be seen" if unseen else ""
    before = "the network's own prediction" if predicts else "pooling"
    if cut:
        inside += f"; the output of {cut!r} carries no gradient: {NO_GRADIENT}"
    if again:
        return LayerError(
            f"every layer with spatial axes before {before} ran more than once, such as {again[-1]!r}{inside}; let each run "
            "have a module of its own, or name a layer that runs once: layer=, and --layer in the command"
        )
    return LayerError(
        f"no layer with spatial axes ran before {before}{inside}; name a target layer that has them: layer=, and --layer in "
        "the command"
    )


def _feeding(choices: Sequence[Choice], read: Sequence[Tensor], outputs: Any) -> list[Choice]:
    """Find those of ``choices`` that are not the prediction ``read`` already, and show a place if any does."""
    if not read:
        return list(choices)
    predicted = predicting(read, outputs)
    feeding = [choice for choice in choices if choice.edge.node not in predicted]
    fine = [choice for choice in feeding if not (choice.is_map and choice.coarse)]
    return fine if any(choice.is_map for choice in fine) else feeding


def _sizes(read: Sequence[Tensor]) -> str:
    return " and ".join("×".join(map(str, tensor.shape[1:])) for tensor in read)


def describe(output: Any) -> str:
    """Say what a layer returned."""
    return f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
