"""The tables of docs/belief.md: `python -m benchmarks.belief demo`, `... squeezenet REALDATA`, or `... photos SPEC FOLDER`.

`demo` measures the demo network on scenes, and writes the calibration that the package ships. `squeezenet` puts the few
photographs that SqueezeNet is sure of together in every arrangement: there are too few for a calibration. `photos` calibrates a
network on the reader's photographs.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

import relume
from relume.evaluation import Game, Mosaic, Wall
from relume.explanation import Calibration

METHODS = ("gradient", "guided_backprop", "gradcam", "guided_gradcam")

#: The least probability of a photograph
CONFIDENCE = 0.9

SCENES = 120


def demo() -> Calibration:
    """Calibrate the demo network on scenes, and write what the package ships."""
    calibration = relume.calibrate("demo", f"scenes:{SCENES}", methods=relume.METHODS)
    calibration.save(Path(relume.__file__).parent / "demo")
    return calibration


def squeezenet(realdata: Path) -> Calibration:
    """Play with every arrangement of the photographs that SqueezeNet is sure of, each class once in a mosaic."""
    weights = realdata / "weights" / "squeezenet1_0.safetensors"
    opened = relume.open_model("torchvision:squeezenet1_0", "cpu", weights=weights, activation="softmax")
    photos = sorted(path for path in (realdata / "images").glob("*.png") if "mask" not in path.stem)
    wall = Wall.of(opened, photos, CONFIDENCE)
    for p in wall.predictions:
        print(f"{photos[p.photo].name}: class {p.index}, {p.probability:.2f}")
    game = Game.of(wall, METHODS, "features.12")
    arrangements = [
        Mosaic(tuple(p.photo for p in four), tuple(p.index for p in four))
        for four in itertools.permutations(wall.predictions, 4)
        if len({p.index for p in four}) == 4
    ]
    return game.calibration([game.play(mosaic, i) for i, mosaic in enumerate(arrangements)])


def show(c: Calibration) -> None:
    """Print the table of a calibration in Markdown."""
    columns = ("mass", "heaviest", "focus", "dipart", "difull")
    size = f"{c.size[1]}×{c.size[0]} pixels"
    print(f"{c.model}, {c.mosaics} mosaics of {size}, layer {c.layer}; {c.usable} of {c.given} photographs")
    print(f"| | {' | '.join(columns)} | level |\n|---|{'---|' * (len(columns) + 1)}")
    for key, scores in {**c.methods, **c.baselines}.items():
        estimates = (getattr(scores, column) for column in columns)
        cells = ["–" if e is None or not np.isfinite(e.mean) else str(e) for e in estimates]
        print(f"| {scores.title} | {' | '.join(cells)} | {c.level(key) if key in c.methods else ''} |")
    print(f"agreement: {c.agreement}", *c.notes, sep="\n")


def main() -> None:
    """Print one of the tables."""
    match sys.argv[1:]:
        case ["demo"]:
            show(demo())
        case ["squeezenet", realdata]:
            show(squeezenet(Path(realdata)))
        case ["photos", spec, folder]:
            show(relume.calibrate(spec, folder, activation="softmax", methods=METHODS))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
