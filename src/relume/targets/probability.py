"""The probability of a class as a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from relume.errors import TargetError
from relume.targets.activation import Activation, activated, check_activation, how_to_name, resolve_activation
from relume.targets.base import Target, named
from relume.targets.classes import Class
from relume.targets.outputs import class_scores

__all__ = ["Probability"]


@dataclass(frozen=True, slots=True, eq=False)
class Probability(Target):
    """The probability of one class in each image, in [0, 1], which follows from its scores by ``activation``.

    A softmax brings all other classes in: what speaks against them speaks for this one.

    Attributes:
        index: the class; one class per image, as a sequence or a tensor ``(N,)``; or None for each image's predicted class.
        activation: ``softmax`` or ``sigmoid``; ``auto`` for that of the call, or what the network's graph shows.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
        >>> Probability(1, activation="sigmoid").frozen(outputs, 2).scores(outputs)
        tensor([0.8808, 0.5000])
    """

    index: int | Sequence[int] | Tensor | None = None
    activation: Activation = field(default="auto", kw_only=True)

    def known(self, size: Sequence[int], activation: Activation) -> Probability:
        """Give the target with the activation of the call, unless it has its own."""
        return replace(self, activation=activation) if self.activation == "auto" else self

    def frozen(self, outputs: Any, count: int) -> Probability:
        """Decide the class and the activation.

        Raises:
            TargetError: the class does not fit, or nothing tells how probabilities follow from the scores.
            InputError: there is no such activation, or the network ends in another.
        """
        check_activation(self.activation)
        frozen = Class(self.index).frozen(outputs, count)
        scores = class_scores(outputs, count)
        activation, are_probabilities = resolve_activation(self.activation, scores)
        if activation == "none" and not are_probabilities:
            words = how_to_name("activation='{}'", scores.shape[1])
            raise TargetError(f"the probability of a class is asked for, and the network returns {words}")
        return Probability(frozen.index, activation=activation)

    def scores(self, outputs: Any) -> Tensor:
        """Read the probability of each image's class, ``(N,)``."""
        assert isinstance(self.index, Tensor), "frozen before it is asked"
        return self.by_class(outputs).gather(1, self.index[:, None])[:, 0]

    def by_class(self, outputs: Any) -> Tensor:
        """Compute the probabilities of all classes, ``(N, classes)``."""
        assert isinstance(self.index, Tensor), "frozen before it is asked"
        assert self.activation != "auto", "frozen before it is asked"
        return activated(class_scores(outputs, len(self.index)), self.activation)

    def check(self, count: int) -> None:
        """Refuse ``count`` images if there is a class for each of another number of them."""
        Class(self.index).check(count)

    def rows(self, some: slice) -> Probability:
        """Give the classes of ``some`` of the images."""
        return replace(self, index=Class(self.index).rows(some).index)

    def repeated(self, times: int) -> Probability:
        """Give the classes for the batch repeated so many ``times``."""
        return replace(self, index=Class(self.index).repeated(times).index)

    @property
    def classes(self) -> Tensor | None:
        """The class of each image, ``(N,)`` int64, once frozen."""
        return self.index if isinstance(self.index, Tensor) else None

    def words(self, image: int, labels: Sequence[str] | None) -> str:
        """Say which class, and that it is its probability."""
        assert isinstance(self.index, Tensor), "frozen before it is asked"
        return f"probability of {named(int(self.index[image]), labels)}"

    def __str__(self) -> str:
        return f"the probability of {Class(self.index)}"
