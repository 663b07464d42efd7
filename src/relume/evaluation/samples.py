"""Images whose truth is known: what methods are evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from relume.errors import ImageError, InputError
from relume.measures.localisation import Mask
from relume.targets.base import Target

if TYPE_CHECKING:
    from relume.models.opened import Opened

__all__ = ["Loader", "Sample", "sample_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image with its truth.

    Attributes:
        name: its name in messages.
        image: the network's input, ``(C, *spatial)``.
        targets: the pixels of each class to explain, ``(*spatial)``, by the class; or by another target, such as
            ``relume.targets.Segmentation(15)``.
        things: the pixels of anything, ``(*spatial)``; without them, those of all targets.

    Raises:
        InputError: no class to explain, or a mask of another size than the image, or an empty one.

    Example:
        >>> import numpy as np, torch
        >>> from relume.evaluation import Sample
        >>> cat = np.zeros((32, 32), dtype=bool)
        >>> cat[4:20, 8:30] = True
        >>> sample = Sample("a cat", torch.rand(3, 32, 32), {4: cat})
        >>> int(sample.things.sum())
        352
    """

    name: str
    image: Tensor
    targets: Mapping[int | Target, Mask]
    things: Mask = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError(f"the sample {self.name!r} has no class to explain; give at least one")
        # masks of integers would pick rows instead of pixels
        targets = {index: np.asarray(mask).astype(bool) for index, mask in self.targets.items()}
        size = tuple(self.image.shape[1:])
        things = np.asarray(self.things).astype(bool)
        if not things.size:
            things = np.logical_or.reduce([*targets.values()])
        for mask in (*targets.values(), things):
            if mask.shape != size or not mask.any():
                problem = f"shape {mask.shape}" if mask.shape != size else "no pixel"
                raise InputError(
                    f"a mask of the sample {self.name!r} has {problem}, and the image is {size}; give one that fits"
                )
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "things", things)


#: A function that loads a sample: if it fails, all others are still evaluated.
Loader: TypeAlias = Callable[[], Sample]


def sample_of(name: str, picture: Image.Image, masks: Sequence[tuple[int | None, Mask]], opened: Opened) -> Sample:
    """Make a sample of a picture, as the network sees it.

    Args:
        name: its name in messages.
        picture: of any size.
        masks: pixels of the picture, each with the class they show, or None for a thing that is only there.
        opened: the network with its preprocessing.

    Raises:
        ImageError: no class to explain is left in what the network sees.

    Example:
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> from relume.evaluation import sample_of
        >>> scene = draw_scene(7, ["cat", "dog"])
        >>> masks = [(index, scene.mask(index)) for index in scene.classes]
        >>> sample = sample_of("scene 7", scene.picture, masks, relume.open_model("demo"))
        >>> sample.image.shape, list(sample.targets) == list(scene.classes)
        (torch.Size([3, 128, 128]), True)
    """
    view = opened.preprocessing.view
    visible = [(index, np.asarray(view(Image.fromarray(mask)))) for index, mask in masks]  # Pillow never blends one bit
    targets: dict[int | Target, Mask] = {}
    for index, mask in visible:
        if index is not None and mask.any():
            targets[index] = targets[index] | mask if index in targets else mask
    if not targets:
        raise ImageError(f"{name!r}: nothing of what its masks show is in the part that the network sees; leave it out")
    return Sample(name, opened.input_of(picture)[1], targets, np.logical_or.reduce([mask for _, mask in visible]))
