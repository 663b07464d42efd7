"""The result of an evaluation: an estimate of every measure for each map, as tables, a figure and files."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from relume.evaluation import table
from relume.evaluation.table import Rows
from relume.measures.baselines import BASELINES
from relume.measures.localisation import MEASURES, Column
from relume.pages.folder import write_folder
from relume.pictures.figure import figure_bytes
from relume.text import encoded, json_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLUMNS", "FEW", "Evaluation"]

#: The columns of every evaluation: :data:`relume.measures.MEASURES`, and what is measured between the maps of two classes.
COLUMNS: Mapping[str, Column] = ChainMap(
    {"class_correlation": Column("correlation between classes", "low", "Class discrimination")},
    cast("dict[str, Column]", MEASURES),
)

#: A bootstrap of fewer images than these is no confidence interval.
FEW = 10


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The measures of methods' maps against ground truth: what :func:`relume.evaluate` returns.

    Attributes:
        rows: for each map and each baseline, an estimate by the key of each measure.
        titles: the name of each row in tables.
        methods: the keys of the rows that are maps; the others are baselines.
        samples: how many images were explained.
        targets: how many classes were explained, in all images together.
        empty: how many maps of each row were zero everywhere, and so are in no mean.
        skipped: the images that could not be explained, each with the reason.
        provenance: where this comes from, as plain data: network, layer, data, seed, versions.

    Example:
        >>> import relume
        >>> evaluation = relume.evaluate(relume.open_model("demo"), "scenes:2", ["gradcam"])
        >>> evaluation.rows["gradcam"]["right_thing"].mean > evaluation.rows["sobel_edges"]["right_thing"].mean
        True
        >>> print(evaluation.markdown().splitlines()[0])
        ### Class discrimination
    """

    rows: Rows
    titles: Mapping[str, str]
    methods: tuple[str, ...]
    samples: int
    targets: int
    empty: Mapping[str, int]
    skipped: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, dict[str, Column]]:
        """The columns by the heading they stand under."""
        groups: dict[str, dict[str, Column]] = {}
        for key in next(iter(self.rows.values())):
            groups.setdefault(COLUMNS[key].group, {})[key] = COLUMNS[key]
        return groups

    @property
    def notes(self) -> list[str]:
        """Sentences that a reader of the tables needs."""
        keys = ("model", "weights", "layer", "data", "seed")
        origin = "; ".join(f"{key} {value}" for key in keys if (value := self.provenance.get(key)))
        images, classes = _counted(self.samples, "image"), _counted(self.targets, "class", "es")
        blurred = BASELINES["blurred_target_mask"].title.capitalize()
        notes = [
            f"{images}, {classes} explained; means over images, bootstrap 95 % intervals.",
            *([f"{origin[0].upper()}{origin[1:]}."] if origin else []),
            f"{blurred}: the truth, as coarse as a Grad-CAM, for comparison. Arrows say what is better.",
        ]
        if self.samples < FEW:
            notes.append(f"Intervals from fewer than {FEW} images are too narrow: read them as the spread of these images.")
        for key, count in self.empty.items():
            if count:
                notes.append(f"Zero everywhere and left out: {count} of {self.targets} maps by {self.titles[key]}.")
        return notes

    def _titled(self) -> Rows:
        return {self.titles[key]: row for key, row in self.rows.items()}

    def markdown(self) -> str:
        """Write the tables in Markdown."""
        tables = (f"### {group}\n\n{table.markdown(self._titled(), columns)}\n" for group, columns in self.groups.items())
        return "".join(tables) + "".join(f"* {note}\n" for note in self.notes)

    def figure(self) -> Figure:
        """Draw the estimates with their intervals as a matplotlib figure."""
        return table.figure(self._titled(), self.groups, [self.titles[key] for key in self.methods], " ".join(self.notes))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; what is undefined is null."""
        return {
            "samples": self.samples,
            "targets": self.targets,
            "skipped": list(self.skipped),
            "methods": list(self.methods),
            "titles": dict(self.titles),
            "measures": {
                name: {
                    key: {k: None if np.isnan(value) else value for k, value in asdict(estimate).items()}
                    for key, estimate in row.items()
                }
                for name, row in self.rows.items()
            },
            "empty_maps": dict(self.empty),
            "provenance": dict(self.provenance),
        }

    def save(self, directory: str | Path) -> Path:
        """Write ``evaluation.json``, ``.md`` and ``.png`` into ``directory``, all or nothing, and return it.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
        """
        files = {
            "evaluation.json": json_of(self.as_dict()),
            "evaluation.md": encoded(self.markdown()),
            "evaluation.png": figure_bytes(self.figure()),
        }
        return write_folder(Path(directory), files)


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count} {what}{plural if count != 1 else ''}"
