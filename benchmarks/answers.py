"""Does a map fall on what was asked? `python -m benchmarks.answers KIND [FOLDER]` trains a small network and measures it.

KIND is segmentation, labels, regression or embedding. Each network starts from the demo network and learns from drawn scenes;
that of labels is the demo network. FOLDER gets the weights, a scene, and its maps as a picture. All but labels are factories:
`relume explain scene.png --model benchmarks.answers:segmentation --weights segmentation.pt --ask segmentation:cat`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from benchmarks.scene_networks import Question, images_of, measured, pair, save_figure, train, trunk
from relume.demo import CLASSES, PREPROCESSING, Scene, draw_scene, load_network
from relume.demo.scenes import SIDE
from relume.models.opened import Opened
from relume.pictures.figure import Cell, Row
from relume.targets import Class, Embedding, Regression, Segmentation, Target
from relume.targets.activation import Activation

SCENES = 50
CAT = CLASSES.index("cat")
REFERENCES = 1_000_000  # scenes of one thing, from this seed on


# --- The networks --------------------------------------------------------------------------------------------------------


class Segmenter(nn.Module):
    """A UNet: images ``(N, 3, 128, 128)`` to scores of the background and of each class ``(N, 13, 128, 128)``."""

    def __init__(self) -> None:
        """Take the layers of the demo network, and a way up of random weights."""
        super().__init__()
        self.trunk = trunk()
        self.up1 = nn.Sequential(nn.Conv2d(96 + 32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1), nn.ReLU())
        self.up2 = nn.Sequential(nn.Conv2d(48 + 16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
        self.end = nn.Conv2d(32, 1 + len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of each pixel."""
        stem, layer1, layer2, layer3 = self.trunk
        fine = stem(x)
        coarse = layer1(fine)
        y = self.up1(torch.cat([larger(layer3(layer2(coarse))), coarse], 1))
        return larger(self.end(self.up2(torch.cat([larger(y), fine], 1))))


def larger(x: Tensor) -> Tensor:
    """Double height and width."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Finder(nn.Module):
    """A regression: images ``(N, 3, 128, 128)`` to the column of the middle of the cat, ``(N, 1)``, in pixels.

    The mean column under a softmax over places: Sun et al. 2018, arXiv:1711.08229.
    """

    columns: Tensor

    def __init__(self) -> None:
        """Take the layers of the demo network, and a head of random weights."""
        super().__init__()
        self.trunk = trunk()
        self.head = nn.Sequential(nn.Conv2d(96, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))
        self.register_buffer("columns", torch.arange(4.0, SIDE, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the column."""
        places = self.head(self.trunk(x))
        shares = places.flatten(1).softmax(1).view_as(places).sum(2)
        column: Tensor = (shares * self.columns).sum(2)
        return column


class Embedder(nn.Module):
    """Images ``(N, 3, 128, 128)`` to embeddings ``(N, 32)``, the more alike, the more things two scenes share."""

    def __init__(self) -> None:
        """Take the layers of the demo network as they are, and a head of random weights."""
        super().__init__()
        self.trunk = trunk().requires_grad_(False)  # if they learn too, this loss makes a dog a kind of cat
        self.end = nn.Linear(96, 32)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the embeddings."""
        embeddings: Tensor = self.end(self.trunk(x).mean((2, 3)))
        return embeddings


# --- What they learn -----------------------------------------------------------------------------------------------------


def pixel_loss(network: Segmenter, scenes: list[Scene]) -> Tensor:
    """Compare the scores of each pixel with the class that it shows; the background, which is most of it, counts less."""
    truth = torch.zeros(len(scenes), SIDE, SIDE, dtype=torch.long)
    for owners, scene in zip(truth, scenes, strict=True):
        for thing in scene.things:
            owners[torch.from_numpy(thing.mask)] = 1 + CLASSES.index(thing.name)
    return F.cross_entropy(network(images_of(scenes)), truth, torch.tensor([0.3] + [1.0] * len(CLASSES)))


def column_of_cat(scene: Scene) -> float:
    """Return the column of the middle of the cat, in pixels."""
    return float(scene.mask(CAT).nonzero()[1].mean())


def column_loss(network: Finder, scenes: list[Scene]) -> Tensor:
    """Compare the columns in cells of 8 pixels."""
    truth = torch.tensor([[column_of_cat(scene)] for scene in scenes])
    return F.smooth_l1_loss(network(images_of(scenes)) / 8, truth / 8)


def similarity_loss(network: Embedder, scenes: list[Scene]) -> Tensor:
    """Compare the cosines of all pairs of embeddings with the cosines of what is in the scenes."""
    present = torch.stack([torch.zeros(len(CLASSES)).index_fill(0, torch.tensor(scene.classes), 1) for scene in scenes])
    truth, cosines = (F.normalize(v) @ F.normalize(v).T for v in (present, network(images_of(scenes))))
    return F.mse_loss(cosines, truth)


def with_cat(seed: int) -> Scene:
    """Draw a scene of a cat and one or two other things."""
    rng = np.random.default_rng(seed)
    others = rng.choice([name for name in CLASSES if name != "cat"], rng.integers(1, 3), replace=False)
    return draw_scene(seed, [str(name) for name in rng.permutation(["cat", *others])])


# --- The questions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    Attributes:
        make: makes the network, with random weights in what it has to learn.
        ask: asks about the things of a scene: each target with the number of the thing on which its map must fall, and a
            picture of what was asked.
        methods: the methods measured.
        layer: the layer of class activation maps.
        loss: what the training makes small; None if the network is trained already.
        steps: the number of steps of the training.
        draw: draws the scenes of the training.
        labels: the names of the classes.
        activation: how scores become probabilities.
    """

    make: Callable[[], nn.Module]
    ask: Callable[[Opened, Scene], list[tuple[Target, int, Image.Image]]]
    methods: tuple[str, ...]
    layer: str
    loss: Callable[[Any, list[Scene]], Tensor] | None = None
    steps: int = 250
    draw: Callable[[int], Scene] = draw_scene
    labels: tuple[str, ...] | None = None
    activation: Activation = "none"

    def opened(self, name: str) -> Opened:
        """Return the network before its training, with its preprocessing and labels."""
        return Opened(name, self.make(), PREPROCESSING, self.labels, self.activation)

    def questions(self, network: Opened, scene: Scene) -> list[Question]:
        """Return each target with the pixels of the thing on which its map must fall, and those of the others."""
        masks = [thing.mask for thing in scene.things]
        things = np.logical_or.reduce(masks)
        return [(target, masks[i], things & ~masks[i]) for target, i, _ in self.ask(network, scene)]


def pixels(network: Opened, scene: Scene) -> list[tuple[Target, int, Image.Image]]:
    """Ask for the pixels of each thing that the network finds; the picture shows them."""
    classes = network.model(images_of([scene]))[0].argmax(0)
    asked: list[tuple[Target, int, Image.Image]] = []
    for i, thing in enumerate(scene.things):
        region = classes == 1 + CLASSES.index(thing.name)
        if region.any():
            shown = Image.composite(scene.picture, Image.new("RGB", (SIDE, SIDE), "white"), Image.fromarray(region.numpy()))
            asked.append((Segmentation(1 + CLASSES.index(thing.name)), i, shown))
    return asked


def presence(_: Opened, scene: Scene) -> list[tuple[Target, int, Image.Image]]:
    """Ask for the class of each thing."""
    return [(Class(CLASSES.index(thing.name)), i, scene.picture) for i, thing in enumerate(scene.things)]


def directions(network: Opened, scene: Scene) -> list[tuple[Target, int, Image.Image]]:
    """Ask what moves the column to the right, and to the left: the cat, both times; the picture shows the column."""
    cat = next(i for i, thing in enumerate(scene.things) if thing.name == "cat")
    column, shown = network.model(images_of([scene])).item(), scene.picture.copy()
    ImageDraw.Draw(shown).line([(column, 0), (column, SIDE)], fill=(255, 90, 0))
    return [(Regression("up"), cat, shown), (Regression("down"), cat, shown)]


def likenesses(network: Opened, scene: Scene) -> list[tuple[Target, int, Image.Image]]:
    """Ask for the likeness to another scene, of either thing alone."""
    others = [draw_scene(REFERENCES + CLASSES.index(thing.name), [thing.name]).picture for thing in scene.things]
    return [(Embedding(network.embedding(other)), i, other) for i, other in enumerate(others)]


METHODS = ("guided_gradcam", "guided_backprop", "gradcam")
PLACES = ("guided_layercam", "guided_backprop", "layercam", "gradcam")

KINDS = {
    "segmentation": Kind(Segmenter, pixels, METHODS, "up2", pixel_loss, labels=("background", *CLASSES)),
    "labels": Kind(load_network, presence, METHODS, "layer3", labels=CLASSES, activation="sigmoid"),
    "regression": Kind(Finder, directions, PLACES, "trunk.3", column_loss, 200, with_cat),
    "embedding": Kind(Embedder, likenesses, METHODS, "trunk.3", similarity_loss),
}


def segmentation() -> Opened:
    """Return the UNet, for its weights."""
    return KINDS["segmentation"].opened("segmentation")


def regression() -> Opened:
    """Return the network that finds the cat, for its weights."""
    return KINDS["regression"].opened("regression")


def embedding() -> Opened:
    """Return the network of embeddings, for its weights."""
    return KINDS["embedding"].opened("embedding")


# --- The answers ---------------------------------------------------------------------------------------------------------


def table(name: str, network: Opened, count: int = SCENES) -> str:
    """Measure a network's maps on held-out scenes, and write a table."""
    kind = KINDS[name]
    scenes = [with_cat(seed) if name == "regression" else pair(seed) for seed in range(count)]
    questions = ((scene, kind.questions(network, scene)) for scene in scenes)
    head = ["question | method | on the thing asked for | on others | the thing has more", " | ".join(["---"] * 5)]
    lines = [f"| {line} |" for line in head]
    return "\n".join([*lines, *measured(name, network.model, questions, kind.methods, kind.layer)])


def rows(name: str, network: Opened, scene: Scene) -> list[Row]:
    """Draw what was asked about a scene, and the maps."""
    kind = KINDS[name]
    asked = kind.ask(network, scene)
    explained = network.compare(scene.picture, [target for target, *_ in asked], [*kind.methods], kind.layer, evidence=None)
    drawn = []
    for e, (*_, shown) in zip(explained, asked, strict=True):
        cells = [Cell(e.infos[key].title, e.picture(key, size=360), note=e.doubt(key)) for key in kind.methods]
        drawn.append(Row(e.title(), [Cell("asked for", shown.resize((360, 360))), *cells]))
    return drawn


def main(name: str, folder: Path | None = None) -> None:
    """Train and measure; write weights, scene and picture into a folder if one is named."""
    torch.set_num_threads(1)
    kind, start = KINDS[name], perf_counter()
    network = kind.opened(name)
    if kind.loss is not None:
        network = replace(network, model=train(kind.make, kind.loss, kind.steps, draw=kind.draw))
        print(f"trained in {perf_counter() - start:.0f} s")
    print(table(name, network))
    if folder is not None:
        folder.mkdir(exist_ok=True)
        scene = draw_scene(0, ["cat", "dog"])
        scene.picture.save(folder / "scene.png")
        draw_scene(REFERENCES + CAT, ["cat"]).picture.save(folder / "cat.png")
        torch.save(network.model.state_dict(), folder / f"{name}.pt")
        save_figure(rows(name, network, scene), f"a small network of drawn things, layer {kind.layer}", folder / f"{name}.jpg")


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
