"""Suspects: repeated patches that a network uses, with everything that a report shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from relume.errors import OutputError

__all__ = ["NONE_FOUND", "Box", "Pasted", "Picture", "Shown", "Suspect", "Suspects", "Where", "write_suspects"]

#: A picture as the network sees it: ``(height, width, 3)``, RGB, uint8, at the size of the network's input.
Picture: TypeAlias = NDArray[np.uint8]

#: Left, top, right and bottom in pixels of the network's input; the last two are excluded.
Box: TypeAlias = tuple[int, int, int, int]

#: ``same place``: at one place in at least 80 % of the pictures that have it; ``any place``: at different places.
Where: TypeAlias = Literal["same place", "any place"]

#: The words where both lists are empty. It is not known that there is no shortcut.
NONE_FOUND = "no repeated patch found"

_SCHEMA = pa.schema(
    [
        ("rank", pa.int32()),
        ("class", pa.string()),
        ("where", pa.string()),
        ("strength", pa.float64()),
        ("flagged", pa.bool_()),
        ("rise", pa.float64()),
        ("share_in", pa.float64()),
        ("share_out", pa.float64()),
        ("ids", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture in which a patch was found.

    Attributes:
        id: the picture's id in the run.
        picture: what the network sees of it.
        box: the place of the patch.
    """

    id: str
    picture: Picture
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Pasted:
    """A picture without the patch, and the same with its pixels pasted on it.

    Attributes:
        id: the picture's id in the run.
        before: what the network sees of it.
        after: the same with the patch.
        box: the place of the patch.
        p_before: the probability of the class before.
        p_after: the probability of the class after.
    """

    id: str
    before: Picture
    after: Picture
    box: Box
    p_before: float
    p_after: float


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    """A repeated patch that the network uses for a class. Whether it belongs to the class is for a person to say.

    Attributes:
        rank: its place in its list, from 1 on.
        class_index: the class.
        class_name: its name, or its index in words.
        where: the list that it is in.
        strength: ``rise × min(sameness / 100, 1) × (share_in − share_out)``, at most 1; lists are sorted by it.
        flagged: True if it is in the list of the same place, with a rise of at least 0.1; never at any place.
        rise: how much pasting the patch raises the probability of the class: ``p_after − p_before``.
        p_before: the mean probability of the class in the pictures that the patch was pasted on, before.
        p_after: the same afterwards.
        pasted_on: how many pictures that was measured on.
        found_in: how many pictures predicted as the class hold the patch.
        of_in: how many pictures are predicted as the class.
        found_out: how many of the other pictures hold it.
        of_out: how many others there are.
        sameness: how many pixels on edges the members share beyond other classes, in pixels of a picture of 128 × 128.
        members: the ids of the pictures whose maps led to it.
        found: the ids of the pictures in which the patch was found, the most alike first.
        patch: its pixels, ``(height, width, 3)``, RGB, uint8, in pixels of the network's input.
        mask: which of them belong to it, ``(height, width)``.
        place: the box that it lies in, where it lies at one place.
        mean_map: the mean Grad-CAM of the members, each divided by its highest value, ``(rows, columns)``, 0 to 1.
        shown: up to six of the pictures in which it was found.
        pasted: three pictures before and after pasting.
    """

    rank: int
    class_index: int
    class_name: str
    where: Where
    strength: float
    flagged: bool
    rise: float
    p_before: float
    p_after: float
    pasted_on: int
    found_in: int
    of_in: int
    found_out: int
    of_out: int
    sameness: float
    members: tuple[str, ...]
    found: tuple[str, ...]
    patch: Picture
    mask: NDArray[np.bool_]
    place: Box | None
    mean_map: NDArray[np.float32]
    shown: tuple[Shown, ...]
    pasted: tuple[Pasted, ...]

    @property
    def share_in(self) -> float:
        """The share of the pictures predicted as the class in which the patch was found."""
        return self.found_in / max(self.of_in, 1)

    @property
    def share_out(self) -> float:
        """The share of the other pictures in which it was found."""
        return self.found_out / max(self.of_out, 1)

    def __str__(self) -> str:
        """Say what was found, in the words of the report."""
        name = self.class_name
        return (
            f"found in {self.found_in} of {self.of_in} pictures predicted {name} and in {self.found_out} of {self.of_out} "
            f"others; pasted on {self.pasted_on} pictures without it, p({name}) goes from {self.p_before:.2f} to "
            f"{self.p_after:.2f}. A repeated patch that the network uses: whether it belongs to the class is for you to say."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Suspects:
    """The repeated patches of a run in two lists, the strongest first.

    Attributes:
        same_place: patches at one place in at least 80 % of the pictures that have them.
        any_place: patches at different places. They are only worth a look, since parts of things, such as wheels, are here too.
        left_out: what was not searched and why, a sentence each.
        pictures: how many pictures were searched.
        classes: the names of the classes that were searched.
    """

    same_place: tuple[Suspect, ...] = ()
    any_place: tuple[Suspect, ...] = ()
    left_out: tuple[str, ...] = ()
    pictures: int = 0
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.same_place) + len(self.any_place)

    def __str__(self) -> str:
        """Say in a few words what was found."""
        if not self.pictures:
            return "not searched for repeated patches"
        flagged = sum(suspect.flagged for suspect in self.same_place)
        if not len(self):
            return NONE_FOUND
        return f"{flagged} strong at the same place, {len(self) - flagged} more worth a look"


def write_suspects(suspects: Suspects, path: str | Path) -> Path:
    """Write ``suspects.parquet``: a row for each suspect, those at the same place first.

    Its columns are rank, class, where, strength, flagged, rise, share_in, share_out, and the ids of the pictures in which the
    patch was found.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> import tempfile
        >>> import pyarrow.parquet as pq
        >>> from relume.datasets.shortcuts import Suspects, write_suspects
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pq.read_table(write_suspects(Suspects(), f"{folder}/suspects.parquet")).column_names
        ['rank', 'class', 'where', 'strength', 'flagged', 'rise', 'share_in', 'share_out', 'ids']
    """
    rows = [_row(suspect) for suspect in (*suspects.same_place, *suspects.any_place)]
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), path)
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}; name another file") from error
    return Path(path)


def _row(suspect: Suspect) -> Mapping[str, object]:
    names = ("rank", "where", "strength", "flagged", "rise", "share_in", "share_out")
    values = {name: getattr(suspect, name) for name in names}
    return values | {"class": suspect.class_name, "ids": list(suspect.found)}
