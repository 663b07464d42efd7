"""A run over files beside loops over them: `python -m benchmarks.run`, in about five minutes; with `--quick` in one.

ResNet-50 with random weights in batches of 8, the default methods with their default evidence, on files of 500 × 375 pixels,
JPEG and PNG in turn; and the demo network on scenes. Each round runs everything once, in an order of its own, and a ratio is of
two times of one round. A loop reads a file, explains the class that is predicted, and saves the maps by ``numpy.savez``.

`python -m benchmarks.run --rows 20000` runs the demo network over as many scenes, drawn when they are read: rows a second, and
how memory grows. Both print what a row takes on disk.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from captum import attr
from numpy.random import default_rng
from PIL import Image
from torch import Tensor

import relume
from benchmarks.performance.networks import NETWORKS
from benchmarks.performance.timing import Pace, interleave
from relume.datasets import MANIFEST, Item, Progress, Source
from relume.demo import draw_scene
from relume.models import Opened
from relume.models.opened import BATCH_SIZE
from relume.pictures import IMAGENET, Photo

#: The least number of rows that a run is to make while another way explains a photo.
GOALS = {"explain, prepared, in memory": 0.85, "loop of explain": 1.5, "loop of Captum": 2.0}

#: What is kept of maps, and how.
STORES: Mapping[str, Mapping[str, Any]] = {
    "facts": {"store": "facts"},
    "saliency": {"store": "saliency"},
    "maps": {"store": "maps"},
    "maps, exact": {"store": "maps", "exact": True},
}

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Scenes(Source):
    """So many scenes, each drawn when it is read."""

    count: int
    spec: str = "scenes"

    def manifest(self) -> pa.Table:
        """List the scenes by their seeds."""
        return pa.Table.from_pylist([{"id": str(seed)} for seed in range(self.count)], schema=MANIFEST)

    def read(self, item: Item) -> Photo:
        """Draw a scene."""
        return Photo.whole(draw_scene(int(item["id"])).picture)


def files(folder: Path, count: int, size: tuple[int, int] | None) -> list[Path]:
    """Write scenes as JPEG and PNG in turn: as they are drawn, or with noise in a size of photos."""
    folder.mkdir(parents=True)
    for i in range(count):
        picture = draw_scene(i).picture
        if size is not None:
            pixels = np.asarray(picture.resize(size), float)
            picture = Image.fromarray(np.uint8((pixels + default_rng(i).normal(0, 8, pixels.shape)).clip(0, 255)))
        picture.save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
    return sorted(folder.iterdir())


# --- Ways to the same maps -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subject:
    """A network with Grad-CAM's layer, and the files that it is asked about; loops take the first few of them."""

    opened: Opened
    layer: str
    paths: Sequence[Path]
    looped: int

    def runs(self, folder: Path) -> dict[str, tuple[int, Callable[[], object]]]:
        """Return each way by its name: how many files it explains, and the call that does."""
        opened, names = self.opened.prepared(self.paths[0]), itertools.count()
        images, source = torch.stack([opened.input_of(path)[1] for path in self.paths]), str(self.paths[0].parent)

        def in_files() -> None:
            opened.run(source, folder / str(next(names)), limit=len(images), layer=self.layer)

        def in_memory() -> None:
            for i in range(0, len(images), BATCH_SIZE):
                relume.explain(opened.model, images[i : i + BATCH_SIZE], layer=self.layer)

        return {
            "relume.run": (len(images), in_files),
            "explain, prepared, in memory": (len(images), in_memory),
            "loop of explain": (self.looped, lambda: self._loop(self.explained, folder)),
            "loop of Captum": (self.looped, lambda: self._loop(self.by_captum, folder)),
        }

    def _loop(self, explained: Callable[[Tensor], Mapping[str, Tensor]], folder: Path) -> None:
        for path in self.paths[: self.looped]:
            maps = explained(relume.preprocess_image(path, self.opened.preprocessing)[None])
            np.savez(folder / path.stem, **{key: values.numpy() for key, values in maps.items()})  # type: ignore[arg-type]

    def explained(self, images: Tensor) -> Mapping[str, Tensor]:
        """Make the maps as a user of relume would, without preparing the network."""
        return relume.explain(self.opened.model, images, layer=self.layer).maps

    def by_captum(self, images: Tensor) -> Mapping[str, Tensor]:
        """Make the same maps by Captum."""
        model = self.opened.model
        target = model(images).argmax(1)
        with warnings.catch_warnings(action="ignore"):  # its words about the hooks that it sets
            guided = attr.GuidedBackprop(model).attribute(images, target)
        heat = attr.LayerGradCam(model, model.get_submodule(self.layer)).attribute(images, target, relu_attributions=True)
        fine = attr.LayerAttribution.interpolate(heat, images.shape[2:], "bilinear")
        return {"guided_backprop": guided, "gradcam": heat.detach(), "guided_gradcam": (guided * fine).detach()}


def ratios(subject: Subject, folder: Path, rounds: int) -> list[str]:
    """Time the ways in turn, and write a line for each."""
    ways, first = subject.runs(folder), folder / "first"
    first.mkdir(parents=True)
    for _, call in Subject(subject.opened, subject.layer, subject.paths[:2], 1).runs(first).values():
        call()
    samples = interleave({name: call for name, (_, call) in ways.items()}, Pace(rounds, rounds, 0), torch.device("cpu"))
    seconds = {name: [sample / ways[name][0] for sample in samples[name]] for name in ways}
    lines = ["| | ms a photo | rate of the run / it | goal |", "|---|---|---|---|"]
    for name, times in seconds.items():
        against = [a / b for a, b in zip(times, seconds["relume.run"], strict=True)]
        low, middle, high = statistics.quantiles(against, n=4) if rounds > 1 else [*against] * 3
        goal = f"{middle:.2f} ({low:.2f}–{high:.2f}) | {GOALS[name]:.2f}" if name in GOALS else "|"
        lines.append(f"| {name} | {1000 * statistics.median(times):.1f} | {goal} |")
    return lines


# --- Rows ----------------------------------------------------------------------------------------------------------------


def sizes(opened: Opened, source: Any, folder: Path) -> list[str]:
    """Write what a row takes on disk, by what is kept of the maps."""
    lines = ["| kept | KiB a row |", "|---|---|"]
    for name, kept in STORES.items():
        run = opened.run(source, folder / name, **kept)
        taken = sum(path.stat().st_size for path in (folder / name / "parts").iterdir())
        lines.append(f"| {name} | {taken / len(run) / 1024:.1f} |")
    return lines


def growth(opened: Opened, count: int, folder: Path) -> list[str]:
    """Write how fast many rows are made, and how much memory the process has each time that a tenth of them is there."""
    process, memory, start = psutil.Process(), dict[int, float](), perf_counter()

    def note(state: Progress) -> None:
        if state.written:
            memory.setdefault(10 * state.done // state.total, process.memory_info().rss / MIB)

    opened.run(Scenes(count), folder / "many", progress=note)
    rate = count / (perf_counter() - start)
    lines = [f"{count:,} rows, {rate:.1f} a second", "", "| rows | MiB |", "|---|---|"]
    return lines + [f"| {tenth * count // 10:,} | {mib:.0f} |" for tenth, mib in memory.items()]


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description="A run over a data set, its rate, its memory and its size.")
    parser.add_argument("--quick", action="store_true", help="few photos and one round")
    parser.add_argument("--rows", type=int, help="run over so many drawn scenes instead, and watch the memory")
    options = parser.parse_args()
    rounds, count, looped = (1, 16, 2) if options.quick else (5, 64, 8)
    demo = relume.open_model("demo", "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.rows:
            print("\n".join(growth(demo, options.rows, folder)))
            print("\n".join(["", *sizes(demo, Scenes(min(256, options.rows)), folder)]))
            return
        network = NETWORKS["resnet50"]
        opened = Opened("resnet50", network.build(), IMAGENET)
        for title, subject in {
            "ResNet-50": Subject(opened, network.layer, files(folder / "photos", count, (500, 375)), looped),
            "demo network": Subject(demo, "layer3", files(folder / "scenes", 4 * count, None), 4 * looped),
        }.items():
            print("\n".join([f"{title}, {len(subject.paths)} files, {rounds} rounds", ""]), flush=True)
            print("\n".join([*ratios(subject, folder / title, rounds), ""]), flush=True)
        print("\n".join(sizes(opened, [str(path) for path in subject.paths[:8]], folder)))


if __name__ == "__main__":
    main()
