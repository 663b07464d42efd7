"""Clocks and counts: interleaved rounds, the machine's own rate, the operations and the graph of a network."""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Pace", "costs", "interleave", "kernels", "room", "synchronise"]

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pace:
    """How many rounds: at least ``least``, then as many as fit into ``seconds``, and at most ``most``."""

    least: int
    most: int
    seconds: float


def synchronise(device: torch.device) -> None:
    """Wait for what was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(runs: Mapping[str, Run], pace: Pace, device: torch.device) -> dict[str, list[float]]:
    """Wall seconds of each run in every round; each round runs all of them once, in an order of its own.

    What disturbs the machine for a while disturbs all of them alike, and none always runs after the same other. All of them
    must have run before: the first round counts.
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    orders, start, done = random.Random(0), perf_counter(), 0  # noqa: S311 - no secret
    while done < pace.least or (done < pace.most and (perf_counter() - start) * (done + 1) / done < pace.seconds):
        gc.collect()  # what one round leaves to the collector is not the next one's cost
        for name in orders.sample(list(runs), len(runs)):
            synchronise(device)
            began = perf_counter()
            kept = runs[name]()
            synchronise(device)
            samples[name].append(perf_counter() - began)
            del kept
        done += 1
    return samples


def kernels(device: torch.device) -> dict[str, tuple[int, Run]]:
    """Operations and a run of what a machine computes fastest: square float32 products, and a large 3x3 convolution."""
    sides, batch = ((4096, 8192), 64) if device.type == "cuda" else ((1024, 2048), 8)
    found: dict[str, tuple[int, Run]] = {}
    for side in sides:
        a, b = torch.randn(side, side, device=device), torch.randn(side, side, device=device)
        found[f"product of {side} × {side} matrices"] = (2 * side**3, lambda a=a, b=b: a @ b)  # type: ignore[misc]
    channels, size = 256, 56
    x = torch.randn(batch, channels, size, size, device=device).to(memory_format=torch.channels_last)
    w = torch.randn(channels, channels, 3, 3, device=device).to(memory_format=torch.channels_last)
    found[f"3×3 convolution of {batch} × {channels} × {size} × {size}"] = (
        2 * batch * size * size * channels * channels * 9,
        lambda: F.conv2d(x, w, padding=1),
    )
    return found


def costs(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """Operations of a forward and a data-only backward pass, and the bytes that the graph between them keeps.

    Counted on shapes alone, nothing is computed. A multiply-add counts two; what is no product or convolution counts nothing.
    Bytes are those of activations: weights are there anyway.
    """
    shapes = copy.deepcopy(model).to("meta").requires_grad_(requires_grad=False)
    x = torch.empty_like(images, device="meta", requires_grad=True)
    weights = {tensor.untyped_storage()._cdata for tensor in (*shapes.parameters(), *shapes.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # holding it keeps its number from being given to another
        return tensor

    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(note, lambda tensor: tensor):
            score = shapes(x)[:, 0].sum()
        score.backward()
    return counter.get_total_flops(), sum(storage.nbytes() for storage in kept.values())


def room(device: torch.device) -> int:
    """Bytes of memory that are free on the device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
