"""Rectifiers written by hand: formulas such as ``x * torch.sigmoid(x)`` and ``torch.where(x > 0, x, 0.1 * x)``.

The graph shows the operations of a formula, but neither the constants nor the masks that autograd has no use for. So a forward
pass whose graph holds what may be such a formula (:func:`suspects`) is run once more on a :class:`Tape`, which sees every
operation with all that it was given. From there on the network is known, and its first pass is on a tape.

On the tape, the elementwise operations between a value ``x`` and a value ``y`` that depends on nothing else are a formula
``y = f(x)``. It is replayed, with the operations themselves, on a grid of numbers, and judged by the values that it takes
there. A formula that rectifies is a :class:`Region`, which rules treat as one rectifier. What may be one and cannot be told is
listed with the reason. ``docs/rules.md`` shows where the line is drawn.
"""

from relume.engine.by_hand.guiding import RegionLocal, hook_region
from relume.engine.by_hand.suspects import is_known, remember, suspects
from relume.engine.by_hand.tape import Region, Tape

__all__ = ["Region", "RegionLocal", "Tape", "hook_region", "is_known", "remember", "suspects"]
