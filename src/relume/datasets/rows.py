"""Rows of items: the one pure function that every engine shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor

from relume.datasets.columns import THUMBNAIL, row_of, schema_of
from relume.datasets.contents import bytes_at
from relume.datasets.request import RunRequest
from relume.datasets.source import Item
from relume.errors import ImageError, UnreachableError
from relume.evaluation.masks import read_mask
from relume.explanation.result import Explanation
from relume.measures.localisation import Truth
from relume.methods.wrapper import rewinding
from relume.models.labels import class_index
from relume.models.opened import Opened
from relume.models.photos import in_batches
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["Batch", "Loaded", "Results", "at_once", "explained", "explained_rows", "rows_of", "small"]

#: A picture, or the path of one; or a picture with the network's input, as :meth:`relume.models.Opened.input_of` returns them;
#: or the error that came instead.
Loaded: TypeAlias = "Photo | Recording | Path | tuple[Photo | Recording, Tensor] | Exception"

#: Rows of a manifest, each with its picture.
Batch: TypeAlias = "Sequence[tuple[Item, Loaded]]"


def small(photo: Photo | Recording) -> Photo | Recording:
    """Return all that a row needs of a photo that was prepared: no more pixels than its thumbnail, and not its file."""
    return replace(photo.fitted(THUMBNAIL), content=None) if isinstance(photo, Photo) else photo


class _Ready(NamedTuple):
    """An item ready to be explained: its photo, its input, its own target, and where the thing is in the input."""

    input: tuple[Photo | Recording, Tensor]
    target: int | None
    truth: Truth | None


#: What became of each item of a batch, in order: what it was explained with and its explanation, or its error.
Results: TypeAlias = Sequence["tuple[_Ready, Explanation] | Exception"]


def explained_rows(opened: Opened, batch: Batch, request: RunRequest) -> pa.Table:
    """Explain the items of a batch together, and return a row for each, in order, with :func:`schema_of` the request.

    An item that was not read, or that cannot be explained, is a row with its sentence in ``error``, never an exception. A batch
    that fails is explained again one by one; where memory runs out it is explained in halves, with a warning. The same batch
    gives the same rows: generators of wrappers are left as they were.

    Args:
        opened: the network, prepared or not.
        batch: rows of a manifest, each with its picture.
        request: what is asked of each.

    Raises:
        UnreachableError: the place where the masks are does not answer.

    Example:
        >>> import relume
        >>> from relume.datasets import RunRequest, explained_rows
        >>> from relume.demo import draw_scene
        >>> item = {"id": "0", "path": None, "label": "cat", "target": "cat", "mask": None}
        >>> photo = draw_scene(7, ["cat", "dog"]).picture
        >>> batch = [(item, relume.pictures.Photo.whole(photo)), (item | {"id": "1"}, ValueError("no picture"))]
        >>> table = explained_rows(relume.open_model("demo", "cpu"), batch, RunRequest(methods=["gradcam"]))
        >>> table.select(["id", "class_name", "error"]).to_pylist()[1]
        {'id': '1', 'class_name': None, 'error': 'no picture'}
    """
    return rows_of(batch, explained(opened, batch, request), request)


def explained(opened: Opened, batch: Batch, request: RunRequest) -> Results:
    """Explain the items of a batch, without making rows; the tensors of the results are on the CPU."""
    results: dict[int, tuple[_Ready, Explanation] | Exception] = {}
    rewind = rewinding(request.methods)

    def ready(i: int) -> _Ready:
        return _ready(opened, *batch[i])

    def run(group: Sequence[_Ready]) -> list[tuple[_Ready, Explanation]]:
        rewind()
        return [*zip(group, _explained(opened, group, request), strict=True)]

    by_owner: dict[bool, list[int]] = {}  # targets of their own, or that of the run: these are not asked in one call
    for i, (item, _) in enumerate(batch):
        by_owner.setdefault(item.get("target") is None, []).append(i)
    for indices in by_owner.values():
        results |= dict(in_batches(indices, len(indices), ready, run))
    rewind()
    if gone := next((result for result in results.values() if isinstance(result, UnreachableError)), None):
        raise gone
    return [results[i] for i in range(len(batch))]


def at_once(results: Results, batch_size: int) -> int:
    """Return how many images memory suffices for: ``batch_size``, or less if it ran out on these."""
    sizes = (result[1].batch_size for result in results if not isinstance(result, Exception))
    return min([batch_size, *(size for size in sizes if size is not None)])


def rows_of(batch: Batch, results: Results, request: RunRequest) -> pa.Table:
    """Make rows of the results of :func:`explained`, in any thread."""
    rows = [_row(item, result, request) for (item, _), result in zip(batch, results, strict=True)]
    return pa.Table.from_pylist(rows, schema=schema_of(request))


def _ready(opened: Opened, item: Item, loaded: Loaded) -> _Ready:
    """Prepare one item, or raise the reason why it cannot be explained."""
    if isinstance(loaded, Exception):
        raise loaded
    ready = loaded if isinstance(loaded, tuple) else opened.input_of(loaded)
    target, mask = item.get("target"), item.get("mask")
    return _Ready(
        ready,
        None if target is None else class_index(target, opened.labels),
        None if mask is None else _truth(opened, ready[0], mask),
    )


def _truth(opened: Opened, photo: Photo | Recording, mask: str) -> Truth:
    """Read a mask as the network sees it."""
    if isinstance(photo, Recording):
        raise ImageError(f"the mask {mask!r} is of a {photo.kind}, and only masks of photos are measured; leave it out")
    if photo.orientation != 1:
        raise ImageError(
            f"the photo of the mask {mask!r} is to be turned (EXIF orientation {photo.orientation}); save both upright"
        )
    whole = read_mask(mask, photo.original or photo.picture.size, content=bytes_at(mask))
    seen = np.asarray(opened.preprocessing.view(Image.fromarray(whole)))  # Pillow never blends one bit
    if not seen.any():
        raise ImageError(f"{mask!r}: nothing of what the mask shows is in the part that the network sees; leave it out")
    return Truth(seen, seen)


def _explained(opened: Opened, group: Sequence[_Ready], request: RunRequest) -> Explanation:
    """Explain a group in one forward pass; its tensors are on the CPU then, moved there together."""
    owned = [one.target for one in group if one.target is not None]
    inputs = [one.input for one in group]
    (e,) = opened.compare_inputs(inputs, [owned or request.target], request.methods, request.layer, **request.options)
    tensors = {
        name: value.cpu()
        for name in ("images", "target", "score", "scores", "versus")
        if (value := getattr(e, name)) is not None
    }
    maps = {key: values.float().cpu() for key, values in e.maps.items()}
    return replace(e, maps=maps, **tensors, strongest=dict.fromkeys(maps, 0.0))  # each is as if it were alone


def _row(item: Item, result: tuple[_Ready, Explanation] | Exception, request: RunRequest) -> dict[str, Any]:
    """Make the row of an item, of its explanation or its error."""
    row = {name: item.get(name) for name in ("id", "path", "label")}
    if not isinstance(result, Exception):
        try:
            return row | row_of(result[1], request, result[0].truth)
        except Exception as error:  # noqa: BLE001 - a picture that cannot be drawn stops no other
            result = error
    return row | {"error": first_line(result)}
