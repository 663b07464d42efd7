"""A batch explained some images at a time: because it was asked for, or because memory ran out.

Images, targets and other inputs are cut alike, each part is asked about as if it were all, and the answers are joined. What is
the same for all images stays the same for all parts: the layer chosen with the first, and the noise.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from relume.engine.coverage import Coverage, CoverageRow
from relume.engine.inputs import Inputs, entries_of
from relume.engine.out_of_memory import out_of_memory
from relume.errors import InputError
from relume.explanation.quick_checks import Evidence
from relume.explanation.result import Explanation
from relume.targets.base import TargetLike
from relume.targets.conversion import as_target

__all__ = ["in_chunks", "join", "join_coverage"]

T = TypeVar("T")
#: Asks about some of the inputs and their targets, given how many copies may run at once, at most, if anything limits them, and
#: the answer for the first part, if there is one.
Ask: TypeAlias = Callable[[Inputs, Sequence[TargetLike], "int | None", "T | None"], T]


def in_chunks(
    ask: Ask[T],
    inputs: Inputs,
    targets: Sequence[TargetLike],
    *,
    wrt: int | str | None = None,
    chunk: int | None = None,
    copies: int = 1,
    generators: Sequence[torch.Generator] = (),
) -> tuple[list[T], int | None]:
    """What ``ask`` says of ``inputs``, part by part, and how many images ran at once; None if they all did.

    Without a ``chunk``, all are asked about at once; where memory runs out, half as many, until they fit.

    Args:
        ask: what to ask.
        inputs: as for :meth:`relume.engine.trace.Trace.run`, as is ``wrt``.
        targets: for all images.
        wrt: which of the inputs holds the images.
        chunk: how many images run at once, at most.
        copies: how many copies of them run at once, at most, if nothing else limits them.
        generators: where ``ask`` draws from; each part draws the same.

    Raises:
        InputError: ``chunk`` is not positive.
        TargetError: a target is not for as many images.
    """
    _check(chunk)
    entries, which = entries_of(inputs, wrt)
    images = entries.get(which) if which is not None else None
    if not isinstance(images, Tensor) or images.ndim < 1 or len(images) == 0:
        return [ask(inputs, targets, None, None)], None  # which says what is wrong with them
    whole = max(len(images), copies)
    size, start, ran_out = min(chunk or whole, whole), 0, ""
    drawn = [generator.get_state() for generator in generators]
    answers: list[T] = []
    while start < len(images):
        for generator, state in zip(generators, drawn, strict=True):
            generator.set_state(state)
        try:
            part = (inputs, targets) if size >= len(images) else _cut(inputs, targets, slice(start, start + size), images)
            answers.append(ask(*part, None if size == whole else size, answers[0] if answers else None))
            start += size
            continue
        except Exception as error:
            if not out_of_memory(error) or chunk is not None or size == 1 or not all(map(_divisible, targets)):
                if note := _note(error, start, min(size, len(images)), chunk):
                    error.add_note(note)
                raise
            ran_out = "memory of the device" if isinstance(error, torch.OutOfMemoryError) else "memory"
            error.__traceback__ = None  # its frames hold the graph that did not fit, and somebody may hold the error
        gc.collect()  # a network that refers to itself may hold it still
        size //= 2
    if ran_out:
        warnings.warn(
            f"{ran_out} ran out on {whole} images at once, and they were explained {size} at a time; "
            f"give chunk={size} to begin with that",
            stacklevel=5,
        )
    return answers, None if size == whole else size


def _check(chunk: int | None) -> None:
    if chunk is not None and (type(chunk) is not int or chunk < 1):
        raise InputError(f"chunk is how many images run at once, one at least, or None for all; got {chunk!r}")


def _note(error: Exception, start: int, size: int, chunk: int | None) -> str:
    """What ``error`` cannot know: which images ran, and what can be done about memory."""
    if not out_of_memory(error):
        return f"(images are counted from image {start}: they were explained {size} at a time)" if start else ""
    if size == 1:
        return "(relume explained one image alone when memory ran out; give a smaller image, or fewer targets in a call)"
    if chunk is not None:
        return f"(relume explained {size} images at once, as chunk={chunk} says, when memory ran out; give a smaller chunk)"
    return (
        "(relume does not halve this batch by itself, since a callable target may count on all of its images; "
        f"give chunk={size // 2} if yours takes the outputs of any number of them)"
    )


# --- Cutting -------------------------------------------------------------------------------------------------------------


def _cut(inputs: Inputs, targets: Sequence[TargetLike], some: slice, images: Tensor) -> tuple[Inputs, Sequence[TargetLike]]:
    """The inputs and the targets for some of ``images``: of each tensor with a row for each image, theirs."""

    def rows(value: Any) -> Any:
        return tree_map_only(Tensor, lambda t: t[some] if t.ndim and len(t) == len(images) else t, value)

    asked = [as_target(target) for target in targets]
    for target in asked:
        target.check(len(images))
    asked = [target.rows(some) for target in asked]
    if isinstance(inputs, Mapping):
        return {key: rows(value) for key, value in inputs.items()}, asked
    return rows(inputs) if isinstance(inputs, Tensor) else [rows(value) for value in inputs], asked


def _divisible(target: TargetLike) -> bool:
    """Tell whether the target is known to mean the same in a part of the batch, which a callable is not."""
    return as_target(target).repeated(1) is not None


# --- Joining -------------------------------------------------------------------------------------------------------------


def join(parts: Sequence[Sequence[Explanation]], chunk: int | None) -> list[Explanation]:
    """Of explanations for each target of some images, those of all; ``source`` says how many ran at once, if not all did."""
    if chunk is None or not parts[0]:
        return list(parts[0])
    images = torch.cat([some[0].images for some in parts])  # the same of all targets
    return [_joined(of_one, images, chunk) for of_one in zip(*parts, strict=True)]


def _joined(parts: Sequence[Explanation], images: Tensor, chunk: int) -> Explanation:
    first = parts[0]

    def of(values: Sequence[Tensor | None]) -> Any:
        return None if values[0] is None else torch.cat([v for v in values if v is not None])

    return dataclasses.replace(
        first,
        maps={key: of([part[key] for part in parts]) for key in first.maps},
        images=images,
        **{key: of([getattr(part, key) for part in parts]) for key in ("target", "score", "scores", "versus")},
        coverage=join_coverage([part.coverage for part in parts]),
        evidence=_join_evidence([part.evidence for part in parts if part.evidence is not None]),
        remarks={key: tuple(words for part in parts for words in part.remarks[key]) for key in first.remarks},
        source={**first.source, "chunk": chunk},
    )


def join_coverage(parts: Sequence[Coverage]) -> Coverage:
    """What ran for any of them: of each kind the highest count, where the network does not do the same for all images."""
    counts = [Counter({(row.kind, row.guided, row.why): row.count for row in part.rows}) for part in parts]
    rows = functools.reduce(operator.or_, counts)
    return Coverage(tuple(CoverageRow(kind, count, guided, why) for (kind, guided, why), count in rows.items()))


def _join_evidence(parts: Sequence[Evidence]) -> Evidence | None:
    if not parts:
        return None
    edges = {key: tuple(v for part in parts for v in part.edges[key]) for key in parts[0].edges}
    if any(part.runner_up is None for part in parts):  # as for all of them at once, if it fails for one
        return Evidence(None, {}, edges)
    classes = {key: tuple(v for part in parts for v in part.classes[key]) for key in parts[0].classes}
    return Evidence(tuple(v for part in parts for v in part.runner_up or ()), classes, edges)
