"""May this picture be believed? Every check of one method's maps, with a careful sentence about each."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from relume.auditing.checks.random_weights import How
from relume.auditing.checks.table import CHECKS, FIGURES, Checks, Watch, run_checks
from relume.auditing.figure import audit_figure
from relume.auditing.page import audit_files, notebook
from relume.auditing.subject import BATCH, Question
from relume.auditing.verdict import LIMITS, Verdict, judge, nothing
from relume.auditing.view import AuditView, cascade, charts, rows, strips
from relume.engine.coverage import Coverage
from relume.engine.inputs import Output
from relume.engine.reading import LayerLike
from relume.explanation.result import Explanation
from relume.maps import array
from relume.measures.similarity import Values
from relume.measures.statistics import estimate
from relume.methods.base import Method, method_title
from relume.pages.folder import write_folder
from relume.pictures.canvas import stretched
from relume.targets import TargetLike
from relume.targets.activation import Activation, activated, how_to_name
from relume.text import name_of, significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["AuditReport", "audit"]

#: So many pictures of a report are shown in a notebook.
MOST_SHOWN = 4


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AuditReport:
    """What was found out about one method's maps of ``N`` pictures. Prints, shows itself in a notebook, draws and saves itself.

    Attributes:
        method: its key.
        model: the network's name.
        layers: Grad-CAM's target layers; empty where the method reads none.
        classes: the class explained in each picture, ``(N,)``.
        scores: the network's for it, ``(N,)``.
        probabilities: the network's for it, ``(N,)``; None where it has scores alone.
        images: the network's input, ``(N, C, H, W)``.
        checks: everything that was measured.
        labels: class names by index, if known.
        facts: where this comes from, as plain data.
        pictures: what the network saw of each picture, if known; its input is drawn otherwise.
        remarks: why each picture's map is empty or weak, in words.
    """

    method: str
    model: str
    layers: tuple[str, ...]
    classes: Tensor
    scores: Values
    probabilities: Values | None
    images: Tensor
    checks: Checks
    labels: Sequence[str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Image] | None = None
    remarks: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def figures(self) -> dict[str, Values]:
        """Every figure of :data:`~relume.auditing.FIGURES` that was measured, ``(N,)``; NaN where it is undefined."""
        found = {key: getattr(self.checks, figure.check) for key, figure in FIGURES.items()}
        return {key: FIGURES[key].of(check) for key, check in found.items() if check is not None}

    @property
    def verdicts(self) -> list[Verdict]:
        """What is to be said of each picture's map."""
        figures, constant = self.figures, self.checks.original.empty
        return [
            nothing(zero=self.empty[i], remark=self._remark(i))
            if constant[i]
            else judge({key: float(v[i]) for key, v in figures.items()}, one_output=self._one_output)
            for i in range(len(self))
        ]

    @property
    def empty(self) -> list[bool]:
        """Which pictures have an empty map: zero everywhere."""
        return [not (shown > 0).any() for shown in self.checks.original.saliency]

    @property
    def _one_output(self) -> bool:
        return self.facts.get("classes") == 1

    def _remark(self, i: int) -> str:
        return self.remarks[i] if self.remarks else ""

    @property
    def verdict(self) -> Verdict:
        """What is to be said of the maps together, from the means of their figures."""
        if self.checks.original.empty.all():
            return nothing(zero=all(self.empty), remark=self._remark(0) if len({*self.remarks}) == 1 else "")
        means = {key: estimate(values.tolist()).mean for key, values in self.figures.items()}
        return judge(means, one_output=self._one_output)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain data for JSON; what is undefined is null."""
        figures, verdicts = self.figures, self.verdicts
        pictures = [
            {
                "class": int(self.classes[i]),
                "class_name": self._name(int(self.classes[i])),
                "score": float(self.scores[i]),
                "probability": None if self.probabilities is None else float(self.probabilities[i]),
                "empty": self.empty[i],
                "remark": self._remark(i),
                "figures": {key: _plain(values[i]) for key, values in figures.items()},
                "verdict": {"level": verdicts[i].level, "text": verdicts[i].text},
            }
            for i in range(len(self))
        ]
        return {
            "method": self.method,
            "model": self.model,
            "layers": list(self.layers),
            "pictures": pictures,
            "verdict": {"level": self.verdict.level, "text": self.verdict.text},
            "limits": {key: {"value": limit.value, "better": limit.better} for key, limit in LIMITS.items()},
            "checks": {name: _plain(check) for name in CHECKS if (check := getattr(self.checks, name)) is not None},
            "skipped": dict(self.checks.skipped),
            **self.facts,
            "versions": {"relume": version("relume"), "torch": torch.__version__},
        }

    def _name(self, index: int) -> str:
        return self.labels[index] if self.labels is not None and index < len(self.labels) else str(index)

    def _notes(self, i: int | None = None) -> list[str]:
        """List what was left out, and why; and what is to be said of the map of picture ``i``, or of all."""
        weak = [words for words in (self.remarks if i is None else [self._remark(i)]) if words.startswith("weak")]
        empty = sum(self.empty) if i is None else 0
        notes = [f"{empty} of {len(self)} maps are empty, and count in no average"] if 0 < empty < len(self) else []
        notes += [f"the map is {words}" for words in dict.fromkeys(weak)]
        notes += [f"{name} was left out: {why}" for name, why in self.checks.skipped.items()]
        lost = self.checks.randomisation.lost if self.checks.randomisation else ()
        several = f"{len(lost)} stages, {lost[0]} the first," if len(lost) > 1 else "".join(lost)
        return [*notes, f"{several} gave no map, and count in no average"] if lost else notes

    def naming(self, option: str = "activation='{}'") -> str:
        """Say how to name the scores, if nothing tells what they are; else nothing."""
        unnamed = self.probabilities is None and self.facts.get("are_probabilities", False) is None
        return how_to_name(option, self.facts["classes"]) if unnamed else ""

    def _subject(self, i: int) -> str:
        value = f"score {significant(self.scores[i])}" if self.probabilities is None else f"{self.probabilities[i]:.1%}"
        return f"{self._name(int(self.classes[i]))}, {value}"

    def view(self, i: int = 0) -> AuditView:
        """All that is shown of picture ``i``, ready to be drawn."""
        asked = {"explained": self.classes} | dict(self.checks.classes.classes if self.checks.classes else {})
        picture = stretched(array(self.images[i].float())) if self.pictures is None else self.pictures[i]
        health = self.checks.coverage
        about = [self.model, f"layer {', '.join(self.layers)}" if self.layers else ""]
        if health is not None:
            about.append(f"{health.coverage.guided} rectifiers guided, {health.coverage.unguided} not")
        return AuditView(
            name=name_of(self.facts),
            method=method_title(self.method),
            subject=self._subject(i),
            about=[part for part in about if part],
            verdict=self.verdicts[i],
            picture=picture,
            rows=rows({key: float(values[i]) for key, values in self.figures.items()}),
            strips=strips(self.checks, i, {role: self._name(int(classes[i])) for role, classes in asked.items()}),
            curve=cascade(self.checks, i),
            charts=charts(self.checks, i),
            notes=self._notes(i),
            empty=self.empty[i],
        )

    def figure(self, *, dpi: float = 150) -> Figure:
        """A figure for a paper: for each picture the verdict over its strips, curves and figures; text stays text."""
        return audit_figure([self.view(i) for i in range(len(self))], dpi=dpi)

    def save(self, directory: str | Path) -> Path:
        """Write ``audit.json``, ``audit.png`` and ``index.html`` into ``directory``, all or nothing, and return it.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
        """
        groups = [[self.view(i)] for i in range(len(self))]
        return write_folder(Path(directory), audit_files(groups, {"audits": [self.as_dict()]}))

    def _repr_html_(self) -> str:
        return "".join(notebook(self.view(i)) for i in range(min(len(self), MOST_SHOWN)))

    def __str__(self) -> str:
        shown = [self._subject(i) for i in range(min(len(self), 4))]
        about = [method_title(self.method), self.model, *(["layer " + ", ".join(self.layers)] if self.layers else [])]
        lines = [", ".join(about), "; ".join(shown) + ("; …" if len(self) > 4 else ""), ""]
        names = max(map(len, FIGURES))
        rows = [
            (f"{key:<{names}}  {figure.title}", figure.better, key) for key, figure in FIGURES.items() if key in self.figures
        ]
        width = max((len(title) for title, _, _ in rows), default=0)
        for title, better, key in rows:
            limit = f"  limit {LIMITS[key].value:.2f}" if key in LIMITS else ""
            found = estimate(self.figures[key].tolist())
            lines.append(f"{title:<{width}}  {'↑' if better == 'high' else '↓'}  {found}{limit}")
        if (health := self.checks.coverage) is not None:
            lines.append(f"{'rectifiers guided, and not':<{width}}     {health.coverage.guided}, {health.coverage.unguided}")
        lines += self._notes()
        lines += [naming] if (naming := self.naming()) else []
        return "\n".join([*lines, "", self.verdict.text])

    __repr__ = __str__


def _plain(value: Any) -> Any:
    """``value`` as JSON has it, without maps; NaN is null."""
    if isinstance(value, Coverage):
        return value.as_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: _plain(part) for name, part in parts.items() if name not in ("maps", "stages")}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | Tensor | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def audit(  # noqa: PLR0913 - each is a choice of the caller's
    model: nn.Module,
    images: Tensor,
    target: TargetLike = None,
    method: str | Method = "guided_backprop",
    layer: LayerLike | Sequence[LayerLike] | None = None,
    *,
    checks: Collection[str] = CHECKS,
    seed: int = 0,
    how: How = "reset",
    smooth: int = 0,
    activation: Activation = "auto",
    labels: Sequence[str] | None = None,
    batch: int = BATCH,
    output: Output = None,
    watched: Watch = lambda _, items: items,
) -> AuditReport:
    """Check whether one method's maps may be believed. The network is never touched; raw maps are compared, and no pictures.

    Args:
        model: the network; what is made random is a private copy.
        images: ``(N, C, H, W)``, preprocessed as the network expects.
        target: None (each picture's predicted class), a class, or one class per picture; decided once, and kept.
        method: a key of :data:`relume.METHODS`, or a :class:`relume.Method`.
        layer: Grad-CAM's target layer, as for :func:`relume.explain`.
        checks: which checks to make: some of ``coverage``, ``edges``, ``classes``, ``stability``, ``faithfulness`` and
            ``randomisation``; or figures of theirs, such as ``cascade``.
        seed: of everything random; the same arguments give the same figures.
        how: weights are made random by each layer's own ``reset``, or by ``shuffle``.
        smooth: how many noisy copies of each picture every map is averaged over, in all checks; none if 0.
        activation: what the network's scores are, as for :func:`relume.explain`; where they are no probabilities, the score of
            the class is watched as pixels go.
        labels: class names by index, to be shown.
        batch: how many pictures go through the network at once.
        output: which part of what the network returns holds the scores, as for :func:`relume.explain`.
        watched: may look on: told the name of a check and its items, gives the items one by one.

    Raises:
        RelumeError: as :func:`relume.explain`; or the model is no module, the images are no pictures, the target is no class. A
            check that this network cannot be put to is left out, and the report says why.
    """
    question, answer = Question.ask(model, images, method, target, layer, batch=batch, activation=activation, output=output)
    question = question.smoothed(torch.Generator().manual_seed(seed), samples=smooth) if smooth else question
    found = run_checks(question, answer, checks, seed=seed, how=how, keep=True, watched=watched)
    return AuditReport(
        question.method.key,
        answer.model,
        question.layers,
        question.classes,
        answer.score.cpu().double().numpy(),
        _probabilities(answer, question.classes),
        question.images,
        found,
        labels,
        {"activation": answer.activation, "are_probabilities": answer.are_probabilities, "classes": answer.scores.shape[1]}
        | {"seed": seed, "how": how, "smooth": smooth},
        # nothing is known of the mean of maps of noisy copies
        remarks=() if smooth else answer.remarks[question.method.key],
    )


def _probabilities(answer: Explanation, classes: Tensor) -> Values | None:
    """Give the probability of each picture's class; None where the network has scores alone."""
    if answer.quantity == "score":
        return None
    scores = answer.scores.cpu().double()  # in this order: MPS has no float64
    values: Values = activated(scores, answer.activation).gather(1, classes.cpu()[:, None])[:, 0].numpy()
    return values
