"""Draw the gallery: `python docs/gallery.py` writes docs/gallery.md and its pictures, from scenes of the demo world alone."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import relume
from relume.cli.demo import METHODS
from relume.demo import (
    BANDS,
    CLASSES,
    SHOWN_IN,
    SIGNAL_CLASSES,
    VOLUME_CLASSES,
    draw_bands,
    draw_scene,
    draw_signal,
    draw_volume,
    load_band_network,
    load_network,
    load_signal_network,
    load_volume_network,
)
from relume.explanation.result import Explanation
from relume.explanation.scales import share
from relume.explanation.sheet import sheet
from relume.models.opened import Opened
from relume.pictures.figure import Cell, Row, figure, figure_bytes
from relume.pictures.kinds import KINDS
from relume.pictures.recording import Recording

DOCS = Path(__file__).parent
SEED = 0
CAMS = ["gradcam", "hirescam", "layercam", "gradcam_plusplus", "xgradcam"]


def kinds(e: Explanation, caption: str) -> bytes:
    """Draw two maps in every kind of picture."""
    rows = []
    for method, name in (("guided_backprop", "guided backpropagation"), ("gradcam", "Grad-CAM")):
        cells = [Cell(kind, e.picture(method, kind=kind, size=480)) for kind in KINDS]
        rows.append(Row(f"{name}, {e.title()}", cells))
    return figure_bytes(figure(rows, caption, columns=4, dpi=110))


def wide(scene: Image.Image, margin: int = 40) -> Image.Image:
    """Put the scene between strips of two others."""
    left, right = draw_scene(3).picture, draw_scene(5).picture
    panorama = Image.new("RGB", (scene.width + 2 * margin, scene.height))
    panorama.paste(left.crop((left.width - margin, 0, left.width, left.height)), (0, 0))
    panorama.paste(scene, (margin, 0))
    panorama.paste(right.crop((0, 0, margin, right.height)), (margin + scene.width, 0))
    return panorama


def frames(network: Opened, panorama: Image.Image) -> bytes:
    """Draw a wide picture, cut to its middle and letterboxed."""
    cells = []
    for name, way in (
        ("the middle", network.preprocessing),
        ("letterboxed", dataclasses.replace(network.preprocessing, letterbox=True)),
    ):
        e = dataclasses.replace(network, preprocessing=way).explain(panorama, "cat", ["gradcam"])
        cells.append(Cell(f"{name}: {e.title()}", e.overlay("gradcam")))
    return figure_bytes(figure([Row("One picture, two ways into the network", cells)], "demo network", dpi=220))


def scales(network: Opened) -> bytes:
    """Draw a class that is there and one that is not, each at its own scale and both at one."""
    both = network.compare(draw_scene(SEED, ["cat", "dog"]).picture, ["cat", "car"], ["guided_backprop"])
    rows = []
    for e, shared in zip(both, share(both), strict=True):
        cells = [
            Cell(name, one.picture("guided_backprop"), high=f"full strength at {one.scale('guided_backprop')[0]:.2g}")
            for name, one in (("own scale", e), ("shared scale", shared))
        ]
        rows.append(Row(e.title(), [Cell("scene", e.photo()), *cells]))
    return figure_bytes(figure(rows, "demo network, guided backpropagation", dpi=110))


def smoothed(network: Opened) -> bytes:
    """Draw a gradient, its mean and its variance over noisy copies."""
    methods: list[str | relume.Smooth] = ["gradient", relume.Smooth("gradient", 50), "guided_backprop"]
    return figure_bytes(sheet([network.explain(draw_scene(SEED, ["cat", "dog"]).picture, "dog", methods)], dpi=110))


def cams(network: Opened, scene: Image.Image) -> bytes:
    """Draw every class activation map, and its product with guided backpropagation, at a layer before the last."""
    e = network.explain(scene, "cat", [*CAMS, *(f"guided_{key}" for key in CAMS)], "layer2")
    rows = [
        [Cell(e.infos[key].title, e.picture(key, size=360)) for key in keys]
        for keys in (CAMS, [f"guided_{key}" for key in CAMS])
    ]
    return figure_bytes(figure([Row(e.title(), cells) for cells in rows], "demo network, layer2", columns=5, dpi=110))


def draw() -> dict[str, bytes]:
    """Draw every picture of the gallery, by name, as PNG."""
    network, scene = relume.open_model("demo"), draw_scene(SEED, ["cat", "dog"]).picture
    both = network.compare(scene, ["cat", "dog"], METHODS)
    return {
        "methods": figure_bytes(sheet(both, dpi=110)),
        "cams": cams(network, scene),
        "kinds": kinds(both[0], "demo network  ·  full strength at percentile 99.5 of each map"),
        "scales": scales(network),
        "frames": frames(network, wide(scene)),
        "smooth": smoothed(network),
        "volume": volume(),
        "signal": signal(),
        "bands": bands(),
        "clip": clip(network, wide(scene, 100)),
    }


def volume() -> bytes:
    """Draw a volume that holds a box and a tube, explained for both."""
    scene, methods = draw_volume(7, ["box", "tube"]), ["gradcam", "guided_gradcam"]
    targets = [VOLUME_CLASSES.index(name) for name in ("box", "tube")]
    image = torch.from_numpy(scene.values)[None]
    both = relume.compare(load_volume_network(), image, targets, methods, labels=VOLUME_CLASSES)
    return figure_bytes(both.figure(dpi=84))


def signal() -> bytes:
    """Draw a signal that holds a chirp and a saw, explained for both."""
    scene = draw_signal(3, ["chirp", "saw"])
    targets = [SIGNAL_CLASSES.index(name) for name in ("chirp", "saw")]
    image = torch.from_numpy(scene.values)[None]
    both = relume.compare(load_signal_network(), image, targets, ["guided_gradcam"], labels=SIGNAL_CLASSES)
    return figure_bytes(both.figure(dpi=100))


def bands() -> bytes:
    """Draw a picture of five bands that holds clay and leaves, explained for both, each shown by the band that it is in."""
    scene, rows = draw_bands(4, ["clay", "leaves"]), []
    for name, band in SHOWN_IN.items():
        if name in ("clay", "leaves"):
            target, methods = list(SHOWN_IN).index(name), ["gradcam", "guided_gradcam"]
            picture = Recording(scene.values, "bands", shown=(band,))
            e = relume.explain(load_band_network(), torch.from_numpy(scene.values)[None], target, methods, labels=[*SHOWN_IN])
            e = e.with_photos([picture])
            cells = [Cell(BANDS[band], e.photo()), *(Cell(e.infos[m].title, e.picture(m, size=360)) for m in methods)]
            rows.append(Row(e.title(), cells))
    return figure_bytes(figure(rows, "demo:bands, each row over the band that its class shows in", dpi=84))


class OnFrames(nn.Module):
    """The demo network on each frame of a clip ``(N, 3, frames, H, W)``; the score of a class is its mean over the frames."""

    def __init__(self) -> None:
        """Load the network."""
        super().__init__()
        self.network = load_network()

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the mean scores of the frames, ``(N, classes)``."""
        scores: Tensor = self.network(clips.transpose(1, 2).flatten(0, 1))
        return scores.reshape(len(clips), clips.shape[2], -1).mean(1)


def clip(network: Opened, panorama: Image.Image) -> bytes:
    """Draw a clip that pans over a wide picture, explained for the cat that goes by."""
    side, last = panorama.height, panorama.width - panorama.height
    frames = [panorama.crop((x, 0, x + side, side)) for x in np.linspace(0, last, 12).round().astype(int).tolist()]
    image = torch.stack([network.preprocessing.tensor(frame) for frame in frames], 1)[None]
    values = np.stack([np.asarray(frame) for frame in frames]).transpose(3, 0, 1, 2)
    recording = Recording(values, "video", limits=(0, 255))
    e = relume.explain(OnFrames(), image, CLASSES.index("cat"), ["guided_backprop"], labels=CLASSES).with_photos([recording])
    return figure_bytes(e.figure(dpi=110))


def text() -> str:
    """Write the page."""
    listed = "\n".join(f"* `{kind.key}`: {kind.title}." for kind in KINDS.values())
    return f"""# Gallery

`python docs/gallery.py` draws the pictures on this page, except those of [other questions](#other-questions). It uses
[the demo world](demo.md): drawn scenes, and the small network in the package that knows them. The scene is
number {SEED}, with a cat and a dog. [The glossary](glossary.md) explains the words.

## Five methods, two classes

![A drawn cat and dog, explained for both classes by all five methods](images/gallery-methods.jpg)

Guided backpropagation (fourth) draws both faces for either class. Multiplied by Grad-CAM, it draws only the face that was
asked for. The deconvnet shows the grid of the network's strides. The [scale](glossary.md#scale) is printed under each map:
the value that is drawn at full strength.

    relume demo --seed {SEED}

## Five class activation maps

![The cat by five class activation maps, and each of them times guided backpropagation](images/gallery-cams.jpg)

At the layer before the last they differ. [Which method differs when](comparison.md#which-class-activation-map-differs-when) has
the numbers.

    relume explain scene.png --target cat --layer layer2 --method all

## Eight kinds of picture

![Guided backpropagation and Grad-CAM of the cat in eight kinds of picture](images/gallery-kinds.jpg)

{listed}

No kind changes the map. Kinds that show one value for each pixel take it from the channel with the largest magnitude.

```python
import relume
from relume.cli.demo import METHODS
from relume.demo import draw_scene

network = relume.open_model("demo")
scene = draw_scene({SEED}, ["cat", "dog"]).picture
e = network.explain(scene, "cat", methods=["guided_backprop", "gradcam"])
e.picture("guided_backprop", kind="diverging")  # a PIL image
e.overlay("gradcam")  # heat over the photo, at the photo's own resolution
e.figure(kind={{"gradcam": "contours"}}, columns=2, dpi=300).savefig("figure.pdf")  # text stays text
```

## Two maps, one scale

![Guided backpropagation of the cat and of a car that is not there, at its own scale and at one](images/gallery-scales.jpg)

There is no car in the scene. At its own scale, its map looks as strong as the cat's. At a shared scale it nearly disappears.
So every figure prints its scale, and `scale="shared"` draws a set of maps at one scale.

```python
cat, car = network.compare(scene, ["cat", "car"], methods=["guided_backprop"])
relume.share([cat, car])  # the same two, drawn at one scale
cat.figure(scale=0.05)  # or at a scale of yours
```

## What the network never saw

![Grad-CAM over a wide picture that was cut to its middle, and over the same letterboxed](images/gallery-frames.jpg)

Most networks see only a square from the middle of a photo. relume draws the whole photo at its own size and dims what the
network did not see. With `--letterbox` the network sees all of it.

## Smoothed

![The gradient of the dog, its mean and variance over 50 noisy copies, and guided backpropagation](images/gallery-smooth.jpg)

[Smoothing](smoothing.md) averages the maps of noisy copies (SmoothGrad) and shows where they disagree (VarGrad).

    relume explain scene.png --method gradient --smooth 50

## Volumes, signals, bands and clips

![A drawn volume with a box and a tube, explained for both](images/gallery-volume.jpg)

A volume is drawn as three planes through the centre of mass of the map, and as the strongest value of all slices over the
mean of the scan. Lines mark where the planes cut.

![A drawn signal with a chirp and a saw, explained for both](images/gallery-signal.jpg)

A signal is drawn as a line whose colour and width are its relevance.

![A picture of five bands with clay and leaves, explained for both](images/gallery-bands.jpg)

Clay shows in short-wave infrared, leaves in near infrared, and land lies under both. Each row is drawn over the band that its
class shows in.

![A clip that pans over butterflies, a cat, a dog and houses, explained for the cat](images/gallery-clip.jpg)

A clip is drawn as eight of its frames. The one where the map is strongest has a border. The network is the demo network on each
frame, with the mean of the scores.

[What is drawn](data.md#what-is-drawn) has the rest: what a picture of another kind shows, and the page with sliders.

## Other questions

`python -m benchmarks.answers KIND out` trains each network in a few minutes, measures how much of its maps falls on what was
asked for ([the table](targets.md#measured-on-segmentation-labels-a-value-and-an-embedding)), and writes its weights and its
picture into `out`; `python -m benchmarks.detector out/detector.jpg` does so for the detector, without the weights. The
commands run where the repository is.

### Which pixels make these pixels a cat?

![A small UNet, asked about the pixels that it calls cat, and those that it calls dog](images/segmentation.jpg)

The first picture of each row shows the pixels that the network gives to the class. Every map falls on the face inside.

    relume explain out/scene.png --model benchmarks.answers:segmentation --weights out/segmentation.pt --ask segmentation:cat

### Which things are there?

![The demo network, whose scores are one yes or no for each thing, asked about the cat and the dog](images/labels.jpg)

Both are there, each with its own probability, and Guided Grad-CAM falls on each in turn.

    relume explain out/scene.png --model demo --target cat,dog

### How far to the right is the cat?

![A network that finds the column of the cat, asked what moves it to the right and to the left](images/regression.jpg)

Both directions are read off the cat. Grad-CAM averages over places, which leaves nothing of a question about place: relume
calls its map weak.

    relume explain out/scene.png --model benchmarks.answers:regression --weights out/regression.pt --layer trunk.3 \\
      --method guided_layercam,guided_backprop,layercam --ask regression:up --ask regression:down

### What makes it like the other picture?

![A scene of a cat and a dog, explained by its likeness to another cat, and to another dog](images/embedding.jpg)

The reference is on the left. The maps fall on what it has in common with the scene.

    relume explain out/scene.png --model benchmarks.answers:embedding --weights out/embedding.pt --ask embedding:out/cat.png

### What is in this box?

![A small detector, asked about the box of a cat and that of a dog](images/detector.jpg)

Guided Grad-CAM falls on the box that was asked for, Grad-CAM [on both](targets.md#measured-on-a-detector).

    relume explain out/scene.png --model package.module:detector --ask detection:cat
"""


def main() -> None:
    """Write the page and its pictures, small enough for a repository."""
    for name, content in draw().items():
        with Image.open(io.BytesIO(content)) as picture:
            picture.convert("RGB").save(DOCS / "images" / f"gallery-{name}.jpg", quality=85)
    (DOCS / "gallery.md").write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
