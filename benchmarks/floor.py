"""Where the time of a guided call goes, beside the least it could take: `python -m benchmarks.floor [NETWORK] [BATCH]`.

The least is one forward pass and one backward pass to the data at the highest rate of arithmetic this machine is seen to reach
in the same run, by a matrix product or by a convolution of 256 channels. What is above it is sorted by operation, from torch's
profiler over a network prepared with a batch of that size; the profiler's own cost is in the last row, and the time without it
above the table.
"""

import statistics
import sys
from collections import defaultdict
from time import perf_counter

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import relume
from relume.models.libraries import import_torchvision

ROUNDS = 9

REST = "the rest: Python, the autograd engine, the profiler"

#: What an operation's name begins with, and the row of the table that it belongs to.
ROWS = {
    "mkldnn::_convolution_transpose": "convolutions, backward",
    "mkldnn::_convolution_pointwise": "convolutions, forward",
    "aten::mkldnn_convolution": "convolutions, forward",
    "aten::convolution_backward": "convolutions, backward",
    "aten::addmm": "linear layers",
    "aten::mm": "linear layers",
    "aten::threshold_backward": "rectifiers, backward, and the rule",
    "aten::clamp": "rectifiers, backward, and the rule",
    "aten::relu": "rectifiers, forward",
    "aten::add": "sums of branches, and of their gradients",
    "aten::max_pool": "pooling",
    "aten::mean": "pooling",
    "aten::sum": "are all values finite?",
    "aten::copy_": "copies and layout",
    "aten::clone": "copies and layout",
}


def main() -> None:
    """Measure, profile, and print a table."""
    name = sys.argv[1] if len(sys.argv) > 1 else "resnet50"
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    torch.manual_seed(0)
    network = import_torchvision().models.get_model(name).eval().requires_grad_(requires_grad=False)
    images = torch.randn(batch, 3, 224, 224)
    with FlopCounterMode(display=False) as flops:
        network(images.clone().requires_grad_())[:, 0].sum().backward()
    guided = relume.GuidedBackpropagation(relume.prepare(network, images))

    def call() -> None:
        guided.attribute(images, 0)

    square, channels = torch.randn(2048, 2048), torch.randn(8, 256, 56, 56).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3).contiguous(memory_format=torch.channels_last)
    runs = {
        "call": (call, float(flops.get_total_flops())),
        "matrix product": (lambda: square @ square, 2.0 * 2048**3),
        "convolution": (lambda: torch.conv2d(channels, kernel, padding=1), 2.0 * channels.numel() * 256 * 9),
    }
    times: dict[str, list[float]] = {key: [] for key in runs}
    for turn in range(ROUNDS + 1):
        for key, (run, _) in runs.items():
            start = perf_counter()
            run()
            if turn:  # the first warms up
                times[key].append(perf_counter() - start)
    taken = {key: statistics.median(values) for key, values in times.items()}
    rates = {key: work / taken[key] for key, (_, work) in runs.items()}
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = perf_counter()
        call()
        whole = perf_counter() - start
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        row = next((row for key, row in ROWS.items() if event.key.startswith(key)), REST)
        spent[row] += event.self_cpu_time_total / 1e6
    spent[REST] += whole - sum(spent.values())
    print(f"{name}, batch {batch}, {torch.get_num_threads()} threads\n")
    for key in ("matrix product", "convolution"):
        least = flops.get_total_flops() / rates[key]
        share = f"{least / taken['call']:.2f} of {1000 * taken['call']:.0f} ms"
        print(f"at the rate of a {key}, {rates[key] / 1e9:.0f} GFLOP/s, it takes {1000 * least:.0f} ms: {share}")
    print("\n| | ms, profiled | share |\n|---|---|---|")
    for row, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {row} | {1000 * seconds:.0f} | {seconds / whole:.3f} |")


if __name__ == "__main__":
    main()
