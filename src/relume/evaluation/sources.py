"""The sources that samples come from, and the words that name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from relume.errors import InputError
from relume.evaluation.masks import masks
from relume.evaluation.mosaics import mosaics
from relume.evaluation.samples import Loader
from relume.evaluation.scenes import scenes
from relume.registry import Registry

if TYPE_CHECKING:
    from relume.models.opened import Opened

__all__ = ["SOURCES", "Samples", "Source", "open_samples"]


class Samples(Iterable[Loader], Sized, Protocol):
    """A known number of functions that load a sample each; such as a list of them.

    Example:
        A list of functions will do:

        >>> import relume
        >>> from relume.demo import draw_scene
        >>> from relume.evaluation import sample_of
        >>> demo = relume.open_model("demo")
        >>> def load():
        ...     scene = draw_scene(7, ["cat", "dog"])
        ...     return sample_of("scene 7", scene.picture, [(index, scene.mask(index)) for index in scene.classes], demo)
        >>> samples = [load]
        >>> samples[0]().name
        'scene 7'
    """


#: A function that opens samples, of the text after the colon, an opened network, and a seed.
Source: TypeAlias = "Callable[[str, Opened, int], Samples]"

#: The sources by name; ``SOURCES["mine"] = ...`` adds one, for ``mine:REST``.
SOURCES: Registry[Source] = Registry(
    "source of samples", "relume.samples", {"scenes": scenes, "masks": masks, "mosaics": mosaics}
)


def open_samples(spec: str | Path, opened: Opened, seed: int = 0) -> Samples:
    """Open the samples that ``spec`` names: functions that load one each.

    Args:
        spec: ``scenes`` or ``scenes:NUMBER``, drawn scenes for a network that knows their classes, as the demo network does;
            ``masks:FOLDER``, or a folder alone, photos with the list of their masks, ``masks.csv``; ``mosaics:FOLDER``, mosaics
            of photos, whose truth is the cell that a class came from; or another of
            :data:`SOURCES`.
        opened: the network that they are for.
        seed: chooses the samples, if a source draws them.

    Raises:
        InputError: ``spec`` names no source and no folder, or what it names cannot be used.

    Example:
        >>> import relume
        >>> from relume.evaluation import open_samples
        >>> first, second = (load() for load in open_samples("scenes:2", relume.open_model("demo")))
        >>> first.image.shape, len(first.targets)
        (torch.Size([3, 128, 128]), 3)
    """
    name, _, rest = str(spec).partition(":")
    if isinstance(spec, Path) or (name not in SOURCES and Path(spec).is_dir()):
        name, rest = "masks", str(spec)
    if name not in SOURCES.names():
        raise InputError(
            f"{spec!r} is no folder, and no source of samples; write one of {', '.join(SOURCES.names())} before a :"
        )
    return SOURCES[name](rest, opened, seed)
