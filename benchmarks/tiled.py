"""The memory that tiles take: `python -m benchmarks.tiled [--sides 2500 5000 10000]`.

Draws a GeoTIFF of five bands for each side, explains it in tiles of 512 with an overlap of 64 pixels in a process of its own,
and prints the highest resident memory of that process, less what it had before it opened the file.
"""

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine
from torch import nn

from relume.models.opened import Opened
from relume.models.tiled import explain_tiled
from relume.pictures import IMAGENET, Preprocessing

METHODS = ("gradcam", "guided_backprop", "guided_gradcam")


def draw(path: Path, side: int) -> None:
    """Draw fields of noise with discs that are bright in the fourth band, strip by strip."""
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500000, 0, -10, 5500000)}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=5, dtype="uint8", **place, **layout) as file:
        for top in range(0, side, 256):
            rows = min(256, side - top)
            values = rng.integers(1, 60, (5, rows, side), dtype=np.uint8)
            down, across = np.mgrid[top : top + rows, 0:side]
            values[3][(down % 700 - 350) ** 2 + (across % 900 - 450) ** 2 < 120**2] += 120
            file.write(values, window=((top, top + rows), (0, side)))


def network() -> Opened:
    """Return a small network for five bands."""
    torch.manual_seed(0)
    layers = nn.Conv2d(5, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    return Opened("fields", model.eval(), IMAGENET, recordings=Preprocessing(mean=(30.0,), std=(20.0,)))


def peak(path: str, folder: str) -> tuple[float, float]:
    """Explain a file in tiles, and return the seconds and the MiB that it took above what was there before."""
    opened = network()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
    explain_tiled(opened, path, folder, [1], METHODS, tiles=(512, 64), batch_size=4)
    return perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def row(side: int) -> str:
    """Return the line of the table for one side."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        path = Path(folder, "scene.tif")
        draw(path, side)
        seconds, memory = pool.apply(peak, (str(path), str(Path(folder, "maps"))))
        whole = 4 * side * side * (1 + 5 + 5) / 2**20  # what the three maps would take
    return f"| {side:,} × {side:,} | {seconds:.0f} s | {memory:,.0f} MiB | {whole:,.0f} MiB |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[2500, 5000, 10000])
    print("| pixels, five bands | time | peak memory | the maps whole |\n|---|---|---|---|")
    for length in parser.parse_args().sides:
        print(row(length), flush=True)
