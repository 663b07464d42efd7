"""Packed convolutions against torch's own: what they make, and the gradient of their input."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import relume
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


class Own(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight * 2, bias)


def test_what_does_something_to_its_weights_or_is_given_an_image_alone_stays_as_it_is():
    assert not pack(Own(3, 4, 3), torch.Size((1, 3, 8, 8)))
    assert not pack(nn.Conv2d(3, 4, 3), torch.Size((3, 8, 8)))
    net, x = nn.Sequential(Own(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval(), torch.randn(2, 3, 8, 8)
    expected, got = (relume.explain(n, x, 1, ["gradient"])["gradient"] for n in (net, relume.prepare(net, x)))
    torch.testing.assert_close(got, expected)


def test_no_images_or_one_alone_take_the_ordinary_way():
    convolution = nn.Conv2d(3, 4, 3).requires_grad_(requires_grad=False)
    made, x = packed(convolution, (1, 3, 8, 8)), torch.randn(2, 3, 8, 8, requires_grad=True)
    for part in (x[:0], x[0]):
        assert made(part).grad_fn.name() != "ConvolveBackward"
        torch.testing.assert_close(made(part), convolution(part))
    with pytest.raises(RuntimeError, match="type|dtype"):  # as torch's own
        made(x.double())


def test_other_weights_are_never_taken_for_those_that_were_packed():
    made, x = packed(nn.Conv2d(3, 4, 3), (1, 3, 8, 8)), torch.randn(1, 3, 8, 8)
    for _ in range(20):  # the memory of one may be that of another before it
        made.weight = nn.Parameter(torch.randn_like(made.weight), requires_grad=False)
        torch.testing.assert_close(made(x), F.conv2d(x, made.weight, made.bias))
    other = copy.deepcopy(made)
    torch.testing.assert_close(other(x), made(x))


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
