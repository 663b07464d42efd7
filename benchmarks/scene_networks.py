"""Small networks that learn from drawn scenes, on the layers of the demo network: what the benchmarks of targets share."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import relume
from relume.demo import CLASSES, PREPROCESSING, Scene, draw_scene, load_network
from relume.demo.truth import TRAINING_SEEDS
from relume.measures import share
from relume.measures.localisation import Mask
from relume.pictures.figure import Row, figure, figure_bytes
from relume.targets import Target

__all__ = ["Question", "images_of", "measured", "pair", "save_figure", "train", "trunk"]

N = TypeVar("N", bound=nn.Module)

#: A target with the pixels that its map must fall on, and those of another thing.
Question: TypeAlias = tuple[Target, Mask, Mask]

FIRST = 1000 * TRAINING_SEEDS  # the demo network was trained on scenes before this one


def trunk() -> nn.Sequential:
    """Take the layers of the demo network: images ``(N, 3, 128, 128)`` to ``(N, 96, 16, 16)``."""
    demo = load_network()
    return nn.Sequential(demo.stem, demo.layer1, demo.layer2, demo.layer3)


def images_of(scenes: Sequence[Scene]) -> Tensor:
    """Return the network's input for scenes, ``(N, 3, 128, 128)``."""
    return torch.stack([PREPROCESSING.tensor(scene.picture) for scene in scenes])


def pair(seed: int, *, alike: bool = False) -> Scene:
    """Draw a scene of two things, of one class or of two."""
    first, second = np.random.default_rng(seed).choice(len(CLASSES), 2, replace=False)
    return draw_scene(seed, [CLASSES[first], CLASSES[first if alike else second]])


def train(
    make: Callable[[], N],
    loss: Callable[[N, list[Scene]], Tensor],
    steps: int,
    batch: int = 16,
    draw: Callable[[int], Scene] = draw_scene,
) -> N:
    """Train on new scenes in each step; the statistics of the normalisation stay those of the demo network.

    Args:
        make: makes the network; its random weights are those of a fixed seed.
        loss: what the training makes small, from the network and the scenes of a step.
        steps: the number of steps.
        batch: the number of scenes in each.
        draw: draws the scene of a seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make().eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps + 1)
    for step in range(steps):
        optimizer.zero_grad()
        loss(network, [draw(FIRST + step * batch + i) for i in range(batch)]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.requires_grad_(False)


def measured(
    words: str, network: nn.Module, scenes: Iterable[tuple[Scene, Sequence[Question]]], methods: Sequence[str], layer: str
) -> list[str]:
    """Write a row of a table for each method, which begins with ``words``, from the questions about each scene.

    The columns: the mean share of a map on what was asked for, that on the other thing, and how often the first is larger. An
    empty map has a share of 0.
    """
    shares: dict[str, list[list[float]]] = {key: [] for key in methods}
    for scene, questions in scenes:
        targets = [target for target, *_ in questions]
        explained = relume.compare(network, images_of([scene]), targets, methods, layer, evidence=None) if questions else ()
        for e, (_, *regions) in zip(explained, questions, strict=True):
            for key in methods:
                saliency = e.saliency(key)[0].double().numpy()
                shares[key].append([float(np.nan_to_num(share(saliency, region))) for region in regions])
    rows = []
    for key, pairs in shares.items():
        values = np.array(pairs)
        (inside, outside), wins = values.mean(0), int((values[:, 0] > values[:, 1]).sum())
        rows.append(f"| {words} | {relume.METHODS[key].title} | {inside:.2f} | {outside:.2f} | {wins} of {len(values)} |")
    return rows


def save_figure(rows: Sequence[Row], caption: str, file: Path) -> None:
    """Draw rows of pictures into a JPEG, small enough for a repository."""
    with Image.open(io.BytesIO(figure_bytes(figure(rows, caption, dpi=110)))) as picture:
        picture.convert("RGB").save(file, quality=85)
