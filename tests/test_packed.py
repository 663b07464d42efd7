"""Packed convolutions against torch's own: what they make, and the gradient of their input."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from relume.plan.convolution import Blocks, Plain, pack

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def packed(convolution, size):
    """A copy that runs packed."""
    made = copy.deepcopy(convolution)
    assert pack(made, torch.Size(size))
    return made


def assert_as_torch(convolution, made, x):
    y, z = convolution(x), made(x)
    assert z.grad_fn.name() == "ConvolveBackward"
    tolerance = TOLERANCE[x.dtype]
    assert (z - y).abs().max() <= tolerance * y.abs().max()
    g = torch.randn_like(y)
    expected, got = torch.autograd.grad(y, x, g)[0], torch.autograd.grad(z, x, g)[0]
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7, 11])
def test_every_shape_in_two_dimensions(kernel, channels, dtype):
    tried = 0
    for stride, padding, dilation, groups in itertools.product((1, 2, 3, 4), (0, 1, 2, 5), (1, 2), (1, 4)):
        if dilation * (kernel - 1) + 1 > 13 + 2 * padding or channels % groups:
            continue
        convolution = nn.Conv2d(channels, 16, kernel, stride, padding, dilation, groups, bias=stride % 2 == 0)
        convolution = convolution.to(dtype).requires_grad_(requires_grad=False)
        made = packed(convolution, (2, channels, 13, 16))
        assert type(made.packed.backward) is (Blocks if channels == 3 and dilation == 1 else Plain)
        for size in ((2, channels, 13, 16), (1, channels, 20, 15)):
            assert_as_torch(convolution, made, torch.randn(size, dtype=dtype, requires_grad=True))
        tried += 1
    assert tried >= 16


@pytest.mark.parametrize("channels", [2, 6])
def test_every_shape_in_three_dimensions(channels):
    for kernel, stride, padding in itertools.product(
        ((3, 7, 7), (1, 3, 3), (2, 3, 4)), ((1, 2, 2), 1, (2, 1, 3)), (0, (1, 0, 1))
    ):
        convolution = nn.Conv3d(channels, 8, kernel, stride, padding).requires_grad_(requires_grad=False)
        x = torch.randn(2, channels, 6, 12, 13, requires_grad=True)
        assert_as_torch(convolution, packed(convolution, x.shape), x)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 4, 3).double(),
        nn.Conv1d(3, 4, 3),
        nn.ConvTranspose2d(3, 4, 3),
        nn.Linear(3, 4),
    ],
    ids=str,
)
def test_others_stay_as_they_are(convolution):
    kind = type(convolution)
    assert not pack(convolution, torch.Size((1, 3, 8, 8)))
    assert type(convolution) is kind


class Seen(TorchFunctionMode):
    """Which functions took the weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.names = weight, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if any(value is self.weight for value in args):
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_weights_written_to_and_narrower_contexts_take_the_ordinary_way():
    convolution = nn.Conv2d(8, 4, 3).requires_grad_(requires_grad=False)
    made, x = packed(convolution, (1, 8, 9, 9)), torch.randn(1, 8, 9, 9, requires_grad=True)
    with Seen(made.weight) as seen:
        made(x)
    assert "_convolve" in seen.names
    with torch.autocast("cpu", torch.bfloat16):
        assert made(x).dtype == torch.bfloat16
    with torch.no_grad():
        made.weight.mul_(2)
    assert made(x).grad_fn.name() == "ConvolutionBackward0"
    torch.testing.assert_close(made(x) - made.bias.view(-1, 1, 1), 2 * (convolution(x) - convolution.bias.view(-1, 1, 1)))
