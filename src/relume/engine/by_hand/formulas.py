"""Formulas, which are replayed on a grid of numbers and judged by the values that they take there."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from relume.engine.by_hand.operations import Operation
from relume.engine.by_hand.steps import Constant, Step

__all__ = ["Formulas", "Verdict"]

_FAR = 30.0
_SIDE = torch.logspace(-3, math.log10(_FAR), 80, dtype=torch.float64)
_GRID = torch.cat([-_SIDE.flip(0), torch.zeros(1, dtype=torch.float64), _SIDE])
_HALFWAY = int((_GRID - _FAR / 2).abs().argmin())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a function, by its values on a grid.

    Attributes:
        rectifies: True if it is a rectifier.
        label: its name.
        slope: how steep it is far out on the side where it rises; negative if that is the left one.
        rises: True if that is the right one, for every channel, so that it falls nowhere where it is positive.
        doubt: why it cannot be told, in words.
    """

    rectifies: bool = False
    label: str = ""
    slope: float = 0.0
    rises: bool = True
    doubt: str = ""

    def nearer(self, other: Verdict) -> bool:
        """Tell whether it is nearer than the ``other`` to what rises to the right as its input does."""
        one, two = ((v.slope < 0, abs(math.log(abs(v.slope)))) for v in (self, other))
        return one[0] < two[0] or (one[0] == two[0] and one[1] < two[1] - 1e-6)


_MOST_VERDICTS = 10_000
_VERDICTS: dict[bytes, Verdict] = {}  # of formulas by their digests


class Formulas:
    """The formulas of a forward pass, each known by a digest of its operations and constants."""

    def __init__(self) -> None:
        """Begin with none."""
        self._values: dict[bytes, Tensor | None] = {}

    def judge(self, end: Step, source: Step) -> Verdict:
        """Judge ``end`` as a function of ``source``; the same formula is judged once, wherever it was written."""
        digest = self._digest(end, source)
        if digest is None:
            return Verdict(doubt="its constants differ from place to place, or were overwritten")
        verdict = _VERDICTS.get(digest)
        if verdict is None:
            with _disable_current_modes(), torch.no_grad():
                values = self.values(end, source)
                verdict = _judged(values) if values is not None else Verdict(doubt="it cannot be replayed")
            if len(_VERDICTS) >= _MOST_VERDICTS:
                _VERDICTS.clear()
            _VERDICTS[digest] = verdict
        return verdict

    def values(self, step: Step, source: Step) -> Tensor | None:
        """Replay ``step`` as a function of ``source`` on the grid; None if it does not run."""
        digest = self._digest(step, source)
        if digest is None or digest in self._values:
            return None if digest is None else self._values[digest]

        if step is source:
            result: Tensor | None = _GRID.reshape(-1, *[1] * len(step.shape))
        else:
            assert step.operation is not None, "only formulas have digests"
            result = _replay(step.operation, [self._operand(operand, step, source) for operand in step.operands], step.options)
        self._values[digest] = result
        return result

    def _operand(self, operand: Any, step: Step, source: Step) -> Any:
        if isinstance(operand, tuple):
            return [self._operand(o, step, source) for o in operand]
        if isinstance(operand, Step):
            return self.values(operand, source)
        return operand.value(step.shape) if isinstance(operand, Constant) else operand

    def _digest(self, step: Step, source: Step) -> bytes | None:
        """Tell formulas apart; None if ``step`` is no function of ``source`` whose constants are known."""
        if step is source:
            return b"%d" % len(step.shape)
        if source not in step.digests:
            step.digests[source] = self._digested(step, source)
        return step.digests[source]

    def _digested(self, step: Step, source: Step) -> bytes | None:
        if step.operation is None:
            return None
        parts = [repr((str(step.operation.function), step.options)).encode()]
        for operand in step.operands:
            part = self._part(operand, step, source)
            if part is None:
                return None
            parts.append(part)
        return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()

    def _part(self, operand: Any, step: Step, source: Step) -> bytes | None:
        if isinstance(operand, tuple):
            parts = [self._part(o, step, source) for o in operand]
            return None if None in parts else b"".join(part or b"" for part in parts)
        if isinstance(operand, Step):
            return self._digest(operand, source)
        if isinstance(operand, Constant):
            constant = operand.value(step.shape)
            return None if constant is None else repr((constant.shape, constant.dtype)).encode() + constant.numpy().tobytes()
        return repr(operand).encode()


def _replay(operation: Operation, operands: list[Any], options: Mapping[str, Any]) -> Tensor | None:
    """Run an operation on values of the grid, in double precision whatever dtype it ran in; None if it does not run."""
    try:
        if operation.identity:
            dtype = options.get("dtype") or operands[0].dtype
            result = operands[0].to(torch.float64 if dtype.is_floating_point else dtype)
        else:
            given = {key: options[key] for key in ("alpha", "approximate", "rounding_mode") if key in options}
            first = operands[0].clone() if operation.writing else operands[0]
            result = operation.function(first, *operands[1:], **given)
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
        & ~((y[:12] == y[0]).all(0) & (y[0] != 0))  # cut off at another bound than zero is arithmetic
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
    return Verdict(True, _label(y / far), slope, rises=not bool(mirrored.any()))


def _label(y: Tensor) -> str:
    """Name a rectifier by its values on the grid, each channel scaled to a slope of one far out."""
    if bool((y - y[:, :1]).abs().amax() > 1e-3):
        return "rectifier with constants of each channel"
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
