"""What compiled passes cost beside eager ones: ``python -m benchmarks.compiled [batch] [repeats]``, on CUDA where there is one.

ResNet-50 with random weights, prepared with ``compiled=True`` and without, guided backpropagation. The two take turns; the
figure is the median of the ratios of each turn, in processor time on the CPU, which other processes disturb least.
"""

import statistics
import sys
import time

import torch
from torch import nn

import relume
from relume.models.libraries import import_torchvision


def seconds(network: nn.Module, images: torch.Tensor) -> float:
    """How long one map takes."""
    clock = time.perf_counter if images.is_cuda else time.process_time
    start = clock()
    relume.GuidedBackpropagation(network).attribute(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def main(batch: int, repeats: int) -> None:
    """Measure and print."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = import_torchvision().models.resnet50().eval().to(device)
    images = torch.randn(batch, 3, 224, 224, device=device)
    network, compiled = relume.prepare(model, images), relume.prepare(model, images, compiled=True)
    for _ in range(2):
        first = seconds(compiled, images)
    print(f"{device}, batch {batch}: compiling, checking and running took {first:.1f} s")
    turns = [(seconds(network, images), seconds(compiled, images)) for _ in range(repeats)]
    ratio = statistics.median(fast / slow for slow, fast in turns)
    best = [min(times) * 1000 for times in zip(*turns, strict=True)]
    print(f"eager {best[0]:.1f} ms, compiled {best[1]:.1f} ms, ratio {ratio:.2f}")
    if device == "cuda":
        for name, model in (("eager", network), ("compiled", compiled)):
            torch.cuda.reset_peak_memory_stats()
            seconds(model, images)
            print(f"{name}: peak of {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main(*(int(a) for a in (sys.argv[1:] + ["8", "10"][len(sys.argv) - 1 :])))
