"""The pixels of a class as a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.activation import Activation, last_activation
from relume.targets.base import Target, is_index, named
from relume.targets.fitting import check_class, check_count
from relume.targets.outputs import pixel_scores

__all__ = ["Segmentation"]


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation(Target):
    """The scores of a class summed over a region: a given one, or the one that the network itself gives to the class.

    Vinogradova et al. 2020, arXiv:2002.11434. Pictures ``(N, classes, H, W)`` and volumes ``(N, classes, D, H, W)``. A network
    of one class gives it the pixels whose score is above 0, or above 0.5 where a sigmoid made it.

    Attributes:
        index: the class.
        region: boolean, ``(H, W)`` or ``(N, H, W)``, with D before H in a volume, of the size of the network's output; None for
            the predicted region.
        axes: how many spatial axes the images have; found from them.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[[[1.0, 1.0]], [[4.0, 0.0]]]])      # (1, 2 classes, 1, 2)
        >>> Segmentation(1).frozen(outputs, 1).scores(outputs)
        tensor([4.])
        >>> Segmentation(1, torch.tensor([[False, True]])).frozen(outputs, 1).scores(outputs)
        tensor([0.])
    """

    index: int
    region: Tensor | None = None
    axes: int = field(default=2, kw_only=True, repr=False)

    is_local = True
    has_class_scores = False

    def known(self, size: Sequence[int], activation: Activation) -> Segmentation:
        """Give the target that knows whether a region of three axes is a volume, or a picture for each image."""
        return replace(self, axes=len(size))

    def frozen(self, outputs: Any, count: int) -> Segmentation:
        """Decide the region.

        Raises:
            TargetError: no such class, a region of another size, or no pixel at all.
        """
        if not is_index(self.index):
            raise TargetError(f"a segmentation target is about one class, an index such as Segmentation(3); got {self.index!r}")
        scores = pixel_scores(outputs, count)
        check_class(self.index, scores.shape[1])
        size = tuple(scores.shape[2:])
        region = self._predicted(scores) if self.region is None else _as_region(self.region)
        if tuple(region.shape) not in (size, (count, *size)):
            raise TargetError(
                f"the region has shape {tuple(region.shape)}, and the network's output {size}; give one of that size"
            )
        region = region.to(scores.device).expand(count, *size)
        if empty := [i for i, some in enumerate(region.flatten(1).any(1).tolist()) if not some]:
            predicted = sorted(set(scores[empty[0]].detach().argmax(0).flatten().tolist()))
            raise TargetError(
                f"no pixel of image {empty[0]} belongs to class {self.index} or its region; the network gives pixels to "
                f"{', '.join(map(str, predicted))}"
            )
        return replace(self, region=region, axes=len(size))

    def _predicted(self, scores: Tensor) -> Tensor:
        """Find the pixels that the network gives to the class, ``(N, *spatial)``."""
        if scores.shape[1] == 1:
            return scores.detach()[:, 0] > (0.5 if last_activation(scores) == "sigmoid" else 0)
        return scores.detach().argmax(1) == self.index

    def scores(self, outputs: Any) -> Tensor:
        """Compute the sum of each image's scores over its region, ``(N,)``."""
        assert self.region is not None, "frozen before it is asked"
        scores = pixel_scores(outputs, len(self.region))[:, self.index]
        # a product with booleans would be listed as a rectifier that somebody may have written by hand
        return (scores * self.region.to(scores.dtype)).flatten(1).sum(1)

    def by_class(self, outputs: Any) -> Tensor:
        """Compute the sums of all classes over the same region, ``(N, classes)``."""
        assert self.region is not None, "frozen before it is asked"
        scores = pixel_scores(outputs, len(self.region))
        return (scores * self.region[:, None].to(scores.dtype)).flatten(2).sum(2)

    def check(self, count: int) -> None:
        """Refuse ``count`` images if there is a region for each of another number of them."""
        if self.region is not None and self._has_rows:
            check_count(self.region, "regions", count)

    def rows(self, some: slice) -> Segmentation:
        """Give the region of ``some`` of the images."""
        return replace(self, region=self.region[some]) if self._has_rows else self  # type: ignore[index]

    def repeated(self, times: int) -> Segmentation:
        """Give the region for the batch repeated so many ``times``."""
        if not self._has_rows:
            return self
        region = _as_tensor(self.region)
        return replace(self, region=region.repeat(times, *[1] * (region.ndim - 1)))

    @property
    def _has_rows(self) -> bool:
        """True if there is a region for each image."""
        return self.region is not None and _as_tensor(self.region).ndim > self.axes

    @property
    def classes(self) -> Tensor | None:
        """The class, once for each image, ``(N,)`` int64, once frozen."""
        return torch.full((len(self.region),), self.index) if self._has_rows else None  # type: ignore[arg-type]

    def words(self, image: int, labels: Sequence[str] | None) -> str:
        """Say which class, and how many pixels."""
        assert self.region is not None, "frozen before it is asked"
        return f"{named(self.index, labels)} in {int(self.region[image].sum()):,} pixels"

    def __str__(self) -> str:
        return f"the pixels of class {self.index}"


def _as_region(region: Any) -> Tensor:
    """Read a region of two values, such as a mask of 0 and 255, as booleans.

    Raises:
        TargetError: it has more, such as a map of classes or of probabilities, of which any threshold would be a guess.
    """
    values = _as_tensor(region)
    if values.dtype != torch.bool and len(several := torch.unique(values)) > 2:
        raise TargetError(f"a region is boolean, this one has {len(several)} different values; compare it, as in region > 0.5")
    return values.bool()


def _as_tensor(region: Any) -> Tensor:
    try:
        return torch.as_tensor(region)
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(f"a region is a tensor of booleans, (H, W) or (N, H, W); got a {type(region).__name__}") from None
