"""What is run: the cases, the peaks of memory and the imports, in full and in short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch

from benchmarks.performance.cases import Case, measure
from benchmarks.performance.contenders import CONTENDERS
from benchmarks.performance.fresh import import_time, peak
from benchmarks.performance.machine import machine
from benchmarks.performance.networks import NETWORKS, Network
from benchmarks.performance.record import Record
from benchmarks.performance.timing import Pace

__all__ = ["FULL", "QUICK", "Memory", "Plan", "carry_out"]

PACKAGES = ("relume", "torch", "captum", "zennit", "torchvision", "grad-cam")


@dataclass(frozen=True, slots=True)
class Memory:
    """A peak to be measured: one contender's call in fresh processes, as many as rounds."""

    network: Network
    task: str
    contender: str
    batch: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is measured, and how many rounds of imports."""

    cases: tuple[Case, ...]
    memory: tuple[Memory, ...]
    imports: int


ACROSS = ("relume", "prepared", "captum", "grad-cam", "zennit")
GROWING = ("relume", "prepared", "captum")
BATCHES, SIDES, DEPTHS = (1, 2, 4, 8, 16, 32, 64), (112, 224, 336, 448, 672, 1024), (18, 34, 50, 101, 152)
# Large networks run at a smaller batch, so that none takes all the time; figures are per image.
ACROSS_BATCHES = {
    "resnet18": 8,
    "resnet152": 2,
    "vgg16": 2,
    "densenet121": 8,
    "mobilenet_v2": 8,
    "r3d_18": 1,
    "vit_b_16": 2,
}


def _growth(
    name: str, batches: tuple[int, ...], sides: tuple[int, ...], depths: tuple[int, ...], deep_batch: int, pace: Pace
) -> tuple[Case, ...]:
    """Guided backpropagation of ``name`` as batch and side grow, and of ResNets as they deepen."""
    network = NETWORKS[name]
    points: list[tuple[str, Network, int, int | None]] = [("batch", network, batch, None) for batch in batches]
    points += [("side", network, 1, side) for side in sides]
    points += [("depth", NETWORKS[f"resnet{depth}"], deep_batch, None) for depth in depths]
    return tuple(
        Case(group, net, batch, side, ("guided",), GROWING, pace, defined=False, rates=False)
        for group, net, batch, side in points
    )


FULL = Plan(
    cases=(
        Case(
            "networks",
            NETWORKS["resnet50"],
            8,
            None,
            ("guided", "guided_gradcam", "all", "recipe"),
            tuple(CONTENDERS),
            Pace(5, 9, 150),
        ),
        *(
            Case("networks", NETWORKS[name], batch, None, ("guided", "guided_gradcam", "all"), ACROSS, Pace(3, 9, 45))
            for name, batch in ACROSS_BATCHES.items()
        ),
        *_growth("resnet50", BATCHES, SIDES, DEPTHS, 2, Pace(3, 15, 6)),
    ),
    memory=tuple(Memory(NETWORKS["resnet50"], "guided", contender, 16, 3) for contender in CONTENDERS),
    imports=9,
)

QUICK = Plan(
    cases=(
        Case(
            "networks", NETWORKS["resnet50"], 2, None, ("guided", "guided_gradcam", "recipe"), tuple(CONTENDERS), Pace(2, 5, 15)
        ),
        Case("networks", NETWORKS["resnet18"], 2, None, ("guided", "guided_gradcam", "all"), ACROSS, Pace(2, 5, 8)),
        *_growth("resnet50", (1, 4), (112, 224), (18, 34), 1, Pace(2, 5, 1)),
    ),
    memory=tuple(Memory(NETWORKS["resnet50"], "guided", contender, 16, 1) for contender in ("prepared", "lean", "captum")),
    imports=3,
)


def carry_out(plan: Plan, device: torch.device, tell: Callable[[str], None]) -> Record:
    """Measure everything in ``plan``; ``tell`` hears what comes next."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32, for every tool
    used = {key for case in plan.cases for key in case.contenders} | {m.contender for m in plan.memory}
    record = Record(
        machine=machine(device),
        versions={package: version(package) for package in PACKAGES},
        labels={key: contender.label for key, contender in CONTENDERS.items() if key in used},
        peers=[key for key, contender in CONTENDERS.items() if key in used and not contender.ours],
        points=[],
        memory=[],
        imports=[],
    )
    tell("import relume, in fresh processes")
    record["imports"].append(import_time("relume", plan.imports))
    for m in plan.memory:
        tell(f"memory: {m.network.name}, {m.task}, {m.contender}")
        record["memory"].append(peak(m.network, m.task, m.contender, m.batch, m.rounds, str(device), torch.get_num_threads()))
    for case in plan.cases:
        tell(f"{case.group}: {case.network.name}, batch {case.batch}, side {case.side or case.network.shape[-1]}")
        record["points"].append(measure(case, device))
    return record
