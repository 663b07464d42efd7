"""Rules: each is one pure function ``rule(grad_out, local) -> grad_in``.

``grad_out`` is the gradient ``g`` arriving at the output of a rectifier ``y = f(x)``, and ``local`` is that rectifier in that
run. A rule of your own is one more function of this shape; hand it to ``relume.Backpropagation(model, rule)``. It must not
write into ``grad_out``, which others read too.

Example:
    >>> import torch, relume
    >>> def doubled(grad_out, local):
    ...     return 2 * local.pull(grad_out)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    >>> images = torch.rand(1, 3, 8, 8)
    >>> plain = relume.Gradient(model).attribute(images, 0)
    >>> torch.equal(relume.Backpropagation(model, doubled).attribute(images, 0), 2 * plain)
    True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Local", "Rule", "deconvnet", "gradient", "guided"]


class Local(Protocol):
    """One rectifier ``y = f(x)`` in one run, as a rule sees it; all tensors have the shape of ``x``."""

    @property
    def output(self) -> Tensor:
        """``f(x)``."""
        ...

    @property
    def active(self) -> Tensor:
        """``f(x) > 0``, boolean."""
        ...

    def pull(self, grad: Tensor) -> Tensor:
        """Return ``grad · f'(x)``, the ordinary chain rule. The tensor returned belongs to the rule."""
        ...

    def pull_positive(self, grad: Tensor) -> Tensor:
        """Return ``max(grad, 0) · f'(x)``. The tensor returned belongs to the rule."""
        ...

    def where_active(self, grad: Tensor) -> Tensor:
        """Return ``grad · 1[f(x) > 0]`` for a ``grad`` that was pulled through ``f``."""
        ...


Rule = Callable[["Tensor", Local], "Tensor"]


def gradient(grad_out: Tensor, local: Local) -> Tensor:
    """Return ``g · f'(x)``: Simonyan et al. 2013, arXiv:1312.6034, section 3."""
    return local.pull(grad_out)


def deconvnet(grad_out: Tensor, local: Local) -> Tensor:  # noqa: ARG001 - every rule is given both
    """Return ``max(g, 0)``: Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1."""
    return grad_out.clamp(min=0)


def guided(grad_out: Tensor, local: Local) -> Tensor:
    """Return ``max(g, 0) · f'(x) · 1[f(x) > 0]``: Springenberg et al. 2015, arXiv:1412.6806, figure 1, there for ReLU."""
    return local.where_active(local.pull_positive(grad_out))
