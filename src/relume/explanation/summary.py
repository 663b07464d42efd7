"""An explanation in a few lines of text."""

from __future__ import annotations

from relume.explanation.result import TIMES_WEAKER, Explanation

__all__ = ["summary"]


def summary(e: Explanation) -> str:
    """Write what an explanation prints as: network, targets, maps with what speaks against them, and coverage."""
    titles = [e.title(i) for i in range(min(len(e), 4))] + (["…"] if len(e) > 4 else [])
    layer = f", layer {e.layer}" if e.layer else ""
    doubts = {key: e.doubt(key) if len(e) == 1 else _of_several(e, key) for key in e.maps}
    maps = ", ".join(f"{key} ({words})" if words else key for key, words in doubts.items())
    at_once = "" if e.batch_size is None else f", explained {e.batch_size} at a time"
    lines = [f"photo {i}: {note}" for i, photo in enumerate(e.photos or ()) for note in photo.notes]
    closing = "".join(f"\n{line}" for line in (*lines, *e.beliefs, e.naming(), e.layer_trouble) if line)
    return f"{e.model}{layer}{at_once}\n{'; '.join(titles)}\n{maps}: {e.reached}{closing}"


def _of_several(e: Explanation, method: str) -> str:
    """Say for how many images the map is empty, or far weaker than others."""
    weak = sum(times is not None for times in e.weaker(method)) if e.scaling.origin == "own" else 0
    counts = {"empty": sum(e.empty(method)), f"over {TIMES_WEAKER} times weaker than the strongest": weak}
    return ", ".join(f"{words} for {count} of {len(e)} images" for words, count in counts.items() if count)
