"""The table of docs/audit.md: `python -m benchmarks.audit [--model SPEC --weights FILE --layer NAME PHOTO...]`.

Measures of the maps of the same images, means over them: the photos given, or without any a few scenes of the demo world. The
methods are five, or those that `--method` names.
With `--other FILE` instead, the similarity of maps to those of the same network with other weights, such as those that
`python -m relume.demo.train --shuffle-labels` learnt.
"""

from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from torch import Tensor

from relume.auditing import Subject, audit, between_networks, measures_of
from relume.auditing.drawing import number
from relume.auditing.subject import How
from relume.evaluation import open_samples
from relume.measures.similarity import defined_mean
from relume.methods.base import METHODS
from relume.models import Opened, open_model
from relume.pictures.photo import load_picture

SCENES = 6

FIVE = ["gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam"]


def pictures(opened: Opened, photos: list[Path]) -> Tensor:
    """Return the photos as the network gets them, or scenes."""
    if not photos:
        return torch.stack([load().image for load in open_samples(f"scenes:{SCENES}", opened, seed=5)])
    return torch.stack([opened.preprocessing.tensor(opened.preprocessing.view(load_picture(photo))) for photo in photos])


def main(
    photos: Annotated[list[Path] | None, typer.Argument()] = None,
    model: str = "demo",
    weights: Path | None = None,
    layer: str | None = None,
    other: Path | None = None,
    how: How = "reset",
    check: list[str] | None = None,
    method: list[str] | None = None,
) -> None:
    """Print the table."""
    methods = {key: METHODS[key] for key in method or FIVE}
    opened = open_model(model, weights=weights)
    images = pictures(opened, photos or [])
    rows: dict[str, list[str]] = {}
    titles = {key: measure.title for key, measure in measures_of().items()}
    for key, audited in methods.items():
        read, start = layer if audited.needs_layer else None, perf_counter()
        if other is not None:
            subject = Subject.of(opened.model, images, method=key, layer=read)
            measures = between_networks(subject, open_model(model, weights=other).model)
        else:
            report = audit(opened.model, images, method=key, layer=read, checks=check, how=how, activation=opened.activation)
            measures = {titles[name]: values for name, values in report.measures.items()}
            print(f"{key}: {perf_counter() - start:.0f} s, {[v.level for v in report.verdicts]}, {report.verdict}", flush=True)
        for name, values in measures.items():
            rows.setdefault(name, []).append(number(float(defined_mean(values))))
    print(f"\n{len(images)} images\n\n| | {' | '.join(methods)} |\n|---{'|---' * len(methods)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
