"""Class competition on drawn scenes, where the context counts: `python -m benchmarks.competing [SCENES]`."""

import sys

import relume
from relume.evaluation.report import Evaluation

METHODS = ("gradient", "guided_backprop", "gradcam", "guided_gradcam")
MEASURES = {"mass_accuracy": "mass on target", "right_thing": "on the right thing", "pointing": "pointing game"}


def evaluated(scenes: int) -> Evaluation:
    """Evaluate each method, and the same one in competition with four classes."""
    methods = [wrapped for key in METHODS for wrapped in (key, relume.Competing(key))]
    return relume.evaluate(relume.open_model("demo"), f"scenes:{scenes}", methods)


def main() -> None:
    """Print a row for each map."""
    evaluation = evaluated(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
    print(f"| | {' | '.join(MEASURES.values())} | empty |\n|---|{'---|' * (len(MEASURES) + 1)}")
    for key in (*evaluation.methods, "sobel_edges", "uniform"):
        row = evaluation.rows[key]
        cells = [f"{row[m].mean:.2f} [{row[m].low:.2f}, {row[m].high:.2f}]" for m in MEASURES]
        print(f"| {evaluation.titles[key]} | {' | '.join(cells)} | {evaluation.empty.get(key, 0)} of {evaluation.targets} |")


if __name__ == "__main__":
    main()
