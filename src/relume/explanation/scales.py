"""One scale for several explanations, so that their pictures can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real

from relume.errors import InputError
from relume.explanation.result import Explanation, Scale
from relume.pictures.scale import PERCENTILE, Scaling

__all__ = ["scaling_of", "share"]

_LEAST, _MOST = 1e-37, 1e38  # what float32, in which maps are drawn, can be divided by


def share(
    explanations: Sequence[Explanation], scale: Scale | Mapping[str, float] = "shared", *, percentile: float = PERCENTILE
) -> list[Explanation]:
    """Return the same explanations, of several photos or targets, at another scale: see :meth:`Explanation.scaled`.

    Example:
        >>> import relume, torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> both = [relume.explain(network, torch.rand(1, 3, 4, 4), target, ["gradient"]) for target in (0, 1)]
        >>> one, other = relume.share(both)
        >>> one.scale("gradient") == other.scale("gradient")
        True
    """
    scaling = scaling_of(explanations, scale, percentile)
    return [replace(e, scaling=scaling) for e in explanations]


def scaling_of(explanations: Sequence[Explanation], scale: Scale | Mapping[str, float], percentile: float) -> Scaling:
    """Find how explanations are scaled for ``scale``: by themselves, by the highest of them, or by given values.

    Raises:
        InputError: another word, a value not above zero, a method without a value.
    """
    if not 0 < percentile <= 100:
        raise InputError(f"a percentile is a number above 0, up to 100; got {percentile}")
    methods = list(dict.fromkeys(m for e in explanations for m in e.maps))
    if scale == "own":
        return Scaling(percentile)
    if scale != "shared":
        return Scaling(percentile, _values_of(methods, scale), "fixed")
    own = [replace(e, scaling=Scaling(percentile)) for e in explanations]
    full = {m: max((value for e in own if m in e for value in e.scale(m)), default=0.0) for m in methods}
    return Scaling(percentile, full, "shared")


def _values_of(methods: Sequence[str], scale: float | Mapping[str, float]) -> dict[str, float]:
    """List the value given for each method."""
    values = scale if isinstance(scale, Mapping) else dict.fromkeys(methods, scale)
    for value in values.values() if values else [scale]:
        if isinstance(value, bool) or not isinstance(value, Real) or not _LEAST < float(value) < _MOST:
            raise InputError(f"a scale is 'own', 'shared', or a value above zero for all methods or by method; got {scale!r}")
    if methods and set(values) != set(methods):
        raise InputError(f"a scale by method has a value for each: {', '.join(methods)}; got {', '.join(values) or 'none'}")
    return {method: float(value) for method, value in values.items()}
