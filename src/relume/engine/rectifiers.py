"""The rectifiers ``y = f(x)`` that relume guides, and how each is read from its node in the autograd graph.

One registry, :data:`RECTIFIERS`, from the name of a node to a :class:`Rectifier`. Nodes are read through their ``_saved_*``
attributes, as torch 2.13 names them (``tests/engine/test_torch_names.py`` says when one changes); the in-place forms have other
names or save the result in place of the input. A clamp, threshold or maximum is a rectifier only at zero: the same node at
another bound is arithmetic and keeps its ordinary gradient.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from relume.registry import Registry

__all__ = ["RECTIFIERS", "Rectifier", "is_of_torchvision", "may_rectify", "rectifier_of"]

# torchvision's operators with a derivative: an autograd.Function in C++, and in Python from 0.29 on
_OF_TORCHVISION = re.compile(r"torchvision_((ps_)?roi_(align|pool)|deform_conv2d)_|((PS)?ROI(Align|Pool)|DeformConv2d)Function")

# the values that a node saves (`_saved_self`, `_saved_min`, ...) depend on its operation; no type checker knows them
Saved: TypeAlias = Any


def _always(_: Saved) -> bool:
    return True


def _never(_: Saved) -> bool:
    return False


def _first(_: Saved) -> int:
    return 0


def _input_positive(node: Saved) -> Tensor:
    positive: Tensor = node._saved_self > 0
    return positive


@dataclass(frozen=True, slots=True)
class Rectifier:
    """A kind of rectifier as its node shows it; every field but the first is a function of the node.

    Attributes:
        label: the name users know it by.
        output: gives ``f(x)``.
        active: gives ``f(x) > 0``.
        sealed: True if ``f'(x)`` is zero wherever ``f(x) <= 0``, so that a pulled gradient needs no mask.
        rises: True if ``f'(x) >= 0`` wherever ``f(x) > 0``; only a negative slope makes it false.
        rectifies: True if the node is a rectifier at all.
        operand: gives the position of ``x`` among the node's inputs.
        relu: True if the node is of the ReLU family, ``max(x, 0)`` or that cut off above.

    Example:
        A rectifier written as a ``torch.autograd.Function`` that saves its input:

        >>> import torch, relume
        >>> from relume.engine import RECTIFIERS, Rectifier
        >>> class Squared(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x.clamp(min=0) ** 2
        ...     @staticmethod
        ...     def backward(ctx, grad):
        ...         return grad * 2 * ctx.saved_tensors[0].clamp(min=0)
        >>> RECTIFIERS["SquaredBackward"] = Rectifier(
        ...     "squared", lambda n: n.saved_tensors[0].clamp(min=0) ** 2, lambda n: n.saved_tensors[0] > 0)
        >>> print(relume.coverage(lambda x: Squared.apply(x).flatten(1), torch.randn(1, 3, 4, 4)))
        rectifier    ran  guided
        squared        1       1
        >>> del RECTIFIERS["SquaredBackward"]
    """

    label: str
    output: Callable[[Saved], Tensor]
    active: Callable[[Saved], Tensor] = _input_positive
    sealed: Callable[[Saved], bool] = _never
    rises: Callable[[Saved], bool] = _always
    rectifies: Callable[[Saved], bool] = _always
    operand: Callable[[Saved], int] = _first
    relu: Callable[[Saved], bool] = _never


# --- Clamps, thresholds and maxima ---------------------------------------------------------------------------------------


def _all(condition: Any) -> bool:
    return bool(torch.as_tensor(condition).all())


def _clamp(label: str) -> Rectifier:
    """Describe a clamp, which is not sealed: the derivative of torch's clamp at the bound itself is 1."""

    def ceiling(node: Saved) -> float | Tensor | None:
        return getattr(node, "_saved_max", None)

    def at_zero(node: Saved) -> bool:
        low, high = node._saved_min, ceiling(node)
        return low is not None and _all(low == 0) and (high is None or _all(high > 0))

    return Rectifier(label, lambda n: n._saved_self.clamp(n._saved_min, ceiling(n)), rectifies=at_zero, relu=_always)


def _maximum(label: str) -> Rectifier:
    """Describe a maximum of a value and a constant zero, which is not sealed: torch's derivative at a tie is 1/2."""

    def operand(node: Saved) -> int:
        return 0 if node.next_functions[0][0] is not None else 1

    def sides(node: Saved) -> tuple[Tensor, Tensor]:
        x, constant = node._saved_self, node._saved_other
        return (x, constant) if operand(node) == 0 else (constant, x)

    def with_zero(node: Saved) -> bool:
        return any(source is None for source, _ in node.next_functions) and _all(sides(node)[1] == 0)

    return Rectifier(
        label,
        lambda n: sides(n)[0].clamp(min=0),
        lambda n: sides(n)[0] > 0,
        rectifies=with_zero,
        operand=operand,
        relu=_always,
    )


def _threshold(node: Saved) -> Tensor:
    # the node does not tell the value that f takes below its threshold, and need not: it has no derivative there
    return F.threshold(node._saved_self, node._saved_threshold, 0)


_THRESHOLD = Rectifier(
    "threshold",
    _threshold,
    lambda n: _threshold(n) > 0,
    sealed=_always,
    rectifies=lambda n: bool(n._saved_threshold == 0),
    relu=_always,
)


# --- Leaky and smooth ones -----------------------------------------------------------------------------------------------


def _sloped(
    label: str,
    slope: Callable[[Saved], float | Tensor],
    negative: Callable[[Saved], Tensor],
    scale: Callable[[Saved], float] = lambda _: 1,
) -> Rectifier:
    """Describe ``scale · x`` for positive ``x`` and ``negative`` otherwise, whose sign is that of ``-slope`` there."""

    def output(node: Saved) -> Tensor:
        x = node._saved_self
        return torch.where(x > 0, x * scale(node), negative(node))

    def rises(node: Saved) -> bool:
        return _all(torch.as_tensor(slope(node)) >= 0)

    return Rectifier(label, output, lambda n: _input_positive(n) if rises(n) else output(n) > 0, rises=rises)


def _overwritten(label: str) -> Rectifier:
    """Describe an in-place form that saved its result; torch itself refuses a negative slope in these."""
    return Rectifier(label, lambda n: n._saved_result, lambda n: n._saved_result > 0)


def _rrelu_slope(node: Saved) -> float | Tensor:
    noise: Tensor = node._saved_noise
    return noise if node._saved_training else (node._saved_lower + node._saved_upper) / 2


_OF_TORCH: dict[str, Rectifier] = {
    "ReluBackward0": Rectifier("relu", lambda n: n._saved_result, lambda n: n._saved_result > 0, sealed=_always, relu=_always),
    "HardtanhBackward0": Rectifier(
        "hardtanh",
        lambda n: F.hardtanh(n._saved_self, n._saved_min_val, n._saved_max_val),
        sealed=lambda n: bool(n._saved_min_val >= 0),
        relu=lambda n: bool(n._saved_min_val == 0),
    ),
    "ClampBackward0": _clamp("clamp"),
    "ClampBackward1": _clamp("clamp"),
    "ClampMinBackward0": _clamp("clamp_min"),
    "ClampMinBackward1": _clamp("clamp_min"),
    "ThresholdBackward0": _THRESHOLD,
    "ThresholdBackward1": _THRESHOLD,
    "MaximumBackward0": _maximum("maximum"),
    "FmaxBackward0": _maximum("fmax"),
    "LeakyReluBackward0": _sloped(
        "leaky_relu", lambda n: n._saved_negative_slope, lambda n: n._saved_self * n._saved_negative_slope
    ),
    "LeakyReluBackward1": _overwritten("leaky_relu"),
    "PreluKernelBackward0": _sloped("prelu", lambda n: n._saved_weight, lambda n: n._saved_self * n._saved_weight),
    "EluBackward0": _sloped(
        "elu",
        lambda n: n._saved_alpha,
        lambda n: torch.expm1(n._saved_self * n._saved_input_scale) * (n._saved_alpha * n._saved_scale),
        lambda n: n._saved_scale,
    ),
    "EluBackward1": _overwritten("elu"),
    "CeluBackward0": Rectifier("celu", lambda n: F.celu(n._saved_self, n._saved_alpha)),
    "CeluBackward1": _overwritten("celu"),
    "GeluBackward0": Rectifier("gelu", lambda n: F.gelu(n._saved_self, approximate=n._saved_approximate)),
    "SiluBackward0": Rectifier("silu", lambda n: F.silu(n._saved_self)),
    "MishBackward0": Rectifier("mish", lambda n: F.mish(n._saved_self)),
    "HardswishBackward0": Rectifier("hardswish", lambda n: F.hardswish(n._saved_self)),
    "SoftplusBackward0": Rectifier(
        "softplus",
        lambda n: F.softplus(n._saved_self, n._saved_beta, n._saved_threshold),
        lambda n: torch.ones_like(n._saved_self, dtype=torch.bool),
        sealed=_always,
        rectifies=lambda n: bool(n._saved_beta > 0),
    ),
    "RreluWithNoiseBackward0": _sloped("rrelu", _rrelu_slope, lambda n: n._saved_self * _rrelu_slope(n)),
    "RreluWithNoiseBackward1": _overwritten("rrelu"),
}

#: Every rectifier by the name of its node.
RECTIFIERS: Registry[Rectifier] = Registry("rectifier", "relume.rectifiers", _OF_TORCH)


# --- Which nodes rectify --------------------------------------------------------------------------------------------------


def is_of_torchvision(name: str) -> bool:
    """Tell whether a node of this name pools regions or convolves, as torchvision's own operators do, and rectifies nothing."""
    return _OF_TORCHVISION.search(name) is not None


def may_rectify(name: str) -> bool:
    """Tell whether a node clamps several tensors at once, of which it does not tell which is which."""
    return name.startswith(("ForeachClamp", "ForeachMaximum", "ForeachMinimum", "RreluWithNoiseFunctional"))


def rectifier_of(name: str, saved: Saved) -> Rectifier | None:
    """Find the kind of rectifier that a node of this name is; None if it is none, or clamps at another bound than zero."""
    kind = RECTIFIERS[name] if name in RECTIFIERS or name in _names_elsewhere() else None
    return kind if kind is not None and kind.rectifies(saved) else None


@functools.cache  # it is asked for every node of every graph
def _names_elsewhere() -> frozenset[str]:
    """List the nodes that other packages have a rectifier for."""
    return frozenset(point.name for point in entry_points(group=RECTIFIERS.group))
