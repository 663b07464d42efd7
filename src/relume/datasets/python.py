"""Data sets in Python: whatever has a length and gives an item for a number, such as ``torch.utils.data.Dataset``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from relume.datasets.manifest import manifest_of
from relume.datasets.source import Item, Source
from relume.errors import ImageError, InputError
from relume.models.photos import as_input
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["Indexed", "of_dataset"]


@dataclass(frozen=True, eq=False)
class Indexed(Source):
    """A data set in Python.

    Attributes:
        spec: its name.
        dataset: gives an item for each number from 0 on.
        labels: the label of each item; None if nobody knows them before the items are read.
    """

    spec: str
    dataset: Any
    labels: Sequence[Any] | None = None

    def manifest(self) -> pa.Table:
        """List the items by their numbers, which are in the column ``index``, without reading one.

        Raises:
            InputError: there is none.
        """
        return manifest_of(self._rows(), [pa.field("index", pa.int64())], empty=f"the data set {self.spec!r} has no items")

    def _rows(self) -> Iterator[Item]:
        for index in range(len(self.dataset)):
            label = None if self.labels is None else self.labels[index]
            yield {"id": str(index), "index": index, "label": None if label is None else str(label)}

    def read(self, item: Item) -> Photo | Recording:
        """Read an item; of a pair, the first.

        Raises:
            ImageError: it is no picture, or the data set raises an error.
        """
        place = f"item {item['index']} of {self.spec!r}"
        try:
            value = self.dataset[item["index"]]
        except Exception as error:  # the user's code raises what it likes
            raise ImageError(f"{place} cannot be read: {first_line(error)}") from error
        picture = value[0] if isinstance(value, tuple | list) and value else value
        try:
            return as_input(picture)
        except ImageError as error:
            hint = "; leave out its transform, since relume preprocesses by itself" if hasattr(picture, "shape") else ""
            raise ImageError(f"{place}: {error}{hint}") from error


def of_dataset(dataset: Any, spec: str | None = None, *, labels: Sequence[Any] | None = None) -> Source:
    """Make a source of a data set in Python, such as a ``torch.utils.data.Dataset``.

    Args:
        dataset: has a length, and for each number from 0 on a PIL image, a path, a :class:`~relume.pictures.Photo` or a
            :class:`~relume.pictures.Recording`, or a pair of one and its label. Other processes read from it only if it can
            be pickled.
        spec: its name; if None, that of its class.
        labels: a label for each item, as the label in a pair is known only after its picture was read; if None, those that
            data sets of torchvision have in ``targets``, and in ``classes`` their names.

    Raises:
        InputError: it has no length, gives no items by number, or ``labels`` are more or fewer than the items.

    Example:
        >>> from PIL import Image
        >>> from relume.datasets import of_dataset
        >>> source = of_dataset([Image.new("RGB", (40, 30))] * 3, labels=["cat", "dog", "cat"])
        >>> source.manifest().select(["id", "label", "index"]).to_pylist()[1]
        {'id': '1', 'label': 'dog', 'index': 1}
        >>> source.read({"index": 1}).picture.size
        (40, 30)
    """
    name = type(dataset).__name__ if spec is None else spec
    try:
        length = len(dataset)
        dataset.__getitem__  # noqa: B018 - to see that there is one
    except (AttributeError, TypeError):
        raise InputError(
            f"a data set has a length and gives an item for each number, and {name!r} does not; give such a one, or a spec"
        ) from None
    if labels is None and (targets := getattr(dataset, "targets", None)) is not None and len(targets) == length:
        classes = getattr(dataset, "classes", None)
        labels = [target if classes is None else classes[int(target)] for target in targets]
    if labels is not None and len(labels) != length:
        raise InputError(f"{name!r} has {length} items, and there are {len(labels)} labels; give one for each")
    return Indexed(name, dataset, labels)
