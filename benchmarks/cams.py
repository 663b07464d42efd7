"""How much the class activation maps differ from Grad-CAM, and Grad-CAM++ from the same formula with an epsilon of 1e-6.

`python -m benchmarks.cams [SCENES]` compares them on scenes, at each layer of the demo network;
`python -m benchmarks.cams MODEL WEIGHTS LAYER PHOTO` on a photo, for its most probable class.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import relume
from relume.evaluation import open_samples
from relume.measures.localisation import share
from relume.measures.similarity import spearman
from relume.methods import Method, class_activation

LAYERS = ("layer1", "layer2", "layer3")
CAMS = ("gradcam", "hirescam", "layercam", "gradcam_plusplus", "xgradcam")


def with_epsilon(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute Grad-CAM++ with ``g²``, ``g³`` and an epsilon beside them."""
    total = activation.flatten(2).sum(2)[:, :, None, None]
    alpha = gradient**2 / (2 * gradient**2 + total * gradient**3 + 1e-6)
    return torch.einsum("nk,nk...->n...", (alpha * gradient.relu()).sum((2, 3)), activation)


def explained(
    scenes: int, layer: str, methods: list[str | Method]
) -> Iterator[tuple[relume.Explanation, np.ndarray, np.ndarray]]:
    """Yield the maps of every class of every scene, with the pixels of the class and of all things."""
    opened = relume.open_model("demo")
    for load in open_samples(f"scenes:{scenes}", opened, 0):
        sample = load()
        for index, target in sample.targets.items():
            yield relume.explain(opened.model, sample.image[None], index, methods, layer, evidence=None), target, sample.things


def compared(scenes: int, layer: str, methods: list[str | Method], one: str) -> dict[str, tuple[float, float, float]]:
    """Compare each method's saliency with that of ``one``.

    Returns:
        The mean largest difference, each map divided by its highest value; the mean rank correlation; and the mean share of a
        map's mass on things that lies on the right one.
    """
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for e, target, things in explained(scenes, layer, methods):
        saliencies = {key: e.saliency(key)[0].double().numpy() for key in e.maps}
        if not all(values.any() for values in saliencies.values()):
            continue
        reference = saliencies[one] / saliencies[one].max()
        for key, values in saliencies.items():
            difference = float(np.abs(values / values.max() - reference).max())
            rows.setdefault(key, []).append((difference, spearman(values, reference), share(values, target, things)))
    return {key: tuple(np.mean(values, axis=0)) for key, values in rows.items()}


#: Grad-CAM++ as other tools write it.
EPSILON = class_activation("epsilon", with_epsilon, "with 1e-6")


def on_photo(model: str, weights: str, layer: str, photo: str) -> None:
    """Print the largest difference of each map of a photo from Grad-CAM, each divided by its highest value."""
    opened = relume.open_model(model, weights=Path(weights))
    e = opened.explain(photo, None, [*CAMS, EPSILON], layer, evidence=None)
    maps = {key: values / values.max() for key, values in e.maps.items()}
    for key in CAMS:
        print(f"{e.infos[key].title}: {float((maps[key] - maps['gradcam']).abs().max()):.2g} from Grad-CAM")
    print(f"Grad-CAM++ with an epsilon: {float((maps['epsilon'] - maps['gradcam_plusplus']).abs().max()):.2g} from Grad-CAM++")


def on_scenes(scenes: int) -> None:
    """Print a table for the methods, and one for the epsilon."""
    columns = ["layer", "method", "largest difference from Grad-CAM", "rank correlation", "on the right thing"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for layer in LAYERS:
        for key, (difference, correlation, right) in compared(scenes, layer, [*CAMS], "gradcam").items():
            print(f"| {layer} | {relume.METHODS[key].title} | {difference:.2g} | {correlation:.2f} | {right:.2f} |")
    columns = ["layer", "largest difference with an epsilon", "rank correlation", "on the right thing", "with an epsilon"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for layer in LAYERS:
        table = compared(scenes, layer, ["gradcam_plusplus", EPSILON], "gradcam_plusplus")
        difference, correlation, right = table["epsilon"]
        print(f"| {layer} | {difference:.2g} | {correlation:.2f} | {table['gradcam_plusplus'][2]:.2f} | {right:.2f} |")


def main() -> None:
    """Compare on a photo, if one is named, or on scenes."""
    if len(sys.argv) > 2:
        on_photo(*sys.argv[1:])
    else:
        on_scenes(int(sys.argv[1]) if len(sys.argv) > 1 else 50)


if __name__ == "__main__":
    main()
