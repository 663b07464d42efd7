"""Formulas, which are replayed on a grid of numbers and judged by the values that they take there."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from relume.engine.by_hand.operations import IDENTITIES, name_of
from relume.engine.by_hand.steps import Constant, Step

__all__ = ["Formulas", "Verdict"]

_FAR = 30.0
_SIDE = torch.logspace(-3, math.log10(_FAR), 60, dtype=torch.float64)
_GRID = torch.cat([-_SIDE.flip(0), torch.zeros(1, dtype=torch.float64), _SIDE])
_HALFWAY = int((_GRID - _FAR / 2).abs().argmin())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a function, by its values on a grid.

    Attributes:
        rectifies: True if it is a rectifier.
        label: its name.
        slope: how steep it is far out on the side where it rises; negative if that is the left one.
        doubt: why it cannot be told, in words.
    """

    rectifies: bool = False
    label: str = ""
    slope: float = 0.0
    doubt: str = ""

    def nearer(self, other: Verdict) -> bool:
        """Tell whether it is nearer than the ``other`` to what rises to the right as its input does."""
        one, two = ((v.slope < 0, abs(math.log(abs(v.slope)))) for v in (self, other))
        return one[0] < two[0] or (one[0] == two[0] and one[1] < two[1] - 1e-6)


class Formulas:
    """Formulas by number: the same formula is replayed and judged once, wherever it was written."""

    def __init__(self) -> None:
        """Begin with none."""
        self._numbers: dict[Hashable, int] = {}
        self._values: list[Tensor | None] = []
        self._verdicts: dict[int, Verdict] = {}

    def judge(self, end: Step, source: Step) -> Verdict:
        """Judge ``end`` as a function of ``source``."""
        with _disable_current_modes(), torch.no_grad():
            number = self._number(end, source)
            if number is None:
                return Verdict(doubt="its constants differ from place to place, or were overwritten")
            if number not in self._verdicts:
                values = self._values[number]
                self._verdicts[number] = _judged(values) if values is not None else Verdict(doubt="it cannot be replayed")
            return self._verdicts[number]

    def values(self, end: Step, source: Step) -> Tensor | None:
        """Replay ``end`` as a function of ``source`` on the grid."""
        number = self._number(end, source)
        return None if number is None else self._values[number]

    def _number(self, step: Step, source: Step) -> int | None:
        if step is source:
            places = _GRID.reshape(-1, *[1] * len(step.shape))
            return self._numbered(("x", len(step.shape)), lambda: places)
        if source not in step.numbers:
            step.numbers[source] = self._replayed(step, source)
        return step.numbers[source]

    def _replayed(self, step: Step, source: Step) -> int | None:
        names: list[Hashable] = []

        def value(operand: Any) -> Any:
            if isinstance(operand, tuple):
                return [value(o) for o in operand]
            if isinstance(operand, Step):
                number = self._number(operand, source)
                if number is None:
                    raise LookupError
                names.append(("number", number))
                return self._values[number]
            if isinstance(operand, Constant):
                constant = operand.value(step.shape)
                if constant is None:
                    raise LookupError
                names.append(("number", float(constant)) if constant.ndim == 0 else ("tensor", id(operand.tensor)))
                return constant
            names.append((type(operand), operand))
            return operand

        try:
            operands = [value(operand) for operand in step.operands]
        except LookupError:
            return None
        key = (step.function, *names, *((k, str(v)) for k, v in step.options.items()))
        return self._numbered(key, lambda: _replay(step.function, operands, step.options))

    def _numbered(self, key: Hashable, values: Callable[[], Tensor | None]) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._values)
            self._values.append(values())
        return self._numbers[key]


def _replay(function: Any, operands: list[Any], options: Mapping[str, Any]) -> Tensor | None:
    """Run an operation on values of the grid, in double precision whatever dtype it ran in; None if it does not run."""
    try:
        if name_of(function) in IDENTITIES:
            dtype = options.get("dtype") or operands[0].dtype
            result = operands[0].to(torch.float64 if dtype.is_floating_point else dtype)
        else:
            given = {key: options[key] for key in ("alpha", "approximate", "rounding_mode") if key in options}
            result = function(*([operands[0].clone(), *operands[1:]] if function._schema.is_mutable else operands), **given)
    except (AttributeError, IndexError, RuntimeError, TypeError):  # also of what could not be replayed itself
        return None
    values: Tensor = result[0] if isinstance(result, tuple) else result
    return values


def _judged(values: Tensor) -> Verdict:
    """Judge the values of a function on the grid, or of several, one for each channel, which all have to rectify."""
    if not values.is_floating_point():
        return Verdict()
    y = values.double().reshape(len(_GRID), -1)
    middle = len(_GRID) // 2
    mirrored = (y[0] - y[middle]) > (y[-1] - y[middle])
    y = torch.where(mirrored, y.flip(0), y)
    up, down, half = y[-1] - y[middle], y[0] - y[middle], y[_HALFWAY] - y[middle]
    steep = (y[1:] - y[:-1]) / (_GRID[1:] - _GRID[:-1])[:, None]
    falls = (steep < -1e-6 * steep.amax(0)) & (torch.minimum(y[1:], y[:-1]) > 1e-9 * (y.amax(0) - y.amin(0)))
    far = (up - half) / (_FAR - _GRID[_HALFWAY])
    rectifies = (
        torch.isfinite(y).all(0)
        & (up > 0)
        & (y[middle + 1 :] >= 0).all(0)  # active wherever its input is positive: relu(x) - 2 * sigmoid(x) is not
        & (down.abs() <= 0.35 * up)  # tanh and sigmoid: 1; x + relu(x): 0.5
        & ~((y[:10] == y[0]).all(0) & (y[0] != 0))  # cut off at another bound than zero is arithmetic
        & (steep.amax(0) <= 6 * far)  # no jump: x * (x > 0.3)
        & (up >= 1.4 * half)  # saturating: below; growing like an exponential: above
        & (up <= 9 * half)
        & ~falls.any(0)  # where it is positive: |x|, x²
    )
    if not bool(rectifies.any()):
        return Verdict()
    if not bool(rectifies.all()):
        return Verdict(doubt="it rectifies in some channels only")
    slope = float(far.median()) * (-1 if bool(mirrored.all()) else 1)
    return Verdict(True, _label(y / far), slope)


def _label(y: Tensor) -> str:
    """Name a rectifier by its values on the grid, each channel scaled to a slope of one far out."""
    if bool((y - y[:, :1]).abs().amax() > 1e-3):
        return "a rectifier with a parameter for each channel"
    slope = float(y[0, 0]) / -_FAR
    formulas = {**_NAMED, "leaky ReLU": lambda x: F.leaky_relu(x, slope)} if abs(slope) > 1e-3 else _NAMED
    near = (name for name, formula in formulas.items() if bool((formula(_GRID) - y[:, 0]).abs().amax() < 1e-3))
    return next(near, "rectifier")


_NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "quick GELU": lambda x: x * torch.sigmoid(1.702 * x),
    "Mish": F.mish,
    "softplus": F.softplus,
    "hard-swish": F.hardswish,
    "ELU": F.elu,
    "SELU": lambda x: F.selu(x) / 1.0507009873554805,
    "squared ReLU": lambda x: F.relu(x) ** 2 / 45,
}
