"""The pixels of a class as a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target, is_index
from relume.targets.outputs import pixel_scores

__all__ = ["Segmentation"]


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation(Target):
    """The scores of a class summed over pixels: those of ``mask``, or those that the network itself gives to the class.

    Vinogradova et al. 2020, arXiv:2002.11434.

    Attributes:
        index: the class.
        mask: boolean, ``(H, W)`` or ``(N, H, W)``, of the size of the network's output; None for the predicted pixels.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[[[1.0, 1.0]], [[4.0, 0.0]]]])      # (1, 2 classes, 1, 2)
        >>> Segmentation(1).frozen(outputs, 1).scores(outputs)
        tensor([4.])
        >>> Segmentation(1, torch.ones(1, 2)).frozen(outputs, 1).scores(outputs)
        tensor([4.])
    """

    index: int
    mask: Tensor | None = None

    is_local = True

    def frozen(self, outputs: Any, count: int) -> Segmentation:
        """Decide the pixels.

        Raises:
            TargetError: no such class, a mask of another size, or no pixel at all.
        """
        scores = pixel_scores(outputs, count)
        known, size = scores.shape[1], tuple(scores.shape[2:])
        if not is_index(self.index):
            raise TargetError(f"a segmentation target is about one class, an index such as Segmentation(3); got {self.index!r}")
        if not 0 <= self.index < known:
            raise TargetError(f"class {self.index} is out of range: the network has {known} classes, 0 to {known - 1}")
        mask = scores.detach().argmax(1) == self.index if self.mask is None else torch.as_tensor(self.mask).bool()
        if tuple(mask.shape) not in (size, (count, *size)):
            raise TargetError(f"the mask has shape {tuple(mask.shape)}, and the network's output {size}; give one of that size")
        mask = mask.to(scores.device).expand(count, *size)
        if empty := [i for i, some in enumerate(mask.flatten(1).any(1).tolist()) if not some]:
            raise TargetError(f"no pixel of image {empty[0]} belongs to class {self.index} or its mask; give another")
        return Segmentation(self.index, mask)

    def scores(self, outputs: Any) -> Tensor:
        """Read the sum of each image's scores over its pixels, ``(N,)``."""
        assert self.mask is not None, "frozen before it is asked"
        scores = pixel_scores(outputs, len(self.mask))[:, self.index]
        # a product with booleans would be listed as a rectifier that somebody may have written by hand
        return (scores * self.mask.to(scores.dtype)).flatten(1).sum(1)

    def check(self, count: int) -> None:
        """Refuse ``count`` images if there is a mask for each of another number of them."""
        if self._of_each is not None and len(self._of_each) != count:
            raise TargetError(f"{len(self._of_each)} masks were given for {count} samples; give one, or one per sample")

    def rows(self, some: slice) -> Segmentation:
        """Give the pixels of ``some`` of the images."""
        return self if self._of_each is None else Segmentation(self.index, self._of_each[some])

    def repeated(self, times: int) -> Segmentation:
        """Give the pixels for the batch repeated so many ``times``."""
        return self if self._of_each is None else Segmentation(self.index, torch.as_tensor(self._of_each).repeat(times, 1, 1))

    @property
    def _of_each(self) -> Tensor | None:
        """The masks, if there is one for each image."""
        return self.mask if self.mask is not None and self.mask.ndim == 3 else None

    def __str__(self) -> str:
        return f"the pixels of class {self.index}"
