"""The choice of the layer that Grad-CAM reads where none is named, and why it is that one.

It is the last map before pooling; the last before a dense prediction, which is no layer to read but what it says already; or
the last block whose tokens matter to the score.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from relume.engine.dense_predictions import dense, predicting
from relume.engine.graph import gradients
from relume.engine.layers import Layer, describe
from relume.engine.reading import Reshape
from relume.engine.token_grid import Grid
from relume.errors import LayerError
from relume.targets.outputs import tensors_in

__all__ = ["Choice", "Chooser", "Obstacles", "Output"]

#: Why a layer was chosen, in words.
BEFORE_POOLING = "the last with spatial axes before pooling"
BEFORE_PREDICTION = "the last with spatial axes before the network's own prediction"
TOKENS_MATTER = "the last block whose tokens matter to the score"
#: So many outputs that may yet be chosen are held at once; one before these is made again, should it be the one.
HELD = 8
#: A map of so few cells along an axis shows no place; before a dense prediction, one that does is taken instead.
COARSE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """The output of a layer that ran.

    Attributes:
        name: the layer.
        values: what it returned.
        version: the version of the values then.
        grid: how the values are arranged as a map; None if they are none.
        is_pooled: they were made by pooling.
        is_block: the layer has modules of its own.
        others: the tensors that the layer returned after this one, with their versions then.
    """

    name: str
    values: Tensor
    version: int
    grid: Grid | None
    is_pooled: bool
    is_block: bool
    others: tuple[tuple[Tensor, int], ...]


@dataclass(slots=True, eq=False)
class Choice:
    """A layer that may be chosen.

    Attributes:
        name: its name.
        shape: the shape of its output.
        edge: where the gradient of its output arrives.
        to_map: makes a map of that gradient; None for tokens that have no grid, or belong to no block.
        is_map: its output is a map, and no tokens.
        is_coarse: its map has no more than two cells along an axis, which show no place.
        layer: the layer, until it is let go for later ones.
        why: why it was chosen, in words.
    """

    name: str
    shape: torch.Size
    edge: GradientEdge
    to_map: Reshape | None
    is_map: bool
    is_coarse: bool
    layer: Layer | None
    why: str = ""

    def matters(self, scores: Iterable[Tensor]) -> bool:
        """Tell whether a score depends on any cell of its map."""
        if self.to_map is None:
            return False
        for score in scores:
            (gradient,) = gradients(score.float().sum(), [self.edge])
            if gradient is not None and bool(self.to_map(gradient).any()):
                return True
        return False

    def because(self, why: str) -> Choice:
        """Give the choice with the reason for it."""
        layer = None if self.layer is None else replace(self.layer.untouched(), why=why)
        return replace(self, layer=layer, why=why)


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What may have kept a layer from being chosen.

    Attributes:
        repeated: layers with a map that ran more than once.
        hidden: a part of the network in which layers cannot be seen.
        cut: why the output of a layer carries no gradient, in words.
    """

    repeated: Sequence[str] = ()
    hidden: str = ""
    cut: str = ""


class Chooser:
    """Chooses the layer that Grad-CAM reads among those that ran."""

    def __init__(self, images: Tensor, reshape: Reshape | None = None) -> None:
        """Choose for a network that is given ``images``; ``reshape`` makes maps in place of what shapes tell."""
        self._count, self._axes, self._reshape = len(images), images.ndim, reshape
        self._choices: list[Choice] = []  # in the order in which they ran
        self._held: deque[Choice] = deque()

    def consider(self, output: Output) -> bool:
        """Keep an output as a choice if it is a map, not yet pooled, or tokens, and tell whether it may be the one chosen."""
        grid, shape = output.grid, output.values.shape
        is_map = grid is not None and grid.kind != "tokens"
        is_tokens = len(shape) == 3 < self._axes and shape[1] > 1
        if output.is_pooled if is_map else not is_tokens:
            return False
        to_map = (self._reshape or grid) if grid is not None and (is_map or output.is_block) else None
        layer = None if to_map is None else Layer(output.name, output.values, to_map, output.version)
        is_coarse = grid is not None and min(grid.spatial) <= COARSE
        choice = Choice(output.name, shape, get_gradient_edge(output.values), to_map, is_map, is_coarse, layer)
        self._choices.append(choice)
        if layer is not None:
            self._held.append(choice)
            if len(self._held) > HELD:
                self._held.popleft().layer = None
        return layer is not None

    def needs_scores(self, outputs: Any) -> bool:
        """Tell whether the choice depends on what matters to the scores: among tokens, or before a dense prediction."""
        return any(not choice.is_map for choice in self._choices) or bool(dense(outputs, self._count))

    def choose(self, outputs: Any, scores: Sequence[Tensor], runs: Mapping[str, int], obstacles: Obstacles) -> Choice:
        """Choose the last map, or in place of it tokens that matter after it.

        In the last block of a transformer that reads its class token alone, patches no longer matter. Where the score reads
        a dense prediction, such as a map of classes, no map is chosen that is this prediction already.

        Args:
            outputs: what the network returned.
            scores: what is to be explained; the layer is one that matters to them.
            runs: how often each layer ran; one that ran more than once is no choice, since its name would not tell which run.
            obstacles: what may have kept a layer from being chosen.

        Raises:
            LayerError: there is none.
        """
        read = dense(outputs, self._count, scores)
        why = f"{BEFORE_PREDICTION}, {_sizes(read)}" if read else BEFORE_POOLING
        after = last = None
        for choice in reversed(self._before(read, outputs, runs)):
            if not choice.is_map:
                if choice.matters(scores):
                    return choice.because(TOKENS_MATTER)
                after = choice
                continue
            if after is not None and last is None:
                raise LayerError(
                    f"no target layer can be chosen: the last map, {choice.name!r}, is followed by {after.name!r}, which works "
                    f"on tokens of shape {tuple(after.shape)}; name the target layer, with reshape= if its output is no map"
                )
            last = last or choice
            if after is None and (not scores or choice.matters(scores)):
                return choice.because(why)
        if last is not None:  # nothing matters to a score whose gradient is zero
            return last.because(why)
        raise _nothing_to_choose(outputs, obstacles, "the network's own prediction" if read else "pooling")

    def _before(self, read: Sequence[Tensor], outputs: Any, runs: Mapping[str, int]) -> list[Choice]:
        """List the choices that are not the prediction ``read`` already, and show a place if any does."""
        choices = [choice for choice in self._choices if runs[choice.name] == 1]
        if not read:
            return choices
        predicted = predicting(read, outputs)
        choices = [choice for choice in choices if choice.edge.node not in predicted]
        fine = [choice for choice in choices if not (choice.is_map and choice.is_coarse)]
        return fine if any(choice.is_map for choice in fine) else choices


def _nothing_to_choose(outputs: Any, obstacles: Obstacles, before: str) -> LayerError:
    """Say why there is no layer to choose ``before`` pooling or a prediction."""
    if next(tensors_in(outputs), None) is None:
        return LayerError(
            f"no target layer can be chosen, since the network returned {describe(outputs)}, in which no tensor is seen; "
            "let it return tensors, or name the layer, layer=, for a target that is a callable"
        )
    inside = f"; those inside TorchScript ({obstacles.hidden}) cannot be seen" if obstacles.hidden else ""
    inside += f"; {obstacles.cut}" if obstacles.cut else ""
    if obstacles.repeated:
        return LayerError(
            f"every layer with spatial axes before {before} ran more than once, such as {obstacles.repeated[-1]!r}{inside}; "
            "let each run have a module of its own, or name a layer that runs once: layer=, and --layer in the command"
        )
    return LayerError(
        f"no layer with spatial axes ran before {before}{inside}; name a target layer that has them: layer=, and --layer in "
        "the command"
    )


def _sizes(read: Sequence[Tensor]) -> str:
    if any(tensor.ndim == 1 for tensor in read):  # their scores
        return "a list of boxes"
    return " and ".join("×".join(map(str, tensor.shape[1:])) for tensor in read)
