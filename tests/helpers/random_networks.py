"""Networks put together at random, of every block and every spelling of a rectifier."""

import torch
import torch.nn.functional as F
from torch import nn

RECTIFIERS = {
    "module": lambda net, x: net.shared(x),
    "module in place": lambda net, x: net.shared_in_place(x),
    "F.relu": lambda net, x: F.relu(x),
    "F.relu in place": lambda net, x: F.relu(x, inplace=True),
    "torch.relu": lambda net, x: torch.relu(x),
    "relu_": lambda net, x: x.relu_(),
    "clamp": lambda net, x: x.clamp(min=0),
    "clamp_": lambda net, x: x.clamp_(min=0),
    "clamp_min": lambda net, x: torch.clamp_min(x, 0),
    "maximum": lambda net, x: torch.maximum(x, torch.zeros_like(x)),
    "threshold": lambda net, x: F.threshold(x, 0, 0),
    "relu6": lambda net, x: F.relu6(x),
    "leaky": lambda net, x: F.leaky_relu(x, 0.1),
    "elu in place": lambda net, x: F.elu(x, inplace=True),
    "gelu": lambda net, x: F.gelu(x),
    "silu": lambda net, x: F.silu(x),
}


BLOCKS = [
    "plain",
    "batchnorm",
    "skip after",
    "skip before",
    "preactivation",
    "concatenation",
    "crelu",
    "branches",
    "max pool",
    "avg pool",
    "nested",
    "tokens",
]


class Random(nn.Module):
    """A stack of blocks, each with a rectifier in some spelling; the channels stay, so that any order fits."""

    def __init__(self, blocks, width=4):
        super().__init__()
        self.blocks = blocks
        self.shared, self.shared_in_place = nn.ReLU(), nn.ReLU(inplace=True)
        self.stem = nn.Conv2d(2, width, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in blocks)
        self.mixes = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in blocks)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in blocks)
        for norm in self.norms:
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, -1.5, 1.5)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.stem(x)
        for (block, spelling), conv, mix, norm in zip(self.blocks, self.convs, self.mixes, self.norms, strict=True):
            x = self.block(block, lambda y, s=spelling: RECTIFIERS[s](self, y), x, conv, mix, norm)
        return self.head(x.mean((2, 3)))

    def block(self, block, rectify, x, conv, mix, norm):
        match block:
            case "plain":
                return rectify(conv(x))
            case "batchnorm":
                return rectify(norm(conv(x)))
            case "skip after":  # the sum is rectified
                return rectify(norm(conv(x)) + x)
            case "skip before":  # the rectified is summed
                return rectify(conv(x)) + x
            case "preactivation":  # the rectifier's input has a second consumer
                y = norm(x)
                return conv(rectify(y.clone())) + y
            case "concatenation":
                return mix(torch.cat([rectify(conv(x)), x], 1))
            case "crelu":
                y = conv(x)
                return mix(torch.cat([rectify(y * 1), rectify(-y)], 1))
            case "branches":  # one rectified map, two consumers
                y = rectify(conv(x))
                return norm(y) - conv(y)
            case "max pool":
                return F.max_pool2d(rectify(conv(x)), 3, 1, 1)
            case "avg pool":
                return F.avg_pool2d(rectify(conv(x)), 3, 1, 1)
            case "nested":
                return rectify(rectify(conv(x)) - rectify(norm(x) * 2))
            case "tokens":  # the gradient that arrives at the BatchNorm has its channels last
                y = norm(x).flatten(2).transpose(1, 2)
                return rectify(y @ mix.weight[:, :4, 0, 0]).transpose(1, 2).reshape(x.shape)
        raise AssertionError(block)
