"""The codes of stored maps from their definition, value by value in float64."""

import math


def sixth_root(values, highest=127):
    """``highest · sign(v) · (|v| / max |v|)^(1/6)`` of each value, before it is rounded."""
    values = [float(v) for v in values]
    scale = max(map(abs, values))
    return [highest * math.copysign((abs(v) / scale) ** (1 / 6), v) if scale else 0.0 for v in values]
