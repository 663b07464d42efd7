"""Runs over drawn scenes: a source of them, and a run of it in a process of its own that can be killed.

``python -m tests.helpers.runs COUNT FOLDER SHARD SHARDS`` runs one.
"""

import sys
from dataclasses import dataclass

import pyarrow as pa

import relume
from relume.datasets.source import MANIFEST, Source
from relume.demo import draw_scene
from relume.errors import ImageError
from relume.pictures.photo import Photo


@dataclass(frozen=True)
class Scenes(Source):
    """So many drawn scenes, of which every tenth cannot be read."""

    count: int
    spec: str = "scenes"

    def manifest(self):
        return pa.Table.from_pylist([{"id": str(i), "label": "cat"} for i in range(self.count)], schema=MANIFEST)

    def read(self, item):
        seed = int(item["id"])
        if seed % 10 == 9:
            raise ImageError(f"scene {seed} is not drawn")
        return Photo.whole(draw_scene(seed, ["cat"]).picture)


def run_scenes(count, folder, **options):
    """Run GradCAM of the demo network, in parts of six."""
    options = {"methods": ["gradcam"], "part_size": 6, "loaders": 2, "batch_size": 4} | options
    return relume.run(relume.open_model("demo", "cpu"), Scenes(count), folder, **options)


if __name__ == "__main__":
    count, folder, *shard = sys.argv[1:]
    run_scenes(int(count), folder, shard=tuple(map(int, shard)))
