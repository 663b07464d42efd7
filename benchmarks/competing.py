"""Class competition on drawn scenes, and on mosaics of them: `python -m benchmarks.competing [SCENES]`."""

import sys

import relume
from relume.evaluation.report import Evaluation

METHODS = ("gradient", "guided_backprop", "gradcam", "guided_gradcam")
MEASURES = {"mass_accuracy": "mass on target", "right_thing": "on the right thing", "pointing": "pointing game"}


def evaluated(scenes: int) -> Evaluation:
    """Evaluate each method, and the same one in competition with four classes."""
    return relume.evaluate(relume.open_model("demo"), f"scenes:{scenes}", methods())


def methods() -> list[str | relume.Competing]:
    """Return each method, and the same one in competition."""
    return [wrapped for key in METHODS for wrapped in (key, relume.Competing(key))]


def main() -> None:
    """Print a row for each map."""
    scenes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    evaluation = evaluated(scenes)
    print(f"| | {' | '.join(MEASURES.values())} |\n|---|{'---|' * len(MEASURES)}")
    for key in (*evaluation.methods, "sobel_edges", "uniform"):
        print(f"| {evaluation.titles[key]} | {' | '.join(str(evaluation.rows[key][m]) for m in MEASURES)} |")
    print(f"\nempty: {evaluation.empty}, of {evaluation.targets}")
    calibration = relume.calibrate("demo", f"scenes:{scenes}", methods=methods(), mosaics=scenes // 4)
    print(
        f"\n| in {calibration.mosaics} mosaics of {calibration.photos} scenes | on the right cell | heaviest |\n|---|---|---|"
    )
    for scores in (*calibration.methods.values(), *calibration.baselines.values()):
        print(f"| {scores.title} | {scores.mass} | {scores.heaviest} |")


if __name__ == "__main__":
    main()
