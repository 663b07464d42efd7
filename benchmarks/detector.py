"""Does a map fall on the box that was asked for? `python -m benchmarks.detector` trains a small detector and measures it.

The detector starts from the demo network and learns the boxes of drawn scenes, in about a minute on one core.
`python -m benchmarks.detector docs/images/detector.jpg` also draws the maps of one scene.
"""

import io
import sys
from collections.abc import Iterator
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

import relume
from relume.demo import CLASSES, PREPROCESSING, Scene, Thing, draw_scene, load_network
from relume.demo.scenes import SIDE
from relume.demo.truth import TRAINING_SEEDS
from relume.models.opened import Opened
from relume.pictures.figure import Cell, Row, figure, figure_bytes
from relume.targets import Detection
from relume.targets.boxes import overlap

METHODS = ("guided_gradcam", "guided_backprop", "gradcam")
LAYER = "trunk.3"
STRIDE = 8
CELLS = 16
SCENES, STEPS, BATCH = 50, 250, 16
FIRST = 1000 * TRAINING_SEEDS  # the demo network was trained on scenes before this one


class Detector(nn.Module):
    """A detector like YOLOX of one scale: images ``(N, 3, 128, 128)`` to ``(N, 256, 4 + 1 + 12)``, boxes in pixels."""

    def __init__(self) -> None:
        """Take the layers of the demo network, and a head of random weights."""
        super().__init__()
        demo = load_network()
        self.trunk = nn.Sequential(demo.stem, demo.layer1, demo.layer2, demo.layer3)
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


def lesson(scenes: list[Scene], detector: Detector) -> tuple[Tensor, Tensor]:
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
    return torch.stack([PREPROCESSING.tensor(scene.picture) for scene in scenes]), truth


def train(steps: int = STEPS, batch: int = BATCH) -> Detector:
    """Train on new scenes in each step; the statistics of the normalisation stay those of the demo network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = Detector().eval()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps + 1)
    for step in range(steps):
        images, truth = lesson([draw_scene(FIRST + step * batch + i) for i in range(batch)], detector)
        raw, there = detector.raw(images), truth[..., 4] == 1
        loss = F.binary_cross_entropy_with_logits(raw[..., 4], truth[..., 4], reduction="sum") / there.sum()
        loss = loss + F.binary_cross_entropy_with_logits(raw[there][:, 5:], truth[there][:, 5:], reduction="sum") / there.sum()
        loss = loss + 2 * F.smooth_l1_loss(raw[there][:, :4], truth[there][:, :4])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return detector.requires_grad_(False)


def question(thing: Thing, way: str) -> Detection:
    """Ask for the best box of a thing's class, or, if ``way`` is ``box``, for the one that overlaps most with its own."""
    return Detection(CLASSES.index(thing.name), box=thing.box if way == "box" else None)


def pair(seed: int, *, alike: bool) -> Scene:
    """Draw a scene of two things, of one class or of two."""
    first, second = np.random.default_rng(seed).choice(len(CLASSES), 2, replace=False)
    return draw_scene(seed, [CLASSES[first], CLASSES[first if alike else second]])


def share(saliency: np.ndarray, box: tuple[int, ...]) -> float:
    """Compute the share of a saliency ``(128, 128)`` that lies inside a box; 0 if it is empty."""
    x0, y0, x1, y1 = box
    return float(saliency[y0:y1, x0:x1].sum() / saliency.sum()) if saliency.any() else 0.0


def measured(detector: Detector, scenes: list[Scene], way: str) -> Iterator[tuple[str, float, float]]:
    """Yield, for either thing of each scene, a method and the shares of its map in the asked-for box and in the other's."""
    for scene in scenes:
        image = PREPROCESSING.tensor(scene.picture)[None]
        for thing, other in (scene.things, scene.things[::-1]):
            e = relume.explain(detector, image, question(thing, way), METHODS, LAYER, evidence=None)
            for key in METHODS:
                saliency = e.saliency(key)[0].double().numpy()
                yield key, share(saliency, thing.box), share(saliency, other.box)


def mean_overlap(detector: Detector, scenes: list[Scene]) -> float:
    """Compute the mean overlap of the true box of each thing with the best detected box of its class."""
    overlaps = []
    for scene in scenes:
        outputs = detector(PREPROCESSING.tensor(scene.picture)[None])
        for thing in scene.things:
            meant = question(thing, "class").known((SIDE, SIDE), "none").frozen(outputs, 1).meant
            assert meant is not None, "frozen"
            overlaps.append(float(overlap(meant.corners, thing.box)))
    return round(float(np.mean(overlaps)), 2)


def table(detector: Detector, count: int = SCENES) -> str:
    """Measure on held-out scenes and write a table."""
    unlike, alike = ([pair(seed, alike=one) for seed in range(count)] for one in (False, True))
    lines = ["two things of | asked by | method | in its box | in the other's | its box has more", " | ".join(["---"] * 6)]
    for kind, scenes, way in (("two classes", unlike, "class"), ("two classes", unlike, "box"), ("one class", alike, "box")):
        rows = list(measured(detector, scenes, way))
        for key in METHODS:
            values = np.array([row[1:] for row in rows if row[0] == key])
            (inside, outside), wins = values.mean(0), int((values[:, 0] > values[:, 1]).sum())
            numbers = f"{inside:.2f} | {outside:.2f} | {wins} of {len(values)}"
            lines.append(f"{kind} | {way} | {relume.METHODS[key].title} | {numbers}")
    return "\n".join(f"| {line} |" for line in lines)


def boxed(picture: Image.Image, thing: Thing) -> Image.Image:
    """Draw the box of a thing on a picture of the scene, three times larger."""
    picture = picture.convert("RGB").resize((3 * SIDE, 3 * SIDE))
    ImageDraw.Draw(picture).rectangle([3 * side for side in thing.box], outline=(255, 90, 0), width=3)
    return picture


def drawn(detector: Detector, scene: Scene) -> bytes:
    """Draw the scene and the maps for each of its boxes, as PNG."""
    network = Opened("detector", detector, PREPROCESSING, CLASSES)
    rows = []
    for thing in scene.things:
        e = network.explain(scene.picture, question(thing, "box"), [*METHODS], LAYER)
        cells = [Cell(relume.METHODS[key].title, boxed(e.picture(key), thing)) for key in METHODS]
        rows.append(Row(e.title(), [Cell("asked for", boxed(scene.picture, thing)), *cells]))
    return figure_bytes(figure(rows, "a small detector of drawn things", dpi=110))


def main() -> None:
    """Train, measure, and draw a scene into a file if one is named."""
    torch.set_num_threads(1)
    start, detector = perf_counter(), train()
    print(f"trained in {perf_counter() - start:.0f} s")
    print("mean overlap with the true boxes:", mean_overlap(detector, [pair(seed, alike=False) for seed in range(SCENES)]))
    print(table(detector))
    for file in sys.argv[1:]:
        with Image.open(io.BytesIO(drawn(detector, draw_scene(0, ["cat", "dog"])))) as picture:
            picture.convert("RGB").save(file, quality=85)


if __name__ == "__main__":
    main()
