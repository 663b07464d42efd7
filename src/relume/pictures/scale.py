"""The scale of a drawn map: the value that is drawn at full strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

__all__ = ["OWN", "PERCENTILE", "Array", "Scaling", "scale_of"]

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"

PERCENTILE = 99.5


def scale_of(values: Array, percentile: float = PERCENTILE) -> float:
    """Compute the magnitude to draw at full strength: a percentile of ``|values|``, or their maximum where that is zero.

    A few extreme pixels must not turn the rest grey; a map that is zero almost everywhere must still show what it has.
    """
    magnitudes = np.abs(values)
    return float(np.percentile(magnitudes, percentile, overwrite_input=True)) or float(magnitudes.max())


@dataclass(frozen=True, slots=True)
class Scaling:
    """The scale of drawn maps, which is saved with a result and printed under its figures.

    Attributes:
        percentile: the percentile of a map's magnitudes that is drawn at full strength, as all values above it are.
        full: the value drawn at full strength, by method; None if it is each map's own percentile.
        origin: ``own``: the percentile of each map; ``shared``: the highest of a set of maps; ``fixed``: a given value.

    Example:
        >>> import numpy as np
        >>> from relume.pictures import Scaling
        >>> Scaling(percentile=50).of("gradient", np.array([[-3, 1, 2]], dtype=np.float32))
        2.0
        >>> print(Scaling())
        full strength at percentile 99.5 of each map
    """

    percentile: float = PERCENTILE
    full: Mapping[str, float] | None = None
    origin: Literal["own", "shared", "fixed"] = "own"

    def of(self, method: str, values: Array) -> float:
        """Return the value at which a map of ``method`` is drawn at full strength."""
        return scale_of(values, self.percentile) if self.full is None else self.full[method]

    def __str__(self) -> str:
        if self.origin == "fixed":
            return "full strength at a given value, the same for all maps of a method"
        whose = "each map" if self.origin == "own" else "the strongest map of each method, the same for all: shared"
        return f"full strength at percentile {self.percentile:g} of {whose}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"percentile": self.percentile, "full": self.full and dict(self.full), "origin": self.origin}


#: Each map at its own percentile, which is the default.
OWN = Scaling()
