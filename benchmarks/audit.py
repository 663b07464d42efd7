"""The table of docs/audit.md: `python -m benchmarks.audit [--model SPEC --weights FILE --layer NAME PHOTO...]`.

Every method's figures on the same pictures, means over them: the photos given, or without any a few scenes of the demo world.
With `--other FILE` instead, how alike maps are to those of the same network with other weights, such as those that
`python -m relume.demo.train --shuffle-labels` learnt.
"""

import itertools
import math
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from torch import Tensor

from relume.auditing import CHECKS, FIGURES, audit, between_networks
from relume.auditing.checks.random_weights import How
from relume.auditing.subject import Question
from relume.evaluation import scene_samples
from relume.methods.base import METHODS
from relume.models import Opened, open_model
from relume.pictures.photo import load_picture

SCENES = 6


def pictures(opened: Opened, photos: list[Path]) -> Tensor:
    """The photos as the network sees them, or scenes."""
    if not photos:
        return torch.stack([load().image for load in itertools.islice(scene_samples(SCENES, 5, opened), SCENES)])
    return torch.stack([opened.preprocessing.tensor(opened.preprocessing.view(load_picture(photo))) for photo in photos])


def main(
    photos: Annotated[list[Path] | None, typer.Argument()] = None,
    model: str = "demo",
    weights: Path | None = None,
    layer: str | None = None,
    other: Path | None = None,
    how: How = "reset",
    check: list[str] | None = None,
) -> None:
    """Print the table."""
    opened = open_model(model, weights=weights)
    images = pictures(opened, photos or [])
    rows: dict[str, list[str]] = {}
    for key, method in METHODS.items():
        read, start = layer if method.needs_layer else None, perf_counter()
        if other is not None:
            question, _ = Question.ask(opened.model, images, key, layer=read)
            alike = between_networks(question, question.maps(), open_model(model, weights=other).model)
            found = {name: values.tolist() for name, values in alike.items()}
        else:
            report = audit(
                opened.model, images, method=key, layer=read, checks=check or CHECKS, how=how, activation=opened.activation
            )
            found = {FIGURES[name].title: values.tolist() for name, values in report.figures.items()}
            print(f"{key}: {perf_counter() - start:.0f} s, {[v.level for v in report.verdicts]}, {report.verdict}", flush=True)
        for name, values in found.items():
            known = [value for value in values if not math.isnan(value)]
            rows.setdefault(name, []).append(f"{sum(known) / len(known):.2f}" if known else "–")
    print(f"\n{len(images)} pictures\n\n| | {' | '.join(METHODS)} |\n|---{'|---' * len(METHODS)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
