"""Does a map fall on the box that was asked for? `python -m benchmarks.detector` trains a small detector and measures it.

The detector starts from the demo network and learns the boxes of drawn scenes, in about a minute on one core.
`python -m benchmarks.detector docs/images/detector.jpg` also draws the maps of one scene.
"""

import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

import relume
from benchmarks.scene_networks import Question, images_of, measured, pair, save_figure, train, trunk
from relume.demo import CLASSES, PREPROCESSING, Scene, Thing, draw_scene
from relume.demo.scenes import SIDE
from relume.models.opened import Opened
from relume.pictures.figure import Cell, Row
from relume.targets import Detection
from relume.targets.boxes import overlap

METHODS = ("guided_gradcam", "guided_backprop", "gradcam")
LAYER = "trunk.3"
STRIDE = 8
CELLS = 16
SCENES, STEPS = 50, 250


class Detector(nn.Module):
    """A detector like YOLOX of one scale: images ``(N, 3, 128, 128)`` to ``(N, 256, 4 + 1 + 12)``, boxes in pixels."""

    def __init__(self) -> None:
        """Take the layers of the demo network, and a head of random weights."""
        super().__init__()
        self.trunk = trunk()
        self.head = nn.Conv2d(96, 5 + len(CLASSES), 1)
        # as rare as things are (Lin et al. 2017, arXiv:1708.02002); from 0, so short a training left most Grad-CAMs empty
        self.head.bias = nn.Parameter(torch.tensor([0.0] * 4 + [-4.6] + [-2.4] * len(CLASSES)))
        rows, columns = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
        self.cells = torch.stack([columns, rows], -1).flatten(0, 1) + 0.5

    def raw(self, x: Tensor) -> Tensor:
        """Compute, for each cell, the offset of the centre, the logarithm of the size (both in cells), and logits."""
        raw: Tensor = self.head(self.trunk(x)).flatten(2).transpose(1, 2)
        return raw

    def forward(self, x: Tensor) -> Tensor:
        """Detect: centre, width and height in pixels, objectness, probability of each class."""
        raw = self.raw(x)
        return torch.cat([STRIDE * (self.cells + raw[..., :2]), STRIDE * raw[..., 2:4].exp(), raw[..., 4:].sigmoid()], -1)


def truth_of(scenes: list[Scene], detector: Detector) -> Tensor:
    """Write down, for the cell at the middle of each box, offset, log size, a one, and the class; a row of zeros elsewhere."""
    truth = torch.zeros(len(scenes), CELLS**2, 5 + len(CLASSES))
    for rows, scene in zip(truth, scenes, strict=True):
        for thing in scene.things:
            x0, y0, x1, y1 = (side / STRIDE for side in thing.box)
            middle = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2])
            cell = int(middle[1]) * CELLS + int(middle[0])
            rows[cell] = 0
            rows[cell, :2] = middle - detector.cells[cell]
            rows[cell, 2:4] = torch.tensor([x1 - x0, y1 - y0]).log()
            rows[cell, 4] = rows[cell, 5 + CLASSES.index(thing.name)] = 1
    return truth


def loss(detector: Detector, scenes: list[Scene]) -> Tensor:
    """Compare objectness in every cell with the truth; classes and boxes in the cells of things."""
    raw, truth = detector.raw(images_of(scenes)), truth_of(scenes, detector)
    there = truth[..., 4] == 1
    objects = F.binary_cross_entropy_with_logits(raw[..., 4], truth[..., 4], reduction="sum") / there.sum()
    classes = F.binary_cross_entropy_with_logits(raw[there][:, 5:], truth[there][:, 5:], reduction="sum") / there.sum()
    return objects + classes + 2 * F.smooth_l1_loss(raw[there][:, :4], truth[there][:, :4])


def question(thing: Thing, way: str) -> Detection:
    """Ask for the best box of a thing's class, or, if ``way`` is ``box``, for the one that overlaps most with its own."""
    return Detection(CLASSES.index(thing.name), box=thing.box if way == "box" else None)


def questions(scene: Scene, way: str) -> list[Question]:
    """Ask for each thing of a scene of two, with the pixels of its box and of the other's."""
    boxes = []
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        inside = np.zeros((SIDE, SIDE), dtype=bool)
        inside[y0:y1, x0:x1] = True
        boxes.append(inside)
    return [(question(thing, way), boxes[i], boxes[1 - i]) for i, thing in enumerate(scene.things)]


def mean_overlap(detector: Detector, scenes: list[Scene]) -> float:
    """Compute the mean overlap of the true box of each thing with the best detected box of its class."""
    overlaps = []
    for scene in scenes:
        outputs = detector(images_of([scene]))
        for thing in scene.things:
            meant = question(thing, "class").known((SIDE, SIDE), "none").frozen(outputs, 1).meant
            assert meant is not None, "frozen"
            overlaps.append(float(overlap(meant.corners, thing.box)))
    return round(float(np.mean(overlaps)), 2)


def table(detector: Detector, count: int = SCENES) -> str:
    """Measure on held-out scenes and write a table."""
    unlike, alike = ([pair(seed, alike=one) for seed in range(count)] for one in (False, True))
    lines = ["two things of | asked by | method | in its box | in the other's | its box has more", " | ".join(["---"] * 6)]
    lines = [f"| {line} |" for line in lines]
    for kind, scenes, way in (("two classes", unlike, "class"), ("two classes", unlike, "box"), ("one class", alike, "box")):
        lines += measured(f"{kind} | {way}", detector, ((scene, questions(scene, way)) for scene in scenes), METHODS, LAYER)
    return "\n".join(lines)


def boxed(picture: Image.Image, thing: Thing) -> Image.Image:
    """Draw the box of a thing on a picture of the scene, three times larger."""
    picture = picture.convert("RGB").resize((3 * SIDE, 3 * SIDE))
    ImageDraw.Draw(picture).rectangle([3 * side for side in thing.box], outline=(255, 90, 0), width=3)
    return picture


def rows(detector: Detector, scene: Scene) -> list[Row]:
    """Draw the scene and the maps for each of its boxes."""
    network = Opened("detector", detector, PREPROCESSING, CLASSES)
    drawn = []
    for thing in scene.things:
        e = network.explain(scene.picture, question(thing, "box"), [*METHODS], LAYER)
        cells = [Cell(relume.METHODS[key].title, boxed(e.picture(key), thing)) for key in METHODS]
        drawn.append(Row(e.title(), [Cell("asked for", boxed(scene.picture, thing)), *cells]))
    return drawn


def main() -> None:
    """Train, measure, and draw a scene into a file if one is named."""
    torch.set_num_threads(1)
    start, detector = perf_counter(), train(Detector, loss, STEPS)
    print(f"trained in {perf_counter() - start:.0f} s")
    print("mean overlap with the true boxes:", mean_overlap(detector, [*map(pair, range(SCENES))]))
    print(table(detector))
    for file in sys.argv[1:]:
        save_figure(rows(detector, draw_scene(0, ["cat", "dog"])), "a small detector of drawn things", Path(file))


if __name__ == "__main__":
    main()
