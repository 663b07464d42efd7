"""The pictures of a run as the network saw them, read again and kept in a file that is mapped into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relume.datasets.loading import DEFAULT_LOADERS, ahead
from relume.datasets.shortcuts.suspects import Picture
from relume.datasets.source import Item, Source
from relume.models.opened import Opened
from relume.models.photos import as_input
from relume.pictures.photo import Photo

__all__ = ["LARGEST", "pictures_of", "searched_size"]

#: Pictures whose shorter side is longer are searched at this size: 200 KB a picture at most, but for long ones.
LARGEST = 256


def searched_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width at which pictures are searched, of inputs of a size."""
    factor = min(1.0, LARGEST / min(size))
    return round(size[0] * factor), round(size[1] * factor)


@contextmanager
def pictures_of(
    items: Sequence[Item], source: Source, opened: Opened, size: tuple[int, int]
) -> Iterator[tuple[Picture, NDArray[np.intp]]]:
    """Read items again; give what the network saw of those that could be read ``(N, height, width, 3)``, and their numbers.

    They lie in a temporary file and are mapped into memory, so that few of them are in memory at once.
    """
    height, width = searched_size(size)
    with tempfile.TemporaryDirectory(prefix="relume-", ignore_cleanup_errors=True) as folder:
        pixels = np.memmap(Path(folder, "pictures"), np.uint8, "w+", shape=(len(items), height, width, 3))
        numbers = list[int]()

        def load(item: Item) -> NDArray[np.uint8] | None:
            return _view(item, source, opened, size)

        with ahead(load, items, DEFAULT_LOADERS, 4 * DEFAULT_LOADERS) as views:
            for i, view in enumerate(views):
                if view is not None:
                    pixels[len(numbers)] = view
                    numbers.append(i)
        yield pixels[: len(numbers)], np.array(numbers, np.intp)


def _view(item: Item, source: Source, opened: Opened, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Read what the network saw of an item; None if it cannot be read any more, is no photo, or gives another size."""
    try:
        photo = as_input(source.read(item))
        view = opened.preprocessing.view(photo.picture) if isinstance(photo, Photo) else None
    except Exception:  # noqa: BLE001 - the user's code raises what it likes, and one picture stops no other
        return None
    if view is None or (view.height, view.width) != size:
        return None
    height, width = searched_size(size)
    return np.asarray(view if size == (height, width) else view.resize((width, height), Image.Resampling.BOX))
