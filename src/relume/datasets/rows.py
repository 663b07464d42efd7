"""Rows of items: the one pure function that every engine shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from relume.datasets.request import RunRequest
from relume.datasets.source import Item
from relume.models.opened import Opened
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loaded", "explained_rows", "with_shapes"]

#: A picture that was read; or with the network's input, as :meth:`relume.models.Opened.input_of` returns both; or why neither.
Loaded: TypeAlias = "Photo | Recording | tuple[Photo | Recording, Tensor] | Exception"


def explained_rows(opened: Opened, batch: Sequence[tuple[Item, Loaded]], request: RunRequest) -> pa.Table:
    """Explain the items of a batch together, and return a row for each, in order, with the schema of ``request``.

    An item that was not read, or that cannot be explained, is a row with its sentence in ``error``. No exception is raised for
    one; a batch that fails is explained one by one, and one that memory does not suffice for in halves. The state of the
    wrappers' generators is the same before and after, so the same batch gives the same rows.
    """
    raise NotImplementedError


def with_shapes(opened: Opened, photo: Loaded, request: RunRequest) -> RunRequest:
    """Return the request with the shape of each map that is kept, found by explaining one photo.

    Photos of different sizes, which the preprocessing leaves as they are, have no common shape: the request stays as it is.

    Raises:
        RelumeError: this photo cannot be explained; another may.
    """
    raise NotImplementedError
