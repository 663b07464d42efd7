"""A target decided once on the images as they are, which an audit then asks about whatever becomes of images and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from relume.engine.inputs import Model
from relume.engine.reading import Reading
from relume.engine.trace import Trace
from relume.errors import TargetError
from relume.explanation.request import Request
from relume.targets.base import Target, TargetLike
from relume.targets.conversion import as_target

__all__ = ["Parts", "freeze"]


class Parts(Target):
    """A target that was decided on parts of the images; only rows of one part can be asked."""

    def __init__(self, targets: Sequence[Target], size: int) -> None:
        """Keep the target of each part of ``size`` images."""
        self._targets, self._size = targets, size

    def scores(self, outputs: Any) -> Tensor:  # noqa: ARG002 - as every target has it
        """Refuse: the parts are asked one by one."""
        raise TargetError("the parts of a target are asked one by one")

    def rows(self, some: slice) -> Target:
        """Give the target for ``some`` of the images, which are in one part."""
        part, start = divmod(int(some.start), self._size)
        target: Target = self._targets[part].rows(slice(start, start + some.stop - some.start))
        return target

    def repeated(self, times: int) -> Target | None:
        """Give nothing: the parts are repeated one by one."""
        return self if times == 1 else None


def freeze(model: Model, images: Tensor, target: TargetLike, request: Request) -> Target:
    """Decide ``target`` on ``images``, as many at once as ``request`` says.

    Raises:
        TargetError: it does not fit the outputs, is inside the network, or counts on all images at once.
    """
    known = as_target(target).known(images.shape[2:], request.activation)
    known.check(len(images))
    if known.layer is not None or known.repeated(1) is None:
        raise TargetError(
            f"an audit asks about outputs of the network, for any number of images, and the target was {target!r}; "
            "give a class, or one of relume.targets that is no unit"
        )
    size = request.batch_size or len(images)
    reading, targets = Reading(output=request.output), list[Target]()
    for start in range(0, len(images), size):
        some = slice(start, start + size)
        targets.append(Trace.run(model, images[some], reading).score(known.rows(some)).target)
    return targets[0] if len(targets) == 1 else Parts(targets, size)
