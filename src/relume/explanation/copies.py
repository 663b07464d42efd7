"""The maps of wrappers: copies of the images explained, several stacked into one batch, and summed up as they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TypeAlias

import torch
from torch import Tensor

from relume.engine.forward_pass import raised_by_network
from relume.engine.inputs import Inputs
from relume.engine.out_of_memory import out_of_memory
from relume.engine.trace import Score, Trace
from relume.errors import InputError
from relume.explanation.passes import check_finite, maps_of_score
from relume.explanation.request import Request, check_places
from relume.methods.base import Method
from relume.methods.gradients import Fuse
from relume.methods.wrapper import Copy, Moments, Wrapper
from relume.targets.base import Target

__all__ = ["CopiedRun", "Group", "Maps", "groups_of", "maps_of_copies", "maps_on_images"]

Maps: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Wrappers that share their forward passes: they are of one class, and equal but for the method inside."""

    wrappers: Sequence[Wrapper]

    @property
    def methods(self) -> list[Method]:
        """The methods inside, each once."""
        return list(dict.fromkeys(wrapper.inner for wrapper in self.wrappers))

    @property
    def has_copies(self) -> bool:
        """False if the wrappers explain the images themselves, which have run."""
        return type(self.wrappers[0]).copies is not Wrapper.copies

    def scores(self, trace: Trace, score: Score) -> list[Score]:
        """Decide, on the images themselves, which scores the wrappers explain in place of ``score``.

        Raises:
            TargetError: the wrappers' own target has a place, and their copies show it elsewhere.
        """
        targets = self.wrappers[0].targets(score.target, trace.outputs)
        check_places(targets, self.wrappers)
        return [score if target is score.target else trace.score(target) for target in targets]

    def reduced(self, moments: Sequence[Mapping[str, Moments]]) -> Maps:
        """Make the wrappers' maps of moments for each score, by the key of the method inside."""
        maps: Maps = {}
        for wrapper in self.wrappers:
            values = wrapper.reduce([of_score[wrapper.inner.key] for of_score in moments])
            maps |= {info.key: check_finite(info.key, value) for info, value in zip(wrapper.maps, values, strict=True)}
        return maps


def groups_of(wrappers: Sequence[Wrapper]) -> list[Group]:
    """Group wrappers by the settings that they share."""
    by_settings: dict[Hashable, list[Wrapper]] = defaultdict(list)
    for wrapper in wrappers:
        by_settings[wrapper.settings].append(wrapper)
    return [Group(alike) for alike in by_settings.values()]


def maps_on_images(
    group: Group, trace: Trace, scores: Sequence[Score], fuse: Fuse, known: Mapping[Score, Mapping[Method, Tensor]]
) -> Maps:
    """Compute the maps of wrappers that explain the images themselves, from the pass that ran; some scores' are ``known``."""
    moments: list[Mapping[str, Moments]] = [defaultdict(Moments) for _ in scores]
    for score, of_score in zip(scores, moments, strict=True):
        maps = {} if score in known else maps_of_score(trace, score, group.methods, fuse, last=False)
        for method in group.methods:
            of_score[method.key].add(Copy(trace.images), known[score][method] if score in known else maps[method.key])
    return group.reduced(moments)


@dataclass(frozen=True, slots=True, eq=False)
class CopiedRun:
    """Runs of copies in place of the images: the same targets, read at the same layers.

    Attributes:
        run: runs the network, as :meth:`relume.engine.trace.Trace.run` without its first argument.
        inputs: the inputs, of which copies replace the images.
        images: the images, ``(N, C, *spatial)``.
        request: the request, with the names of the layers that were read.
        limit: how many images run at once, at most, whatever the wrappers say; None for no limit.
    """

    run: Callable[..., Trace]
    inputs: Inputs
    images: Tensor
    request: Request
    limit: int | None

    def at_once(self, wrapper: Wrapper, targets: Sequence[Target]) -> int:
        """Count the copies in a batch: one where nothing tells how other inputs, or a callable's outputs, would follow."""
        alone = isinstance(self.inputs, Tensor) or len(self.inputs) == 1
        if not alone or any(target.repeated(1) is None for target in targets):
            return 1
        return max(1, min(wrapper.batch_size, self.limit or wrapper.batch_size) // len(self.images))

    def maps(self, copies: Sequence[Copy], targets: Sequence[Target], methods: Sequence[Method]) -> list[list[Maps]]:
        """Compute each copy's maps for each target; a network that takes one batch size only gets the copies one by one."""
        try:
            return self._together([copy.images for copy in copies], targets, methods)
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            size, own = copies[0].images.shape, self.images.shape
            if not raised_by_network(error) or out_of_memory(error) or (len(copies) == 1 and size == own):
                raise
            if len(copies) == 1:
                message = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"the network takes images of shape {tuple(own)} and fails on a copy of {tuple(size)} ({message}); "
                    "ask for no other size"
                ) from error
        return [maps for copy in copies for maps in self.maps([copy], targets, methods)]

    def _together(self, images: Sequence[Tensor], targets: Sequence[Target], methods: Sequence[Method]) -> list[list[Maps]]:
        repeated = [target.repeated(len(images)) or target for target in targets]
        trace = self.run(self.inputs, replace(self.request, targets=repeated), torch.cat([*images]))
        scores = [trace.score(target) for target in repeated]
        maps = [maps_of_score(trace, score, methods, self.request.fuse, last=score is scores[-1]) for score in scores]
        starts = range(0, len(trace.images), len(images[0]))
        return [[{key: m[i : i + len(images[0])] for key, m in of_score.items()} for of_score in maps] for i in starts]


def maps_of_copies(group: Group, targets: Sequence[Sequence[Target]], run: CopiedRun) -> list[Maps]:
    """Compute the maps of a group of wrappers from copies of the images.

    Args:
        group: the wrappers.
        targets: for each target of the call, the decided targets that the wrappers explain in its place.
        run: what runs the copies.

    Raises:
        InputError: the network does not take copies of their size.
    """
    flat = [target for replacing in targets for target in replacing]
    moments: list[Mapping[str, Moments]] = [defaultdict(Moments) for _ in flat]
    wrapper = group.wrappers[0]
    for copies in _batches(wrapper.copies(run.images), run.at_once(wrapper, flat)):
        for copy, of_copy in zip(copies, run.maps(copies, flat, group.methods), strict=True):
            for of_target, maps in zip(moments, of_copy, strict=True):
                for key, values in maps.items():
                    of_target[key].add(copy, values)
    rest = iter(moments)
    return [group.reduced([*islice(rest, len(replacing))]) for replacing in targets]


def _batches(copies: Iterator[Copy], most: int) -> Iterator[list[Copy]]:
    """Yield copies of one shape together, ``most`` at a time."""
    for _, alike in groupby(copies, lambda copy: copy.images.shape):
        while batch := list(islice(alike, most)):
            yield batch
