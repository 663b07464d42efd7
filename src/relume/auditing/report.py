"""The report of an audit: everything that its checks found about one method's maps, with a verdict on each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from relume.auditing.checks.table import CHECKS, limits_of, measures_of
from relume.auditing.drawing import PROJECTIONS, Chart, Strip, plane
from relume.auditing.figure import audit_figure
from relume.auditing.page import audit_files, notebook
from relume.auditing.verdict import judge
from relume.auditing.view import AuditView, Section, rows
from relume.engine.coverage import Coverage
from relume.explanation.belief import PREDICTION, UNCALIBRATED, Verdict, nothing
from relume.maps import array
from relume.measures.similarity import SIMILARITIES, Maps, Values
from relume.measures.statistics import estimate
from relume.pages.folder import write_folder
from relume.pictures.canvas import stretched
from relume.targets.activation import how_to_name
from relume.text import significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["AuditReport"]

#: How many images of a report are named, and shown in a notebook.
MOST_SHOWN = 4


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class AuditReport:
    """The report on one method's maps of ``N`` images. It prints, shows itself in a notebook, draws and saves itself.

    Attributes:
        method: the key of the map that was audited.
        title: its name for readers.
        model: the network's name.
        layers: Grad-CAM's target layers; empty where the method reads none.
        classes: the class explained in each image, ``(N,)``; None if something else is.
        scores: the network's score for it, ``(N,)``.
        probabilities: the network's probability for it, ``(N,)``; None where it has scores alone.
        outputs: how many classes the network has.
        are_probabilities: True if the network's scores are probabilities as they are; None if nothing tells what they are.
        images: the network's input, ``(N, C, *spatial)``.
        maps: the maps.
        checks: the result of each check that was made, by its key.
        skipped: why a check could not be made, by its key.
        labels: class names by index, if known.
        name: the name of the image's file; empty if it has none.
        provenance: where this comes from, as plain data.
        pictures: each image as the network got it, if known; its input is drawn otherwise.
        descriptions: what is explained in each image, in words, where it is no plain class.
        remarks: why each image's map is empty or weak, in words.
        belief: what a calibration on this network says of the method, and whether every rectifier was guided.

    Example:
        >>> import torch
        >>> import relume
        >>> layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)
        >>> report = relume.audit(torch.nn.Sequential(*layers), torch.rand(2, 3, 8, 8), checks=["edges"])
        >>> report.verdict.level, len(report), list(report.checks)
        ('uncalibrated', 2, ['edges'])
    """

    method: str
    title: str
    model: str
    layers: tuple[str, ...]
    classes: Tensor | None
    scores: Values
    probabilities: Values | None
    outputs: int
    are_probabilities: bool | None
    images: Tensor
    maps: Maps
    checks: Mapping[str, Any]
    skipped: Mapping[str, str]
    labels: Sequence[str] | None = None
    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Image] | None = None
    descriptions: Sequence[str] | None = None
    remarks: Sequence[str] = ()
    belief: Verdict = UNCALIBRATED

    def __len__(self) -> int:
        return len(self.images)

    # --- Measures and verdicts --------------------------------------------------------------------------------------------

    @property
    def measures(self) -> dict[str, Values]:
        """Return every measure of the checks that were made, ``(N,)`` each, by key; NaN where it is undefined."""
        made = {key: CHECKS[key] for key in CHECKS if key in self.checks}
        return {
            key: np.asarray(measure.read(self.checks[name]), dtype=np.float64)
            for name, check in made.items()
            for key, measure in check.measures.items()
        }

    @property
    def verdicts(self) -> list[Verdict]:
        """Return the verdict on each image's map."""
        measures, constant = self.measures, self.maps.empty
        return [
            nothing(zero=self.empty[i], remark=self._remark(i))
            if constant[i]
            else judge({key: float(values[i]) for key, values in measures.items()}, self.belief)
            for i in range(len(self))
        ]

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on the maps together, from the means of their measures."""
        if self.maps.empty.all():
            return nothing(zero=all(self.empty), remark=self._remark(0) if len({*self.remarks}) == 1 else "")
        means = {key: estimate(values.tolist()).mean for key, values in self.measures.items()}
        return judge(means, self.belief)

    @property
    def empty(self) -> list[bool]:
        """Return for each image whether its map is empty: zero everywhere."""
        return [not (values > 0).any() for values in self.maps.saliency]

    # --- Words ------------------------------------------------------------------------------------------------------------

    def class_name(self, index: int) -> str:
        """Return the name of a class; its index if it has none."""
        return self.labels[index] if self.labels is not None and index < len(self.labels) else str(index)

    def naming(self, option: str = "activation='{}'") -> str:
        """Say how to name the scores, if nothing tells what they are; else nothing."""
        unnamed = self.classes is not None and self.probabilities is None and self.are_probabilities is None
        return how_to_name(option, self.outputs) if unnamed else ""

    def _remark(self, i: int) -> str:
        return self.remarks[i] if self.remarks else ""

    def _notes(self, i: int | None = None) -> list[str]:
        """List what the checks note, what was left out, and what is to be known of the map of image ``i``, or of all."""
        weak = [words for words in (self.remarks if i is None else [self._remark(i)]) if words.startswith("weak")]
        empty = sum(self.empty) if i is None else 0
        notes = [f"{empty} of {len(self)} maps are empty, and count in no average"] if 0 < empty < len(self) else []
        notes += [f"the map is {words}" for words in dict.fromkeys(weak)]
        notes += [PREDICTION] if self.probabilities is not None else []
        notes += [f"{name} was left out: {why}" for name, why in self.skipped.items()]
        axes = self.images.ndim - 2
        others = [similarity for similarity in SIMILARITIES.values() if similarity.axes not in (None, axes)]
        notes += [f"{other.title} compares maps of {other.axes} axes, and was left out" for other in others]
        if axes in PROJECTIONS:
            notes.append(f"{PROJECTIONS[axes]}; the limits of stability were found on pictures of two axes")
        return notes + [note for name, result in self.checks.items() for note in CHECKS[name].notes(result)]

    def _subject(self, i: int) -> str:
        value = f"score {significant(self.scores[i])}" if self.probabilities is None else f"{self.probabilities[i]:.1%}"
        return f"{self.target_name(i)}, {value}"

    def target_name(self, i: int) -> str:
        """Return the name of what is explained in image ``i``."""
        if self.descriptions is not None:
            return self.descriptions[i]
        assert self.classes is not None, "a class is explained where nothing else is described"
        return self.class_name(int(self.classes[i]))

    @property
    def _about(self) -> list[str]:
        return [self.model, *([f"layer {', '.join(self.layers)}"] if self.layers else [])]

    def __str__(self) -> str:
        subjects = [self._subject(i) for i in range(min(len(self), MOST_SHOWN))] + ["…"] * (len(self) > MOST_SHOWN)
        lines = [", ".join([self.title, *self._about]), "; ".join(subjects), ""]
        table = [
            (
                key,
                measure.title,
                measure.arrow or " ",
                f"limit {measure.limit.value:.2f}" if measure.limit else "",
            )
            for key, measure in measures_of().items()
            if key in self.measures
        ]
        keys, titles = (max((len(row[n]) for row in table), default=0) for n in (0, 1))
        for key, title, arrow, limit in table:
            value = str(estimate(self.measures[key].tolist())).replace("-", "−")
            lines.append(f"{key:<{keys}}  {title:<{titles}}  {arrow}  {value}  {limit}".rstrip())
        lines += [*self._notes(), self.naming()]
        return "\n".join([*lines[:3], *filter(None, lines[3:]), "", self.verdict.text])

    __repr__ = __str__

    # --- Pictures and files -----------------------------------------------------------------------------------------------

    def view(self, i: int = 0) -> AuditView:
        """Return everything that is shown of image ``i``, ready to be drawn."""
        sections = {}
        for key, check in CHECKS.items():
            if key in self.checks and (parts := check.draw(self.checks[key], self, i)):
                strips = [part for part in parts if isinstance(part, Strip)]
                sections[key] = Section(check.title, check.meaning, strips, [part for part in parts if isinstance(part, Chart)])
        return AuditView(
            name=self.name,
            method=self.title,
            subject=self._subject(i),
            about=self._about,
            verdict=self.verdicts[i],
            picture=self._picture(i),
            rows=rows({key: float(values[i]) for key, values in self.measures.items()}),
            sections=sections,
            notes=self._notes(i),
            empty=self.empty[i],
        )

    def _picture(self, i: int) -> Image:
        """Return the picture of image ``i``, or draw its input."""
        if self.pictures is not None:
            return self.pictures[i]
        return stretched(np.stack([plane(channel) for channel in array(self.images[i].float())]))

    def figure(self, *, dpi: float = 150) -> Figure:
        """Draw a figure for a paper: for each image the verdict over its strips, charts and measures; text stays text."""
        return audit_figure([self.view(i) for i in range(len(self))], dpi=dpi)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the maps, as plain data for JSON; an undefined value is null."""
        measures, verdicts = self.measures, self.verdicts
        pictures = [
            {
                "class": None if self.classes is None else int(self.classes[i]),
                "class_name": self.target_name(i),
                "score": float(self.scores[i]),
                "probability": None if self.probabilities is None else float(self.probabilities[i]),
                "empty": self.empty[i],
                "remark": self._remark(i),
                "measures": {key: _plain(values[i]) for key, values in measures.items()},
                "verdict": {"level": verdicts[i].level, "text": verdicts[i].text},
            }
            for i in range(len(self))
        ]
        known = measures_of()
        limits = {key: {"value": limit.value, "better": known[key].better} for key, limit in limits_of(known).items()}
        return {
            "name": self.name,
            "method": self.method,
            "model": self.model,
            "layers": list(self.layers),
            "pictures": pictures,
            "verdict": {"level": self.verdict.level, "text": self.verdict.text},
            "limits": limits,
            "checks": {key: _plain(result) for key, result in self.checks.items()},
            "skipped": dict(self.skipped),
            "provenance": {**self.provenance, "versions": {"relume": version("relume"), "torch": torch.__version__}},
        }

    def save(self, directory: str | Path) -> Path:
        """Write ``audit.json``, ``audit.png`` and ``index.html`` into ``directory``, all or nothing, and return it.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
        """
        groups = [[self.view(i)] for i in range(len(self))]
        return write_folder(Path(directory), audit_files(groups, {"audits": [self.as_dict()]}))

    def _repr_html_(self) -> str:
        return "".join(notebook(self.view(i)) for i in range(min(len(self), MOST_SHOWN)))


def _plain(value: Any) -> Any:
    """Turn ``value`` into plain data as JSON has it, without fields that a dataclass does not print; NaN becomes null."""
    if isinstance(value, Coverage):
        return value.as_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | Tensor | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
