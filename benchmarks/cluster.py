"""What a run on Ray costs beside one process: `python -m benchmarks.cluster [--rows 600 6000 20000] [--actors 0 1 2]`.

0 actors are one process without Ray. Each run is one of the demo network over 64 drawn scenes, listed again and again, in a
process of its own. `--items 1000000` says instead how much memory the lists of so many items take.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

import relume
from relume.datasets import Progress
from relume.demo import draw_scene

PICTURES = 64
HEAD = "| rows | engine | start-up, s | in all, s | rows a second | bytes a row | this process, MiB | an actor, MiB |"


class Watch:
    """The time of the first rows, and the memory of this process and of the largest actor at a tenth of the run and later."""

    def __init__(self) -> None:
        """Begin now."""
        self.began, self.process = time.perf_counter(), psutil.Process()
        self.first: tuple[float, int] | None = None
        self.early, self.late = (0.0, 0.0), (0.0, 0.0)

    def __call__(self, state: Progress) -> None:
        """Take note of how far the run is."""
        if not state.done or state.done == state.total:
            return
        self.first = self.first or (time.perf_counter() - self.began, state.done)
        actors = [child for child in self.process.children(recursive=True) if "MapWorker" in " ".join(child.cmdline())]
        self.late = _mebibytes(self.process), max(map(_mebibytes, actors), default=0)
        self.early = self.early if self.early[0] or state.done < state.total / 10 else self.late


def _mebibytes(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def measured(rows: int, actors: int) -> dict[str, float | list[float]]:
    """Run once, and return what it took."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(PICTURES):
            draw_scene(seed).picture.save(f"{folder}/{seed}.png")
        lines = "".join(f"{i},{i % PICTURES}.png\n" for i in range(rows))
        Path(folder, "list.csv").write_text("id,path\n" + lines)
        watch, output = Watch(), Path(folder, "run")
        on = "ray" if actors else "local"
        run = relume.run("demo", f"{folder}/list.csv", output, on=on, actors=actors or None, progress=watch)
        whole = time.perf_counter() - watch.began
        size = sum(part.stat().st_size for part in (output / "parts").iterdir())
        if len(run) != rows or watch.first is None:
            raise RuntimeError(f"{len(run)} of {rows} rows")
    first, done = watch.first
    rate = (rows - done) / (whole - first)
    return {"first": first, "whole": whole, "rate": rate, "size": size / rows, "early": [*watch.early], "late": [*watch.late]}


def listed(items: int) -> dict[str, float]:
    """Return the MiB of the manifest of so many items in Arrow, and of their ids as Python and as NumPy hold them."""
    ids = [f"train/n{i % 1000:08d}/n{i:012d}.JPEG" for i in range(items)]
    manifest = pa.table({"id": ids, "path": [f"/data/{key}" for key in ids], "label": [key[6:15] for key in ids]})
    texts = sum(map(sys.getsizeof, ids)) / 2**20
    table = sys.getsizeof(dict.fromkeys(ids)) / 2**20
    return {"manifest": manifest.nbytes / 2**20, "ids": texts + table, "array": texts + np.array(ids, object).nbytes / 2**20}


def main() -> None:
    """Print a row of a Markdown table for each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[600, 6000, 20000])
    parser.add_argument("--actors", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--one", action="store_true", help="one run, as JSON")
    parser.add_argument("--items", type=int, help="the memory of lists of so many items, and no run")
    options = parser.parse_args()
    if options.items:
        print(", ".join(f"{name}: {value:.0f} MiB" for name, value in listed(options.items).items()))
        return
    if options.one:
        print(json.dumps(measured(options.rows[0], options.actors[0])))
        return
    print(f"{HEAD}\n|{'---|' * 8}")
    for rows in options.rows:
        for actors in options.actors:
            command = [sys.executable, "-m", "benchmarks.cluster", "--one", "--rows", str(rows), "--actors", str(actors)]
            text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - ourselves
            result = json.loads(text.splitlines()[-1])
            engine = f"Ray, {actors} actor{'s' * (actors > 1)}" if actors else "local"
            memory = [f"{early:.0f} → {late:.0f}" for early, late in zip(result["early"], result["late"], strict=True)]
            print(
                f"| {rows} | {engine} | {result['first']:.1f} | {result['whole']:.0f} | {result['rate']:.1f} "
                f"| {result['size']:.0f} | {memory[0]} | {memory[1] if actors else '–'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
