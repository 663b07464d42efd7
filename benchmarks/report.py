"""How large the page of a report is, and what memory it takes: `python -m benchmarks.report [--rows 480 10000]`.

The rows are those of 96 drawn scenes by the demo network, again and again, for 100 classes of long names, with labels of which
some are wrong, with errors, and with maps that are shifted at random. Each report is made in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import relume
from relume.datasets import MANIFEST, encode
from relume.datasets.columns import maps_of
from relume.datasets.store import Run, write_manifest, write_part, write_record
from relume.demo import draw_scene

SCENES, CLASSES, PART = 96, 100, 256
NAMES = [f"class-{i:03}, a thing with a longer name" for i in range(CLASSES)]


def written(rows: int, folder: Path) -> Path:
    """Write a run of so many rows, and return its folder."""
    (folder / "scenes").mkdir()
    for seed in range(SCENES):
        draw_scene(seed).picture.save(folder / "scenes" / f"{seed}.png")
    methods = ["guided_backprop", "gradcam"]
    real = relume.run("demo", folder / "scenes", folder / "real", methods=methods, evidence="full")
    scenes, schema, generator = real.table().to_pylist(), real.table().schema, np.random.default_rng(0)
    maps, place = maps_of(schema), folder / "run"
    write_record(place, {**real.record, "labels": NAMES})
    made = [_row(i, scenes[i % SCENES], maps, generator) for i in range(rows)]
    write_manifest(place, pa.Table.from_pylist([{"id": row["id"], "label": row["label"]} for row in made], schema=MANIFEST))
    for start in range(0, rows, PART):
        write_part(place, start // PART, pa.Table.from_pylist(made[start : start + PART], schema=schema))
    return place


def _row(number: int, scene: dict[str, Any], maps: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    """Return the row of a scene as that of another picture of another class."""
    index = int(generator.integers(CLASSES))
    label = NAMES[(index + (generator.random() < 0.06)) % CLASSES]
    own = {"id": f"train/{NAMES[index][:9]}/n{number:08}.JPEG", "label": label, "path": None}
    if number % 157 == 3:
        own["error"] = f"'{number}.JPEG' is not a picture in a format that Pillow reads; convert it to PNG or JPEG"
        return {name: own.get(name) for name in scene}
    row = scene | own | {"target": index, "class_name": NAMES[index], "probability": generator.random() ** 0.2}
    row |= {"top_classes": [index], "top_names": [NAMES[index]], "top_probabilities": [row["probability"]], "top_scores": [1.0]}
    heat = np.frombuffer(row["gradcam_map"], "<f4").reshape(row["gradcam_shape"])
    shifted = np.roll(heat, generator.integers(-2, 3, 2), (0, 1))
    row["gradcam_map"], row["gradcam_scale"] = encode(torch.from_numpy(shifted.copy()), maps["gradcam"]["code"])
    return row


def main() -> None:
    """Print the size of each page, and the highest memory of its process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[480, 10_000])
    parser.add_argument("--one", type=Path, help="make the report of a run, and print the same of it")
    options = parser.parse_args()
    if options.one:
        page = Path(Run.load(options.one).report(shortcuts=False))
        print(f"{page.stat().st_size / 1e6:.1f} MB, memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            place = written(rows, Path(folder))
            command = [sys.executable, "-m", "benchmarks.report", "--one", str(place)]
            text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - ourselves
            print(f"{rows} rows: {text.strip()}", flush=True)


if __name__ == "__main__":
    main()
