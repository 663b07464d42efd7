"""What a source of pictures gives: a manifest that lists its items, and one item at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from relume.pictures.photo import Photo
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MANIFEST", "Item", "Source"]

#: A row of a manifest, as plain Python values by column.
Item: TypeAlias = Mapping[str, Any]

#: The columns of every manifest. A source may add others, such as ``shard`` and ``offset``, by which it finds an item again.
MANIFEST = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # unique: a relative path, a key, or a number
        pa.field("path", pa.string()),  # where the picture can be read by itself; null if it cannot
        pa.field("label", pa.string()),  # what a person says is in it; null if nobody did
        pa.field("target", pa.string()),  # the class to explain in it, as --target writes it; null: that of the run
        pa.field("mask", pa.string()),  # the file of a mask of it
    ]
)


class Source(ABC):
    """A source of pictures. It can be pickled, so that other processes read from it.

    Attributes:
        spec: how it was written: a folder, a file, a glob, or the name of a data set.

    Example:
        >>> from relume.datasets import MANIFEST, Source
        >>> from relume.demo import draw_scene
        >>> from relume.pictures import as_photo
        >>> class Scenes(Source):
        ...     spec = "two scenes"
        ...     def manifest(self):
        ...         return pa.Table.from_pylist([{"id": "0"}, {"id": "1"}], schema=MANIFEST)
        ...     def read(self, item):
        ...         return as_photo(draw_scene(int(item["id"])).picture)
        >>> Scenes().read({"id": "1"}).picture.size
        (128, 128)
    """

    spec: str

    @abstractmethod
    def manifest(self) -> pa.Table:
        """List the items, with the columns of :data:`MANIFEST` and those that :meth:`read` needs, in a fixed order.

        Raises:
            InputError: there is none, ids come twice, or what lists them cannot be read.
        """

    @abstractmethod
    def read(self, item: Item) -> Photo | Recording | Path:
        """Read one item of the manifest.

        Raises:
            ImageError: it cannot be read or used.
        """
