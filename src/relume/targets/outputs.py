"""The outputs of a network: the tensors in them, and which of these holds the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from relume.errors import TargetError
from relume.targets.fitting import misfit

__all__ = ["candidates", "class_scores", "distinct", "embeddings", "pixel_scores", "single_values", "tensors_in", "the_one"]


def class_scores(outputs: Any, count: int) -> Tensor:
    """Find the ``(count, K)`` class scores in what a network returned: its ``logits`` if it names them, else the only ones.

    Raises:
        TargetError: nothing that was returned can be class scores, or several tensors can.
    """
    from relume.targets.boxes import detections_in

    tensors = distinct(outputs) if detections_in(outputs, count) is None else []  # boxes are no scores
    if tensors and (fitting := candidates(outputs, count, (2,))):
        return the_one(fitting, ("logits",), outputs)
    flat = [(name, t) for name, t in tensors if t.ndim == 2 and t.is_floating_point()]
    if flat and all(t.shape[1] for _, t in flat):
        raise TargetError(
            f"the network returned scores for {len(flat[0][1])} samples and was given {count}; "
            "pass a batch of shape (N, C, H, W)"
        )
    if flat:
        raise TargetError(f"the network returned {_listed(flat)}, which is no class at all; build it with one class or more")
    raise misfit("a class target needs class scores of shape (N, classes)", outputs, count)


def pixel_scores(outputs: Any, count: int) -> Tensor:
    """Find the ``(count, K, [D,] H, W)`` scores in what a network returned: its ``out`` or ``logits``, else the only ones.

    Raises:
        TargetError: nothing that was returned can be such scores, or several tensors can.
    """
    if fitting := candidates(outputs, count, (4, 5)):
        return the_one(fitting, ("out", "logits"), outputs)
    raise misfit("a segmentation target needs scores of shape (N, classes, H, W) or (N, classes, D, H, W)", outputs, count)


def single_values(outputs: Any, count: int | None = None) -> Tensor:
    """Find the one value for each image, ``(count,)``, in what a network returned as ``(count,)`` or ``(count, 1)``.

    Raises:
        TargetError: nothing that was returned is one value for each image, or several tensors are.
    """
    if fitting := [(name, t) for name, t in candidates(outputs, count, (1, 2)) if t.ndim == 1 or t.shape[1] == 1]:
        return the_one(fitting, ("logits",), outputs).reshape(-1)
    raise misfit("this target needs a head of one value, (N, 1)", outputs, count)


def embeddings(outputs: Any, count: int | None = None) -> Tensor:
    """Find the embedding of each image, ``(count, D)``: what the network calls so, else the only one.

    Raises:
        TargetError: nothing that was returned can be embeddings, or several tensors can.

    Example:
        >>> import torch
        >>> returned = {"logits_per_image": torch.rand(2, 2), "image_embeds": torch.rand(2, 8)}
        >>> embeddings(returned, 2).shape
        torch.Size([2, 8])
    """
    if fitting := candidates(outputs, count, (2,)):
        return the_one(fitting, ("image_embeds", "pooler_output", "embeddings", "embedding"), outputs)
    raise misfit("an embedding target needs an embedding of each image, (N, D)", outputs, count)


def candidates(outputs: Any, count: int | None, axes: Sequence[int]) -> list[tuple[str, Tensor]]:
    """List the floating-point tensors with so many ``axes`` and a row for each image, of any number of them if None."""
    return [
        (name, t)
        for name, t in distinct(outputs)
        if t.ndim in axes and t.is_floating_point() and count in (None, len(t)) and t.numel()
    ]


def the_one(fitting: Sequence[tuple[str, Tensor]], names: Sequence[str], outputs: Any) -> Tensor:
    """Find the tensor among those ``fitting`` that is called one of ``names``, the first name first; else the only one.

    Raises:
        TargetError: names do not settle it, and there are several.
    """
    for wanted in names:
        called = [tensor for name, tensor in fitting if name.rpartition(".")[2] == wanted]
        if len(called) == 1:
            return called[0]
    if len(fitting) == 1:
        return fitting[0][1]
    chosen = [key for key, part in _parts(outputs).items() if any(t is f for _, t in tensors_in(part) for _, f in fitting)]
    ways = [f"output={key!r}" for key in chosen] if len(chosen) > 1 else []
    ways += ["a callable that takes all of it, output=lambda returned: ..."] if len(chosen) < len(fitting) else []
    command = f" ({' or '.join(f'--scores {key}' for key in chosen)} in the command)" if len(chosen) > 1 else ""
    raise TargetError(
        f"the network returned {_listed(distinct(outputs))}, and {' and '.join(name for name, _ in fitting)} can each be the "
        f"scores; choose by {' or '.join(ways)}{command}"
    )


def distinct(outputs: Any) -> list[tuple[str, Tensor]]:
    """List the tensors in what a network returned; one that is returned twice is one."""
    tensors: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in tensors_in(outputs):
        tensors.setdefault(id(tensor), (name, tensor))
    return list(tensors.values())


def _listed(tensors: Iterable[tuple[str, Tensor]]) -> str:
    return ", ".join(f"{name or 'output'} {tuple(tensor.shape)}" for name, tensor in tensors)


def _parts(outputs: Any) -> dict[Any, Any]:
    """List what a collection that a network returned holds, by key, field or position; nothing for anything else."""
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type | Mapping):
        return {f.name: getattr(outputs, f.name) for f in dataclasses.fields(outputs)}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return dict(zip(outputs._fields, outputs, strict=True))
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return dict(enumerate(outputs)) if isinstance(outputs, list | tuple) else {}


def tensors_in(outputs: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """List every tensor in what a network returned, with the path to it, such as ``aux.logits`` or ``heads[0]``."""
    if isinstance(outputs, Tensor):
        yield name, outputs
    for key, value in _parts(outputs).items():
        position = isinstance(outputs, list | tuple) and isinstance(key, int)
        yield from tensors_in(value, f"{name}[{key}]" if position else f"{name}.{key}" if name else str(key))
