"""What was asked of relume, and what a run measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median as middle

from benchmarks.performance.record import Point, Record, fastest_peer, find, gemm_rate, median, timing

__all__ = ["TARGETS", "Target", "slowest"]

Measure = Callable[[Record, str], float | None]
FACES = ("relume", "prepared")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure asked for: ``measure`` finds it for a face of relume, None where the run has no such figure.

    It is judged by the last of ``faces`` that has a figure.
    """

    text: str
    limit: float
    at_least: bool
    measure: Measure
    faces: tuple[str, ...] = FACES

    def met(self, value: float) -> bool:
        """Whether ``value`` is enough."""
        return value >= self.limit if self.at_least else value <= self.limit


def _seconds(point: Point | None, task: str, contender: str) -> float | None:
    found = timing(point, task, contender)
    return None if found is None else median(found["seconds"])


def _over(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def _main(record: Record) -> Point | None:
    return find(record, "networks", "resnet50")


def _faster_than(peer: str, task: str) -> Measure:
    return lambda record, face: _over(_seconds(_main(record), task, peer), _seconds(_main(record), task, face))


def _of_own_forward(record: Record, face: str) -> float | None:
    point = _main(record)
    own = "prepared forward" if face == "prepared" else "forward"
    return _over(_seconds(point, "guided", face), None if point is None else median(point["reference"].get(own, [])))


def _share(record: Record, face: str) -> float | None:
    point = _main(record)
    rate = None if point is None else gemm_rate(point)
    if point is None or rate is None:
        return None
    return _over(point["flops"] / rate[1], _seconds(point, "guided", face))


def _narrower(record: Record, _face: str) -> float | None:
    if record["machine"]["device"] == "cpu" and not record["machine"]["avx512_bf16"]:
        return None
    return _over(_seconds(_main(record), "guided", "prepared"), _seconds(_main(record), "guided", "bfloat16"))


def _latency(record: Record, face: str) -> float | None:
    point = find(record, "batch", "resnet50", 1)
    return _over(_seconds(point, "guided", "captum"), _seconds(point, "guided", face))


def _memory(record: Record, face: str) -> float | None:
    peaks = {p["contender"]: median(p["mib"]) for p in record["memory"] if (p["task"], p["batch"]) == ("guided", 16)}
    return _over(peaks.get(face), peaks.get("captum"))


def slowest(record: Record, face: str) -> tuple[float, str, str] | None:
    """Return the lowest ratio of the fastest right peer to relume, with its network and task; -inf if relume was not timed."""
    ratios = []
    for point in (p for p in record["points"] if p["group"] == "networks"):
        for task in dict.fromkeys(run["task"] for run in point["runs"]):
            best, own = fastest_peer(record, point, task), _seconds(point, task, face)
            if best is None or timing(point, task, face) is None:
                continue
            ratios.append((-math.inf if own is None else best[1] / own, point["network"], task))
    return min(ratios, default=None)


def _lowest(record: Record, face: str) -> float | None:
    found = slowest(record, face)
    return None if found is None else found[0]


def _import(record: Record, _face: str) -> float | None:
    found = next((i for i in record["imports"] if i["package"] == "relume"), None)
    if found is None:
        return None
    return math.inf if found["loads_torch"] else middle(found["seconds"]) - middle(found["bare"])


ALONE = ("prepared",)
TARGETS = (
    Target("guided backpropagation, times faster than Captum", 1.6, True, _faster_than("captum", "guided")),
    Target("the same, than pytorch-grad-cam, per image", 3, True, _faster_than("grad-cam", "guided")),
    Target("guided backpropagation, times its own forward pass without a graph", 2.3, False, _of_own_forward),
    Target("guided backpropagation, share of the machine's GEMM rate", 0.85, True, _share),
    Target("Guided Grad-CAM, times faster than Captum", 2.5, True, _faster_than("captum", "guided_gradcam")),
    Target("the recipe's four methods, times faster than Captum's four calls", 3.5, True, _faster_than("captum", "recipe")),
    Target("bfloat16, times faster than float32, both prepared", 1.6, True, _narrower, ALONE),
    Target("one image, times faster than Captum", 1.3, True, _latency),
    Target("peak memory at batch 16, of Captum's", 0.6, False, _memory),
    Target("the same, lean", 0.35, False, _memory, ("lean",)),
    Target("fastest peer over relume, at every network and method: the lowest", 1, True, _lowest),
    Target("`import relume`, seconds above a bare interpreter, torch not loaded", 0.3, False, _import, ALONE),
)
