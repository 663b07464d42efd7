"""Inputs explained some images at a time: because the caller wants it, or because memory ran out.

Images, targets and other inputs are cut alike, each part is explained as if it were all, and the results are joined.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import operator
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relume.engine.coverage import Coverage
from relume.engine.inputs import Inputs, entries_of
from relume.engine.out_of_memory import out_of_memory
from relume.engine.trees import tree_map_only
from relume.explanation.quick_checks import Evidence
from relume.explanation.request import Request
from relume.explanation.result import Explanation
from relume.methods.wrapper import rewinding
from relume.targets.base import Target
from relume.targets.conversion import as_target

__all__ = ["Batches", "Part", "join", "join_coverage", "warn"]

#: Files whose lines are not the caller's: this package, and what its decorators are made of.
_INSIDE = (str(Path(__file__).parents[1]), contextlib.__file__)


class Part(NamedTuple):
    """Some of the inputs, their targets, and how many images may run at once, copies included; None for no limit."""

    inputs: Inputs
    targets: Sequence[Target]
    limit: int | None


class Batches:
    """The parts that inputs are explained in, one after the other; where memory runs out, parts of half the size.

        for part in batches:
            try:
                results.append(explained(part))
                batches.advance()
            except Exception as error:
                batches.halve(error)

    Without a ``batch_size`` all images are one part. Each part begins with the same state of the wrappers' generators.
    """

    def __init__(self, inputs: Inputs, request: Request) -> None:
        """Find out how many images there are.

        Raises:
            InputError: the inputs are none.
        """
        self._inputs, self._request = inputs, request
        self._start, self._ran_out = 0, ""
        self._images = _images(inputs, request.wrt)
        size = () if self._images is None else self._images.shape[2:]
        self._targets = [as_target(target).known(size, request.activation) for target in request.targets]
        self._count = 1 if self._images is None else len(self._images)
        self._whole = max([self._count, *(wrapper.batch_size for wrapper in request.wrappers)])
        self._size = min(request.batch_size or self._whole, self._whole)
        self._rewind = rewinding(request.wrappers)

    @property
    def limit(self) -> int | None:
        """The number of images that run at once, copies included; None for all of them."""
        return None if self._size == self._whole or self._images is None else self._size

    def __iter__(self) -> Iterator[Part]:
        """Yield one part after the other, until all images are explained."""
        while self._start < self._count:
            self._rewind()
            yield self._part()
        if self._ran_out:
            warn(
                f"{self._ran_out} ran out on {self._whole} images at once, and they were explained {self._size} at a time; "
                f"give batch_size={self._size} to begin with that"
            )

    def _part(self) -> Part:
        if self._images is None or self._size >= self._count:
            return Part(self._inputs, self._targets, self.limit)
        for target in self._targets:
            target.check(self._count)
        some = slice(self._start, self._start + self._size)
        return Part(_cut(self._inputs, some, self._count), [target.rows(some) for target in self._targets], self.limit)

    def advance(self) -> None:
        """Go on to the next part."""
        self._start += self._size

    def halve(self, error: Exception) -> None:
        """Halve the parts after ``error``, if memory ran out and smaller ones are allowed; else raise it, with a note."""
        fixed = not out_of_memory(error) or self._request.batch_size is not None or self._size == 1
        if fixed or any(target.repeated(1) is None for target in self._targets):
            if note := self._note(error):
                error.add_note(note)
            raise error
        self._ran_out = "memory of the device" if isinstance(error, torch.OutOfMemoryError) else "memory"
        error.__traceback__ = None  # its frames hold the graph that did not fit, and somebody may hold the error
        gc.collect()  # a network that refers to itself may hold it still
        self._size //= 2

    def _note(self, error: Exception) -> str:
        """Write what ``error`` cannot know: which images ran, and what can be done about memory."""
        size, batch_size = min(self._size, self._count), self._request.batch_size
        if not out_of_memory(error):
            return f"(images are counted from image {self._start}: they were explained {size} at a time)" if self._start else ""
        if size == 1:
            return "(relume explained one image alone when memory ran out; give a smaller image, or fewer targets in a call)"
        if batch_size is not None:
            return f"(relume explained {size} images at once when memory ran out; give a smaller batch_size than {batch_size})"
        return (
            "(relume does not halve this batch by itself, since a callable target may count on all of its images; "
            f"give batch_size={size // 2} if yours takes the outputs of any number of them)"
        )


def _images(inputs: Inputs, wrt: int | str | None) -> Tensor | None:
    """Find the explained input; None if it is none, for which the run has an error."""
    entries, which = entries_of(inputs, wrt)
    images = entries.get(which) if which is not None else None
    return images if isinstance(images, Tensor) and images.ndim > 0 and len(images) > 0 else None


def _cut(inputs: Inputs, some: slice, count: int) -> Inputs:
    """Cut the inputs for some of ``count`` images: of each tensor with a row for each image, theirs."""

    def rows(value: Any) -> Any:
        return tree_map_only(Tensor, lambda t: t[some] if t.ndim and len(t) == count else t, value)

    if isinstance(inputs, Mapping):
        return {key: rows(value) for key, value in inputs.items()}
    return rows(inputs) if isinstance(inputs, Tensor) else [rows(value) for value in inputs]


def warn(message: str) -> None:
    """Warn in the name of the line that called this package, however deep inside it was noticed."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


# --- Joining -------------------------------------------------------------------------------------------------------------


def join(parts: Sequence[Sequence[Explanation]], batch_size: int | None) -> list[Explanation]:
    """Join explanations of parts, each for every target, into one for every target; ``batch_size`` images ran at once."""
    if batch_size is None or not parts[0]:
        return list(parts[0])
    images = torch.cat([part[0].images for part in parts])  # the same of all targets
    return [_joined(of_target, images, batch_size) for of_target in zip(*parts, strict=True)]


def _joined(parts: Sequence[Explanation], images: Tensor, batch_size: int) -> Explanation:
    first = parts[0]

    def joined(values: Sequence[Tensor | None]) -> Any:
        return None if values[0] is None else torch.cat([v for v in values if v is not None])

    return replace(
        first,
        maps={key: joined([part[key] for part in parts]) for key in first.maps},
        images=images,
        **{key: joined([getattr(part, key) for part in parts]) for key in ("target", "score", "scores", "versus")},
        coverage=join_coverage([part.coverage for part in parts]),
        description=None if first.description is None else tuple(words for part in parts for words in part.description or ()),
        evidence=_join_evidence([part.evidence for part in parts if part.evidence is not None]),
        remarks={key: tuple(words for part in parts for words in part.remarks[key]) for key in first.remarks},
        batch_size=batch_size,
    )


def join_coverage(parts: Sequence[Coverage]) -> Coverage:
    """Join what ran: of each kind the highest count, where the network does not do the same for all images."""
    counts = [Counter({(row.kind, row.guided, row.why): row.count for row in part.rows}) for part in parts]
    rows = functools.reduce(operator.or_, counts)
    places: dict[str, dict[str, None]] = {}
    for row in (row for part in parts for row in part.rows if row.places):
        places.setdefault(row.kind, {}).update(dict.fromkeys(row.places))
    return Coverage.of(rows, places)


def _join_evidence(parts: Sequence[Evidence]) -> Evidence | None:
    if not parts:
        return None
    if any(part.runner_up is None for part in parts):  # as for all of them at once, if it fails for one
        parts = [Evidence(None, {}, {}, part.edges) for part in parts]
    kinds = {
        name: {key: tuple(v for part in parts for v in part.kinds[name][key]) for key in kind}
        for name, kind in parts[0].kinds.items()
    }
    runner_up = None if parts[0].runner_up is None else tuple(v for part in parts for v in part.runner_up or ())
    return Evidence(runner_up, **kinds)
