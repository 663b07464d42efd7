"""The maps of wrappers: their copies explained, several stacked into one batch, and summed up as they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import TypeAlias

from torch import Tensor

from relume.engine.forward_pass import raised_by_network
from relume.engine.out_of_memory import out_of_memory
from relume.errors import InputError, TargetError
from relume.methods.base import Method
from relume.methods.wrapper import AnyMethod, Copy, Moments, Wrapper
from relume.targets.base import TargetLike
from relume.targets.conversion import as_target

__all__ = ["check_places", "repeat"]

Maps: TypeAlias = dict[str, Tensor]
#: Each copy's maps for each target, of copies of one shape by methods.
Ask: TypeAlias = Callable[[Sequence[Tensor], Sequence[Method]], list[list[Maps]]]


def check_places(methods: Iterable[AnyMethod], targets: Iterable[TargetLike]) -> None:
    """Refuse a target that means something else in the copies.

    Raises:
        TargetError: a target has a place, and the copies of a wrapper show it elsewhere.
    """
    placed = [type(target).__name__ for target in targets if as_target(target).is_local]
    moving = [type(method).__name__ for method in methods if isinstance(method, Wrapper) and method.moves]
    if placed and moving:
        raise TargetError(
            f"{moving[0]} shows things in other places, and {placed[0]} asks about one; "
            "explain a class or a channel, or use Smooth"
        )


def repeat(wrappers: Sequence[Wrapper], images: Tensor, ask: Ask, *, stackable: bool, limit: int | None = None) -> list[Maps]:
    """Compute the maps of ``wrappers`` for each target; ``ask`` explains copies, several in one batch if ``stackable``.

    No more than ``limit`` images run at once then, whatever the wrappers say.

    Raises:
        InputError: the network does not take copies of their size.
    """
    groups: dict[Hashable, list[Wrapper]] = defaultdict(list)
    for wrapper in wrappers:
        groups[wrapper.settings].append(wrapper)
    maps: dict[int, Maps] = defaultdict(dict)
    for group in groups.values():
        at_once = min(group[0].batch_size, limit or group[0].batch_size)
        most = max(1, at_once // len(images)) if stackable else 1
        for i, moments in _moments(group, images, ask, most).items():
            for wrapper in group:
                keys = [info.key for info in wrapper.maps]
                maps[i].update(zip(keys, wrapper.reduce([moments[wrapper.inner.key]]), strict=True))
    return list(maps.values())


def _moments(group: Sequence[Wrapper], images: Tensor, ask: Ask, most: int) -> dict[int, dict[str, Moments]]:
    """Sum up the copies' maps by target and by the key of the method inside; ``most`` copies run at once."""
    methods = list(dict.fromkeys(wrapper.inner for wrapper in group))
    moments: dict[int, dict[str, Moments]] = defaultdict(lambda: defaultdict(Moments))
    for copies in _batches(group[0].copies(images), most):
        for copy, answer in zip(copies, _answers(copies, methods, images, ask), strict=True):
            for i, maps in enumerate(answer):
                for key, values in maps.items():
                    moments[i][key].add(copy, values)
    return moments


def _batches(copies: Iterator[Copy], most: int) -> Iterator[list[Copy]]:
    """Yield copies of one shape together, ``most`` at a time."""
    for _, alike in groupby(copies, lambda copy: copy.images.shape):
        while batch := list(islice(alike, most)):
            yield batch


def _answers(copies: Sequence[Copy], methods: Sequence[Method], images: Tensor, ask: Ask) -> list[list[Maps]]:
    """Compute each copy's maps for each target; a network that takes one batch size only gets the copies one by one."""
    try:
        return ask([copy.images for copy in copies], methods)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        size = copies[0].images.shape
        if not raised_by_network(error) or out_of_memory(error) or (len(copies) == 1 and size == images.shape):
            raise
        if len(copies) == 1:
            message = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"the network takes images of shape {tuple(images.shape)} and fails on a copy of {tuple(size)} ({message}); "
                "ask for no other size"
            ) from error
    return [answer for copy in copies for answer in _answers([copy], methods, images, ask)]
