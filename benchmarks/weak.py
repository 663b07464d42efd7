"""How much of a Grad-CAM and of a Guided Grad-CAM is left: `python -m benchmarks.weak`, or `... SPEC WEIGHTS LAYER PHOTO...`.

Without arguments the maps of all twelve classes on scenes of the demo world, of those that are in the scene and of the others;
else those of the six highest and six lower classes in each photo.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

import relume
from relume.demo import CLASSES, draw_scene
from relume.explanation.remarks import WEAK, overlap, positive_share
from relume.methods.base import METHODS, Method
from relume.methods.gradients import Gradients
from relume.models.sources import open_model

SCENES = 100


def shares(model: torch.nn.Module, image: torch.Tensor, classes: list[int], layer: str | None) -> list[tuple[float, float]]:
    """Return the share of the Grad-CAM and of the Guided Grad-CAM of one image that is left, for each class."""
    found: list[tuple[float, float]] = []

    def look(gathered: Gradients) -> torch.Tensor:
        product = METHODS["guided_gradcam"].compute(gathered)
        positive = positive_share(gathered)
        found.append((positive, positive * overlap(gathered, product)))
        return product

    probe = Method("probe", METHODS["guided_gradcam"].needs, look)
    relume.compare(model, image[None], classes, [probe], layer, evidence=None)
    return found


def demo() -> dict[str, list[tuple[float, float]]]:
    """Scenes of the demo world."""
    opened = open_model("demo")
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for seed in range(1000, 1000 + SCENES):
        scene = draw_scene(seed)
        image = opened.preprocessing.tensor(opened.preprocessing.view(scene.picture))
        for index, pair in enumerate(shares(opened.model, image, list(range(len(CLASSES))), None)):
            groups["class in the scene" if index in scene.classes else "another class"].append(pair)
    return groups


def photographs(spec: str, weights: str, layer: str, *, files: list[str]) -> dict[str, list[tuple[float, float]]]:
    """Photographs, by a network of many classes."""
    opened = open_model(spec, weights=Path(weights))
    groups: dict[str, list[tuple[float, float]]] = {"the six highest classes": [], "six lower ones": []}
    for file in files:
        image = opened.preprocessing.tensor(opened.preprocessing.view(relume.pictures.photo.load_picture(Path(file))))
        with torch.no_grad():
            order = opened.model.eval()(image[None].to(opened.device))[0].argsort(descending=True).tolist()
        found = shares(opened.model, image, [*order[:6], *order[20:380:60]], layer)
        groups["the six highest classes"] += found[:6]
        groups["six lower ones"] += found[6:]
    return groups


def main() -> None:
    """Print, for each group and method, how many maps are empty, how many weak, and where the others lie."""
    groups = photographs(*sys.argv[1:4], files=sys.argv[4:]) if len(sys.argv) > 4 else demo()
    print("| | | maps | empty | weak | the others, from the lowest |\n|---|---|---|---|---|---|")
    for name, pairs in groups.items():
        for method, column in zip(("Grad-CAM", "Guided Grad-CAM"), np.array(pairs).T, strict=True):
            empty, weak = column == 0, (column > 0) & (column < WEAK)
            rest = np.sort(column[column >= WEAK])
            lies = ", ".join(f"{value:.2g}" for value in (rest[0], np.median(rest), rest[-1]))
            print(f"| {name} | {method} | {len(column)} | {empty.sum()} | {weak.sum()} | {lies} (lowest, median, highest) |")


if __name__ == "__main__":
    main()
