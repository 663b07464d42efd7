"""The table of checks; and their measures, by key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from relume.auditing.checks.base import Check, Limit, Measure
from relume.auditing.checks.classes import CLASSES
from relume.auditing.checks.complexity import COMPLEXITY
from relume.auditing.checks.edges import EDGES
from relume.auditing.checks.faithfulness import FAITHFULNESS
from relume.auditing.checks.gradient_health import COVERAGE
from relume.auditing.checks.randomisation import RANDOMISATION
from relume.auditing.checks.stability import STABILITY
from relume.auditing.subject import Subject
from relume.errors import InputError, ModelError
from relume.registry import Registry

__all__ = ["CHECKS", "checks_of", "limits_of", "measures_of", "run_checks"]

#: Every check by key, in the order of tables and pages.
CHECKS: Registry[Check] = Registry(
    "check",
    "relume.checks",
    {
        "coverage": COVERAGE,
        "classes": CLASSES,
        "randomisation": RANDOMISATION,
        "complexity": COMPLEXITY,
        "edges": EDGES,
        "stability": STABILITY,
        "faithfulness": FAITHFULNESS,
    },
)


def measures_of(checks: Mapping[str, Check] = CHECKS) -> dict[str, Measure]:
    """Return the measures of all ``checks`` by key.

    Raises:
        InputError: two checks have measures of one key.

    Example:
        >>> from relume.auditing import measures_of
        >>> measures_of()["classes"].title
        'similarity to the maps of other classes'
    """
    measures: dict[str, Measure] = {}
    for name, check in checks.items():
        if twice := measures.keys() & check.measures.keys():
            raise InputError(f"the check {name!r} has a measure {min(twice)!r}, as another check has; give it another key")
        measures |= check.measures
    return measures


def limits_of(measures: Mapping[str, Measure]) -> dict[str, Limit]:
    """Return the limits of the measures that have one, by key."""
    return {key: measure.limit for key, measure in measures.items() if measure.limit is not None}


def checks_of(names: Collection[str], words: str = "checks") -> dict[str, Check]:
    """Find the checks that ``names`` name: each the key of a check, or of one of its measures.

    Raises:
        InputError: there is no such name, or none at all.
    """
    for name in {*names} & {*CHECKS.names()}:
        CHECKS[name]  # loads one of another package
    owners = {key: check for check in CHECKS for key in CHECKS[check].measures} | {check: check for check in CHECKS}
    unknown = [name for name in names if name not in owners]
    if unknown or not names:
        choices = dict.fromkeys((*CHECKS.names(), *measures_of()))
        raise InputError(f"{words} are some of {', '.join(choices)}; got {', '.join(unknown) or 'none'}")
    return {check: CHECKS[check] for check in CHECKS if check in {owners[name] for name in names}}


def run_checks(subject: Subject, checks: Mapping[str, Check] = CHECKS) -> tuple[dict[str, Any], dict[str, str]]:
    """Make ``checks`` on a subject; return their results, and why others could not be made, by the keys of the checks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.auditing import CHECKS, Subject, run_checks
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1))
        >>> subject = Subject.of(network, torch.rand(2, 3, 8, 8), 0)
        >>> results, skipped = run_checks(subject, {key: CHECKS[key] for key in ("classes", "edges")})
        >>> list(results), list(skipped)
        (['edges'], ['classes'])
    """
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for key, check in checks.items():
        try:
            results[key] = check.make(subject)
        except (InputError, ModelError) as error:  # a network of one class, or without weights
            skipped[key] = str(error)
    return results, skipped
