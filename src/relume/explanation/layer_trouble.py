"""The sentence that most class activation maps are empty at the layer that was chosen, and which layer to name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from relume.explanation.remarks import NO_GRADIENT, NO_HEAT

if TYPE_CHECKING:
    from relume.explanation.result import Explanation

__all__ = ["trouble_with_layer", "without_heat"]

#: Of fewer images than these all must be without Grad-CAM before the layer is to blame.
FEW = 3


def without_heat(e: Explanation) -> list[str]:
    """Name for each image the first class activation map that is empty at the layer chosen; "" where none is."""
    if e.layer_choice is None:
        return []
    titles = {key: e.infos[key].title.removeprefix("Guided ") for key in e.remarks}
    return [next((title for key, title in titles.items() if _lacks_heat(e, key, title, i)), "") for i in range(len(e))]


def _lacks_heat(e: Explanation, key: str, title: str, sample: int) -> bool:
    words = e.remarks[key][sample]
    if e.infos[key].place == "layer":
        return words != NO_GRADIENT and not e[key][sample].any()
    return words.startswith(NO_HEAT.format(title))


def trouble_with_layer(e: Explanation, without: Sequence[str], name: str = "layer={!r}") -> str:
    """Say that most of a run's images are ``without`` heat, and ``name`` another layer; nothing where most have some."""
    titles = [title for title in without if title]
    if not titles or (len(titles) < len(without) if len(without) < FEW else 2 * len(titles) <= len(without)):
        return ""
    such = f", such as {name.format(e.runner_up_layer)}" if e.runner_up_layer else ""
    title = titles[0] if len(set(titles)) == 1 else "class activation map"
    these = f"{len(titles)} of {len(without)} {title}s are" if len(without) > 1 else f"the {title} is"
    return f"{these} empty at layer {e.layer}, which was chosen; name another{such}"
