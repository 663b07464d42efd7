"""Do maps of signals, bands and volumes fall on what was asked for? `python -m benchmarks.recordings` measures it.

Each held-out scene shows two things of two classes, and both are asked for.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.random import default_rng
from torch import nn

import relume
from relume.demo import (
    SHOWN_IN,
    RecordedScene,
    draw_bands,
    draw_signal,
    draw_volume,
    load_band_network,
    load_signal_network,
    load_volume_network,
)
from relume.evaluation import COLUMNS, Evaluation, Sample, evaluate
from relume.evaluation.table import markdown
from relume.measures.localisation import Mask
from relume.targets.base import Target

METHODS = ("gradient", "gradient_x_input", "guided_backprop", "gradcam", "guided_gradcam")
MEASURES = ("mass_accuracy", "within", "right_thing", "pointing")
SCENES = 50
WORLDS = {
    "signals": (draw_signal, load_signal_network),
    "bands": (draw_bands, load_band_network),
    "volumes": (draw_volume, load_volume_network),
}


def pair(world: str, seed: int) -> RecordedScene:
    """Draw a scene of two things of two classes."""
    draw = WORLDS[world][0]
    return draw(seed, default_rng(seed).permutation(draw(0).labels)[:2].tolist())


def sample(scene: RecordedScene) -> Sample:
    """Make a sample of a scene, to evaluate methods on."""
    targets: dict[int | Target, Mask] = {index: scene.mask(index) for index in scene.classes}
    return Sample(f"scene {scene.seed}", torch.from_numpy(scene.values), targets)


def measured(world: str, count: int = SCENES) -> Evaluation:
    """Measure the maps of every method on the first held-out scenes of a world."""
    return evaluate(WORLDS[world][1](), [sample(pair(world, seed)) for seed in range(count)], METHODS)


def table(evaluation: Evaluation) -> str:
    """Write the measures of place in Markdown, a line for each method and baseline."""
    rows = {evaluation.titles[key]: row for key, row in evaluation.rows.items()}
    return markdown(rows, {key: COLUMNS[key] for key in MEASURES})


def named_bands(network: nn.Module, count: int = SCENES) -> Mapping[str, float]:
    """Compute the share of questions, two a scene, whose band has the most of gradient × input, summed over all pixels."""
    named: dict[str, list[bool]] = {"sum": [], "sum of magnitudes": []}
    for scene in (pair("bands", seed) for seed in range(count)):
        images = torch.from_numpy(scene.values)[None]
        explanations = relume.compare(network, images, list(scene.classes), ["gradient_x_input"], evidence=None)
        for index, e in zip(scene.classes, explanations, strict=True):
            product, band = e["gradient_x_input"][0], SHOWN_IN[scene.labels[index]]
            named["sum"].append(int(product.sum((1, 2)).argmax()) == band)
            named["sum of magnitudes"].append(int(product.abs().sum((1, 2)).argmax()) == band)
    return {how: float(np.mean(right)) for how, right in named.items()}


def main() -> None:
    """Print a table for each world, and how often gradient × input names the band."""
    for world in WORLDS:
        print(f"{world}, {SCENES} scenes of two things:\n\n{table(measured(world))}")
    for how, right in named_bands(load_band_network()).items():
        print(f"gradient × input names the band, by the {how} of each band: {right:.0%} of {2 * SCENES}")


if __name__ == "__main__":
    main()
