"""Every check of a question, and the figures that stand for them in a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from relume.auditing.checks.classes import ClassSensitivity, class_sensitivity
from relume.auditing.checks.edges import EdgeSimilarity, edge_similarity
from relume.auditing.checks.faithfulness import Faithfulness, measure_faithfulness
from relume.auditing.checks.gradient_health import Health, measure_health
from relume.auditing.checks.random_weights import How, check_how
from relume.auditing.checks.randomisation import Randomisation, randomise
from relume.auditing.checks.stability import Stability, measure_stability
from relume.auditing.subject import Question
from relume.errors import InputError, ModelError
from relume.explanation.result import Explanation
from relume.measures.similarity import Maps, Values

__all__ = ["CHECKS", "FIGURES", "Checks", "Figure", "Watch", "checks_of", "run_checks"]

#: Every check, by what it is called, the cheap ones first.
CHECKS = ("coverage", "edges", "classes", "stability", "faithfulness", "randomisation")

#: Looks on while a check goes through its items: told what it is called, and them.
Watch: TypeAlias = Callable[[str, Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Checks:
    """What the checks found; None for one that was not asked for, or that ``skipped`` says why it could not be made."""

    original: Maps
    coverage: Health | None = None
    edges: EdgeSimilarity | None = None
    classes: ClassSensitivity | None = None
    stability: Stability | None = None
    faithfulness: Faithfulness | None = None
    randomisation: Randomisation | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)


def run_checks(
    question: Question,
    answer: Explanation,
    checks: Collection[str] = CHECKS,
    *,
    seed: int = 0,
    how: How = "reset",
    alone: bool = True,
    keep: bool = False,
    watched: Watch = lambda _, items: items,
) -> Checks:
    """Make the ``checks`` of a question. Each has a generator of its own, so that leaving one out does not change the others.

    Args:
        question: the method, network and pictures.
        answer: their explanation.
        checks: which of :data:`CHECKS`, or of :data:`FIGURES`, each of which has the check made that it is of.
        seed: of everything random.
        how: weights are made random by each layer's own ``reset``, or by ``shuffle``.
        alone: whether layers are made random one by one too, beside the cascade.
        keep: whether the maps at each stage of the cascade are kept.
        watched: may look on.

    Raises:
        InputError: there is no such check, or no such way to make weights random.
    """
    check_how(how)
    checks = checks_of(checks)
    maps = question.maps()

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    made: Mapping[str, Callable[[], Any]] = {
        "coverage": lambda: measure_health(question, maps),
        "edges": lambda: edge_similarity(question, maps),
        "classes": lambda: class_sensitivity(question, maps, answer.scores, generator()),
        "stability": lambda: measure_stability(question, maps, generator()),
        "faithfulness": lambda: measure_faithfulness(
            question, maps, generator(), answer.activation, answer.quantity, lambda items: watched("faithfulness", items)
        ),
        "randomisation": lambda: randomise(
            question, maps, generator(), how=how, alone=alone, keep=keep, watched=lambda items: watched("randomisation", items)
        ),
    }
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name in CHECKS:
        if name in checks:
            try:
                found[name] = made[name]()
            except (InputError, ModelError) as error:  # a network of one class, or without weights
                skipped[name] = str(error)
    return Checks(maps, **found, skipped=skipped)


def checks_of(names: Collection[str], called: str = "checks") -> list[str]:
    """Find the checks that ``names`` name: each a check, or one of its figures.

    Raises:
        InputError: there is no such name, or none at all.
    """
    checks = {name: name for name in CHECKS} | {key: figure.check for key, figure in FIGURES.items()}
    unknown = [name for name in names if name not in checks]
    if unknown or not names:
        raise InputError(
            f"{called} are some of {', '.join(dict.fromkeys((*CHECKS, *FIGURES)))}; got {', '.join(unknown) or 'none'}"
        )
    return [name for name in CHECKS if name in {checks[each] for each in names}]


# --- Figures -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a check: what it is called, whether ``high`` or ``low`` speaks for the map, how the check has it, and why."""

    check: str
    title: str
    better: Literal["high", "low"]
    of: Callable[[Any], Values]
    meaning: str


def _absolute(name: str) -> Callable[[Any], Values]:
    """Spearman's correlation of the saliency, among the similarities that a check has under ``name``."""
    return lambda check: getattr(check, name)["absolute"]


def _gain(kind: str, over: str) -> Callable[[Faithfulness], Values]:
    return lambda check: check.gain[kind][over]


def _edges(check: EdgeSimilarity) -> Values:
    """The higher of both edge detectors'; where one found no edge, the other's."""
    return np.fmax(check.similarity["sobel"]["absolute"], check.similarity["canny"]["absolute"])


#: Every figure by key, ``(N,)`` each; similarities are Spearman's of the saliency.
FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "randomisation": Figure(
            "randomisation",
            "similar with the top 9/10 of layers random",
            "low",
            _absolute("late"),
            "A map of what the network learnt is lost when its weights are.",
        ),
        "cascade": Figure(
            "randomisation",
            "similar on average as layers become random",
            "low",
            _absolute("mean"),
            "The area under the curve of the cascade: how long the map outlives the weights.",
        ),
        "untrained": Figure(
            "randomisation",
            "similar to the map of an untrained network",
            "low",
            _absolute("untrained"),
            "What a network that learnt nothing draws, too, was not learnt.",
        ),
        "classes": Figure(
            "classes",
            "similar to the maps of other classes",
            "low",
            _absolute("mean"),
            "A map that explains one class differs from those of the runner-up, a random other and the least likely.",
        ),
        "edges": Figure(
            "edges", "similar to edges (Sobel or Canny)", "low", _edges, "What an edge detector draws needs no network."
        ),
        "input": Figure(
            "edges",
            "similar to the picture itself",
            "low",
            lambda c: c.similarity["input"]["absolute"],
            "A map that gives the picture back says little about the network.",
        ),
        "stability": Figure(
            "stability",
            "similar under small noise",
            "high",
            _absolute("noise"),
            "Noise that nobody sees is not to change the map.",
        ),
        "shift": Figure(
            "stability", "similar when shifted by a pixel", "high", _absolute("shift"), "The map is to move with the picture."
        ),
        "deletion": Figure(
            "faithfulness",
            "deletion, gain over chance",
            "high",
            _gain("deletion", "random"),
            "How much sooner the class falls when the map says which pixels turn to the mean colour, and not chance.",
        ),
        "insertion": Figure(
            "faithfulness",
            "insertion, gain over chance",
            "high",
            _gain("insertion", "random"),
            "How much sooner it rises as pixels come back into the blurred picture.",
        ),
        "road": Figure(
            "faithfulness",
            "ROAD, gain over chance",
            "high",
            _gain("road", "random"),
            "The same as pixels are imputed from their neighbours, so that their shape is not seen.",
        ),
        "road_edges": Figure(
            "faithfulness",
            "ROAD, gain over edges",
            "high",
            _gain("road", "edges"),
            "The same against the order of the picture's edges.",
        ),
    }
)
