"""The facts of each row that a report needs, with maps made small, and the temporary file that holds them."""

from __future__ import annotations

import functools
import pickle
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from relume.datasets.codes import decode
from relume.datasets.columns import maps_of
from relume.errors import OutputError, TargetError
from relume.models.labels import class_index

if TYPE_CHECKING:
    import pyarrow as pa

    from relume.datasets.store import Run

__all__ = ["CHECKS", "SIDE", "Facts", "MapOfRun", "Rows", "SmallMap"]

#: The quick checks that a row has of each map.
CHECKS = ("edge_similarity", "class_similarity")

#: A map is made small by averaging it over a grid of at most so many cells a side.
SIDE = 32

#: A map averaged over a small grid and divided by its sum, ``(*grid)``.
SmallMap = NDArray[np.float32]

_POOLS: Mapping[int, Callable[..., torch.Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


class MapOfRun(NamedTuple):
    """A map that every row of a run has.

    Attributes:
        key: its key.
        title: its name in words.
        place: ``input`` or ``layer``.
        column: the column that keeps it; None if it is not kept.
        code: how it is kept.
        measured: True if it is measured against masks.
    """

    key: str
    title: str
    place: str
    column: str | None
    code: Any
    measured: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report keeps of a row.

    Attributes:
        id: that of the picture.
        error: why it was not explained; None if it was. With an error, only id, label and known are set.
        label: its label; None if it has none.
        known: the class that the label means, by its name; the label itself if it means none.
        explained: the class that is explained, or another target in words.
        predicted: the highest class; None if scores are not those of classes.
        probability: the probability of the highest class; None if scores give no probabilities.
        score: the score explained.
        right: True if the highest class is that of the label, None if that cannot be known.
        empty: for each map, True if it is zero everywhere.
        checks: for each map and quick check its value.
        inside: for each map, the share of it inside the mask.
        maps: each map that is kept and not empty, made small.
    """

    id: str
    error: str | None
    label: str | None
    known: str | None
    explained: str = ""
    predicted: str | None = None
    probability: float | None = None
    score: float = 0.0
    right: bool | None = None
    empty: Mapping[str, bool] = field(default_factory=dict)
    checks: Mapping[tuple[str, str], float] = field(default_factory=dict)
    inside: Mapping[str, float] = field(default_factory=dict)
    maps: Mapping[str, SmallMap] = field(default_factory=dict)


class Rows:
    """The facts of all rows of a run, gathered once and kept in a temporary file, so that memory does not grow with them.

    Attributes:
        run: the run.
        maps: its maps by key.
        main: the key of the map that speaks for a picture: the first kept map of a layer, or else the first kept map.
        layer: Grad-CAM's target layer in the first row that has one.
    """

    def __init__(self, run: Run, like: Rows | None = None) -> None:
        """Gather the facts; small maps get the size of those of ``like``, to be compared with them.

        Raises:
            InputError: there is no row yet, or a part is damaged.
            OutputError: there is no room for the temporary file.
        """
        self.run = run
        self.layer: str | None = None
        schema: pa.Schema = run.table(["id"]).schema
        names = {*next(iter(run)).keys()}
        self.maps = {
            key: MapOfRun(key, m["title"], m["place"], m["column"], m["code"], f"{key}_mass_accuracy" in names)
            for key, m in maps_of(schema).items()
        }
        kept = [m for m in self.maps.values() if m.column]
        self.main = next((m.key for m in kept if m.place == "layer"), kept[0].key if kept else None)
        self._grids: dict[str, tuple[int, ...]] = {} if like is None else like._grids
        self._file = sqlite3.connect("")  # a temporary file, which goes with the connection
        self._file.execute("create table facts (id text primary key, content blob)")
        try:
            self._gather([name for name in names if not name.endswith("_thumbnail")])
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"there is no room for temporary files: {error}; make some, or name another folder in TMPDIR"
            ) from error

    def _gather(self, columns: Sequence[str]) -> None:
        labels = self.run.record["labels"]
        known = functools.lru_cache(maxsize=4096)(lambda label: _class_of(label, labels))
        for row in self.run.rows(columns):
            self.layer = self.layer or row["layer"]
            content = pickle.dumps(self._facts(row, known(row["label"]), labels))
            self._file.execute("insert or ignore into facts values (?, ?)", (row["id"], content))

    def _facts(self, row: Mapping[str, Any], known: int | None, labels: Sequence[str] | None) -> Facts:
        label = row["label"]
        name = label if known is None or labels is None else labels[known]
        if row["error"] is not None:
            return Facts(row["id"], row["error"], label, name)
        top = (row["top_classes"] or [None])[0]
        return Facts(
            row["id"],
            None,
            label,
            name,
            row["class_name"] or row["description"] or "everything",
            row["top_names"][0] if row["top_names"] else None,
            row["top_probabilities"][0] if row["top_probabilities"] else None,
            row["score"],
            None if known is None or top is None else known == top,
            {key: row[f"{key}_empty"] for key in self.maps},
            {(key, c): value for key in self.maps for c in CHECKS if (value := row[f"{key}_{c}"]) is not None},
            {key: v for key, m in self.maps.items() if m.measured and (v := row[f"{key}_mass_accuracy"]) is not None},
            {key: small for key, m in self.maps.items() if m.column and (small := self._small(row, m, m.column)) is not None},
        )

    def _small(self, row: Mapping[str, Any], kept: MapOfRun, column: str) -> SmallMap | None:
        """Average a map over its small grid, and divide it by its sum; None if it is zero everywhere.

        Maps of one key have one grid, that of the first, whatever the size of the picture.
        """
        heat = decode(row[column], row[f"{kept.key}_scale"], row[f"{kept.key}_shape"], kept.code).abs()
        if kept.place == "input" and column == f"{kept.key}_map":
            heat = heat.amax(0)
        grid = self._grids.setdefault(kept.key, tuple(min(n, SIDE) for n in heat.shape))
        small = _POOLS[heat.ndim](heat[None, None], grid)[0, 0]
        total = float(small.sum())
        return None if not total or not np.isfinite(total) else (small / total).to(torch.float32).numpy()

    def __iter__(self) -> Iterator[Facts]:
        """Yield the facts of each row."""
        for (content,) in self._file.execute("select content from facts order by rowid"):
            yield pickle.loads(content)  # noqa: S301 - written above

    def __getitem__(self, id: str) -> Facts | None:  # noqa: A002 - the name of the column
        """Return the facts of a row; None if there is no such row."""
        found = self._file.execute("select content from facts where id = ?", (id,)).fetchone()
        return None if found is None else pickle.loads(found[0])  # noqa: S301 - written above

    def thumbnails(self, ids: set[str]) -> dict[str, dict[str, bytes]]:
        """Return the thumbnails of some rows, by id and by the key of the map."""
        columns = {key: f"{key}_thumbnail" for key in self.maps}
        thumbnails = {}
        for row in self.run.rows(["id", *columns.values()]):
            if row["id"] in ids and row["id"] not in thumbnails:
                thumbnails[row["id"]] = {key: row[name] for key, name in columns.items() if row[name] is not None}
                if len(thumbnails) == len(ids):
                    break
        return thumbnails


def _class_of(label: str | None, labels: Sequence[str] | None) -> int | None:
    """Return the class that a label means; None if it means none."""
    try:
        index = None if label is None else class_index(label, labels)
    except TargetError:
        return None
    return index if index is None or labels is None or 0 <= index < len(labels) else None
