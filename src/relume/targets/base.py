"""The base class of every target: a question about one score of each image.

A target is frozen before it is used: what it leaves open, such as the predicted class, is decided once, on the outputs for the
images themselves. Smoothed, perturbed and randomised runs are then asked about the same score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from relume.targets.activation import Activation

__all__ = ["Target", "TargetLike", "is_index", "named"]


class Target(ABC):
    """A score of each image that can be explained.

    A target of yours is a subclass with :meth:`scores`. It overrides :meth:`frozen` if it decides something on the outputs,
    :meth:`check` and :meth:`rows` if it holds something for each image, and :meth:`repeated` if copies of the images may run in
    one batch, which is faster.

    Example:
        >>> import torch
        >>> class Margin(Target):
        ...     def scores(self, outputs):
        ...         best = outputs.topk(2, dim=1).values
        ...         return best[:, 0] - best[:, 1]
        >>> Margin().scores(torch.tensor([[1.0, 5.0, 3.0]]))
        tensor([2.])
    """

    __slots__ = ()

    @abstractmethod
    def scores(self, outputs: Any) -> Tensor:
        """Read the score of each image, ``(N,)``; the target is frozen before.

        Args:
            outputs: what the network returned; for a target with a :attr:`layer`, that layer's map ``(N, channels, *spatial)``.
        """

    def frozen(self, outputs: Any, count: int) -> Target:
        """Decide what is left open, on the ``outputs`` for ``count`` images; a frozen target may be frozen again.

        Raises:
            TargetError: the target does not fit the outputs.
        """
        return self

    def check(self, count: int) -> None:
        """Refuse ``count`` images if the target holds something for each of another number of them.

        Raises:
            TargetError: it does.
        """

    def rows(self, some: slice) -> Target:
        """Give the target for ``some`` of the images."""
        return self

    def repeated(self, times: int) -> Target | None:
        """Give the target for the batch repeated so many ``times``; None if the target counts on the batch as it is."""
        return None

    def known(self, size: Sequence[int], activation: Activation) -> Target:
        """Give the target with what it must know beside the outputs.

        Args:
            size: the spatial size of the images, ``(H, W)``.
            activation: how probabilities follow from the scores of the network.
        """
        return self

    def placed(self, name: str) -> Target:
        """Give the target with its :attr:`layer` called by its dotted ``name`` in the model."""
        return self

    @property
    def is_local(self) -> bool:
        """True if the target means a place in the image, so that it has no meaning in a mirrored or resized copy."""
        return False

    @property
    def classes(self) -> Tensor | None:
        """The class of each image, ``(N,)`` int64, once frozen; None if the target is not about a class."""
        return None

    def by_class(self, outputs: Any) -> Tensor | None:
        """Compute the same score for every class, ``(N, classes)``, once frozen; None if there is no such thing."""
        return None

    @property
    def versus(self) -> Tensor | None:
        """The class that :attr:`classes` is contrasted with, ``(N,)`` int64, once frozen; None if there is none."""
        return None

    @property
    def layer(self) -> nn.Module | str | None:
        """The layer whose output is scored, a module or its dotted name; None for the output of the network."""
        return None

    @property
    def has_class_scores(self) -> bool:
        """False if what the target reads in the outputs cannot be class scores."""
        return True

    def words(self, image: int, labels: Sequence[str] | None) -> str | None:
        """Say what is explained in one image, once frozen, by the class names if known; None if :attr:`classes` say it all."""
        return None if self.classes is not None else str(self)

    def __str__(self) -> str:
        return type(self).__name__


#: What may be given as a target: see :func:`relume.targets.as_target`.
TargetLike: TypeAlias = "int | Sequence[int] | Tensor | Callable[[Any], Tensor] | Target | None"


def is_index(value: object) -> bool:
    """Tell whether ``value`` is a whole number, which a bool is not."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def named(index: int, labels: Sequence[str] | None) -> str:
    """Name a class by its label, in one line, and its index; by its index alone if it has no label.

    Example:
        >>> named(1, ["cat", "dog"]), named(1, None)
        ('dog (1)', 'class 1')
    """
    known = labels is not None and index < len(labels)
    return f"{' '.join(labels[index].split())} ({index})" if known else f"class {index}"  # type: ignore[index]
