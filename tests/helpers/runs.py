"""Runs over drawn scenes: a source of them, and a run of it in a process of its own, which may be killed.

``python -m tests.helpers.runs COUNT FOLDER I N STOP`` does a shard, and prints a line for each batch. It kills itself when it
waits for the disk for the time of number STOP; a file that it writes has its temporary name then.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

import relume
from relume.datasets import MANIFEST, Source
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


def run_scenes(count, folder, model=None, source=None, **options):
    """Run Grad-CAM of the demo network over scenes, in parts of six."""
    options = {"methods": ["gradcam"], "part_size": 6, "loaders": 2, "batch_size": 4, "evidence": None} | options
    return relume.run(model or relume.open_model("demo", "cpu"), source or Scenes(count), folder, **options)


def begin_scenes(count, folder, shard=(1, 1), stop=0):
    """Begin a run in a process of its own."""
    command = [sys.executable, "-m", "tests.helpers.runs", str(count), str(folder), *map(str, (*shard, stop))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def kill_after(process, batches):
    """Kill a process with -9 after so many batches, wherever it is then."""
    for _ in zip(range(batches), process.stdout, strict=False):
        pass
    process.kill()
    process.communicate()


def assert_same(run, other):
    """Assert that a run has the items, targets and errors of another, and its maps up to rounding."""
    columns = ["id", "label", "target", "class_name", "error", "gradcam_map"]
    rows, others = run.table(columns).to_pylist(), other.table(columns).to_pylist()
    assert rows
    for row, another in zip(rows, others, strict=True):
        one, two = (np.frombuffer(each.pop("gradcam_map") or b"", np.float32) for each in (row, another))
        assert row == another
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-4 * np.abs(two).max(initial=0))


def left_over(folder):
    """The temporary files in a run."""
    return [path.name for path in Path(folder).rglob(".relume-*")]


def main(count, folder, number, shards, stop):
    """Do a shard until it is killed."""
    sync, left = os.fsync, int(stop)

    def counted(descriptor):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = counted
    sys.stdout.reconfigure(line_buffering=True)
    run_scenes(int(count), folder, shard=(int(number), int(shards)), progress=lambda state: sys.stdout.write(f"{state.done}\n"))


if __name__ == "__main__":
    main(*sys.argv[1:])
