"""The origin of the limits of `stability` and `shift`: `python -m benchmarks.stability`.

Each limit lies half-way between maps of noise and the least stable map that localises, on 16 held-out scenes of the demo world.
"""

import torch

import relume
from relume import rules
from relume.auditing import measures_of
from relume.demo import load_network
from relume.evaluation import open_samples
from relume.measures.localisation import Truth, share
from relume.methods.base import Method

METHODS = ("gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam")

#: A method that answers anything with noise.
NOISE = Method("noise", frozenset({("input", rules.gradient)}), lambda found: torch.randn_like(found.inputs[rules.gradient]))

#: A map localises if so much of what falls on things falls on those of its class: half-way between the two groups of methods
#: in docs/comparison.md, Grad-CAM and Guided Grad-CAM at 0.96 and more, the others at 0.75 and less.
LOCALISES = 0.9


def main() -> None:
    """Print the limit that these scenes give, and that of the package."""
    samples = [load() for load in [*open_samples("scenes:32", relume.open_model("demo"), 3)][::2]]
    network, images = load_network(), torch.stack([sample.image for sample in samples])
    torch.manual_seed(3)
    noise: dict[str, list[float]] = {"stability": [], "shift": []}
    good: dict[str, list[float]] = {"stability": [], "shift": []}
    for method in (*METHODS, NOISE):
        report = relume.audit(network, images, method=method, checks=["stability"], seed=3, activation="sigmoid")
        assert report.classes is not None
        for i, sample in enumerate(samples):
            target = sample.targets.get(int(report.classes[i]))
            if target is None or report.maps.empty[i]:
                continue
            truth = Truth(target, sample.things)
            localises = share(report.maps.saliency[i], truth.target, truth.things) >= LOCALISES
            for key, values in report.measures.items():
                if method is NOISE:
                    noise[key].append(float(values[i]))
                elif localises:
                    good[key].append(float(values[i]))
    for key, stable in good.items():
        limit = measures_of()[key].limit
        assert limit is not None
        print(f"{key}: half-way {(min(stable) + max(noise[key])) / 2:.2f}, in the package {limit.value:.2f}")


if __name__ == "__main__":
    main()
