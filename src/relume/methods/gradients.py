"""The gradients and activations that a method makes its map of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from relume.rules import Rule

__all__ = ["Fuse", "Gradients"]

Fuse: TypeAlias = Literal["mean", "max", "product"]


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """The gradients of one score by each rule, and the activations of the target layers.

    Attributes:
        inputs: the gradient with respect to the input by each rule, ``(N, C, *spatial)``.
        layers: the gradients with respect to each target layer by each rule, ``(N, channels, *spatial)``.
        activations: the output of each target layer, of the same shapes.
        fuse: how the heat maps of several layers become one.
        images: the images, ``(N, C, *spatial)``.

    Example:
        A method of your own reads them:

        >>> import relume
        >>> from relume import rules
        >>> def times_input(gradients: relume.methods.Gradients) -> "Tensor":
        ...     return gradients.inputs[rules.gradient] ** 2
        >>> squared = relume.Method("squared_gradient", frozenset({("input", rules.gradient)}), times_input, signed=False)
    """

    inputs: Mapping[Rule, Tensor]
    layers: Mapping[Rule, Sequence[Tensor]]
    activations: Sequence[Tensor]
    fuse: Fuse
    images: Tensor

    def __getitem__(self, some: slice) -> Gradients:
        """Return those of some images."""
        inputs = {rule: values[some] for rule, values in self.inputs.items()}
        layers = {rule: [values[some] for values in several] for rule, several in self.layers.items()}
        return Gradients(inputs, layers, [values[some] for values in self.activations], self.fuse, self.images[some])
