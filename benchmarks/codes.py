"""What codes of stored maps cost and keep: `python -m benchmarks.codes SPEC WEIGHTS PHOTO...`."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import relume
from relume.datasets.codes import Code, decode, encode
from relume.measures import rank_correlation

METHODS = ("gradient", "guided_backprop", "guided_gradcam")

#: A code: from a map to its bytes, and to what is read from them.
Coded = tuple[bytes, torch.Tensor]


def even(values: torch.Tensor) -> Coded:
    """Store values in 256 even steps."""
    low, high = float(values.min()), float(values.max())
    codes = ((values - low) / (high - low) * 255).round().to(torch.uint8)
    return codes.numpy().tobytes(), codes.float() / 255 * (high - low) + low


def half(values: torch.Tensor) -> Coded:
    """Store values as float16."""
    codes = values.half()
    return codes.numpy().tobytes(), codes.float()


def coded(code: Code) -> Callable[[torch.Tensor], Coded]:
    """Store values by a code of relume."""

    def store(values: torch.Tensor) -> Coded:
        content, scale = encode(values, code)
        return content, decode(content, scale, values.shape, code)

    return store


def main() -> None:
    """Print, for each code, the bytes of an image's map after zstd, and the lowest and the median rank correlation."""
    opened = relume.open_model(sys.argv[1], "cpu", weights=Path(sys.argv[2]))
    e = opened.explain(sys.argv[3:], methods=METHODS)
    ways = {"256 even steps": even, "float16": half, "float32": coded("float32")}
    print("| map | code | KiB | rank correlation, lowest | median |\n|---|---|---|---|---|")
    for name, code in (("signed map", "sixth_root"), ("saliency", "positive_sixth_root")):
        maps = [(e.saliency(m) if name == "saliency" else e[m])[i] for m in METHODS for i in range(len(e))]
        for title, store in (ways | {code: coded(code)}).items():  # type: ignore[arg-type]
            pairs = [(values, *store(values)) for values in maps]
            sizes = [len(pa.compress(content, "zstd", asbytes=True)) / 1024 for _, content, _ in pairs]
            kept = [rank_correlation(values.numpy(), read.numpy()) for values, _, read in pairs]
            print(f"| {name} | {title} | {min(sizes):.0f} to {max(sizes):.0f} | {min(kept):.5f} | {np.median(kept):.5f} |")


if __name__ == "__main__":
    main()
