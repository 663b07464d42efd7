"""The colours of figures and pages, each once: on a white figure, and on a light or a dark page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["BAD", "COLOURS", "CURVES", "GOOD", "INK", "LEAD", "LINE", "SERIES", "SOFT", "properties", "themed"]

#: The colour of each role on a light and on a dark page; figures, which are white, take the first.
COLOURS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "page": ("#fcfbf9", "#151413"),
        "well": ("#f1efeb", "#0c0b0b"),
        "line": ("#dfdbd4", "#33302d"),
        "lead": ("#c4beb5", "#4a4641"),
        "edge": ("#8d867c", "#79736b"),
        "ink": ("#1d1b18", "#ece8e2"),
        "soft": ("#645e56", "#a8a198"),
        "accent": ("#9a4a00", "#f0ad5c"),
        "good": ("#1d6b3c", "#7fd19c"),
        "bad": ("#b3261e", "#ff9d92"),
        "random": ("#7d766d", "#9a938a"),
        "edges": ("#2b6ca3", "#74b3e8"),
    }
)

#: Of text, of lesser text, of grids and frames, of lines that lead to a label, of a value within its limit and beyond it.
INK, SOFT, LINE, LEAD, GOOD, BAD = (COLOURS[role][0] for role in ("ink", "soft", "line", "lead", "good", "bad"))

#: How matplotlib draws a curve: of the method in question, of a random order, of edges.
CURVES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "method": MappingProxyType({"color": COLOURS["accent"][0], "linewidth": 1.8, "linestyle": "-"}),
        "random": MappingProxyType({"color": COLOURS["random"][0], "linewidth": 1.2, "linestyle": (0, (1, 1.5))}),
        "edges": MappingProxyType({"color": COLOURS["edges"][0], "linewidth": 1.2, "linestyle": (0, (5, 2))}),
    }
)

#: Colours that tell named rows or curves apart, where there are several of one role: matplotlib's tab10.
SERIES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")


def properties() -> str:
    """Return the colours as custom properties of CSS, ``--ink`` and so on, for pages light and dark."""
    lines = "".join(f"  --{role}: light-dark({light}, {dark});\n" for role, (light, dark) in COLOURS.items())
    return f":root {{\n{lines}}}\n"


def themed(text: str) -> str:
    """Replace each colour of a figure's SVG by the page's property of the same role, so that the page's theme holds for it.

    Example:
        >>> from relume.pictures.palette import themed
        >>> themed('<path stroke="#1d1b18"/>')
        '<path stroke="var(--ink)"/>'
    """
    roles = {light: role for role, (light, _) in COLOURS.items()}
    return re.sub("|".join(roles), lambda match: f"var(--{roles[match[0]]})", text)
