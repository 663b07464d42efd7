"""Packed convolutions against torch's own: what they make, and the gradient of their input."""

import copy
import itertools
import threading
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import relume
from relume.acceleration import packed_convolution as plan
from relume.acceleration.packed_convolution import SIZES, Blocks, Plain, pack

MKLDNN = torch.backends.mkldnn.is_available()
needs_mkldnn = pytest.mark.skipif(not MKLDNN, reason="this torch has no oneDNN")

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


@needs_mkldnn
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7, 11])
def test_every_shape_in_two_dimensions(kernel, channels, dtype):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU does not compute in bfloat16, so nothing is packed: test_who_is_packed")
    tried = 0
    for stride, padding, dilation, groups in itertools.product((1, 2, 3, 4), (0, 1, 2, 5), (1, 2), (1, 4)):
        if dilation * (kernel - 1) + 1 > 13 + 2 * padding or channels % groups:
            continue
        convolution = nn.Conv2d(channels, 16, kernel, stride, padding, dilation, groups, bias=stride % 2 == 0)
        convolution = convolution.to(dtype).requires_grad_(requires_grad=False)
        made = packed(convolution, (2, channels, 13, 16))
        way = made._relume_weights.backward(made.weight, torch.Size((2, channels, 13, 16)))
        assert type(way) is (Blocks if channels == 3 and dilation == 1 else Plain)
        for size in ((2, channels, 13, 16), (1, channels, 20, 15)):
            assert_as_torch(convolution, made, torch.randn(size, dtype=dtype, requires_grad=True))
        tried += 1
    assert tried >= 16


@needs_mkldnn
@pytest.mark.parametrize("channels", [2, 6])
def test_every_shape_in_three_dimensions(channels):
    for kernel, stride, padding in itertools.product(
        ((3, 7, 7), (1, 3, 3), (2, 3, 4)), ((1, 2, 2), 1, (2, 1, 3)), (0, (1, 0, 1))
    ):
        convolution = nn.Conv3d(channels, 8, kernel, stride, padding).requires_grad_(requires_grad=False)
        x = torch.randn(2, channels, 6, 12, 13, requires_grad=True)
        assert_as_torch(convolution, packed(convolution, x.shape), x)


@pytest.mark.parametrize("mkldnn", [True, False])
@pytest.mark.parametrize("bfloat16", [True, False])
def test_who_is_packed(monkeypatch, mkldnn, bfloat16):
    """A convolution is packed where torch has oneDNN; one in bfloat16 where the CPU computes in it too."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
    monkeypatch.setattr(torch._C, "_get_mkldnn_enabled", lambda: True)
    size = torch.Size((1, 3, 8, 8))
    assert pack(nn.Conv2d(3, 4, 3), size) == mkldnn
    assert pack(nn.Conv2d(3, 4, 3).bfloat16(), size) == (mkldnn and bfloat16)
    assert not pack(nn.Conv2d(3, 4, 3).half(), size)
    monkeypatch.setattr(torch._C, "_get_mkldnn_enabled", lambda: False)
    assert not pack(nn.Conv2d(3, 4, 3), size)


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


@needs_mkldnn
def test_no_images_or_one_alone_take_the_ordinary_way():
    convolution = nn.Conv2d(3, 4, 3).requires_grad_(requires_grad=False)
    made, x = packed(convolution, (1, 3, 8, 8)), torch.randn(2, 3, 8, 8, requires_grad=True)
    for part in (x[:0], x[0]):
        assert made(part).grad_fn.name() != "ConvolveBackward"
        torch.testing.assert_close(made(part), convolution(part))
    with pytest.raises(RuntimeError, match="type|dtype"):  # as torch's own
        made(x.double())


@needs_mkldnn
def test_an_image_of_other_channels_gives_the_error_of_torch():
    made = packed(nn.Conv2d(3, 16, 3).requires_grad_(requires_grad=False), (1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1 channels instead"):
        made(torch.randn(1, 1, 8, 8))


@needs_mkldnn
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


@needs_mkldnn
def test_weights_written_to_are_packed_again_and_narrower_contexts_take_the_ordinary_way():
    convolution = nn.Conv2d(8, 4, 3).requires_grad_(requires_grad=False)
    made, x = packed(convolution, (1, 8, 9, 9)), torch.randn(1, 8, 9, 9, requires_grad=True)
    with Seen(made.weight) as seen:
        made(x)
    assert "convolve" in seen.names
    with torch.autocast("cpu", torch.bfloat16):
        assert made(x).dtype == torch.bfloat16
    with torch.no_grad():
        made.weight.mul_(2)
        convolution.weight.mul_(2)
    assert_as_torch(convolution, made, x)
    made.requires_grad_()  # a gradient of the weights is torch's business
    assert made(x).grad_fn.name() == "ConvolutionBackward0"


# --- A size at a time --------------------------------------------------------------------------------------------------------


class Counting:
    """oneDNN's operations, each call of them counted."""

    def __init__(self):
        self.calls = Counter()

    def __getattr__(self, name):
        operation = getattr(torch.ops.mkldnn, name)

        def call(*args):
            self.calls[name] += 1
            return operation(*args)

        return call

    def packings(self):
        """How often weights were packed for each pass since this was last asked."""
        keys = "_reorder_convolution_weight", "_reorder_convolution_transpose_weight"
        made = tuple(self.calls.pop(key, 0) for key in keys)
        self.calls.clear()
        return made


@pytest.fixture
def counting(monkeypatch):
    counting = Counting()
    monkeypatch.setattr(plan, "_mkldnn", counting)
    return counting


def images(number, side=10):
    return torch.randn(number, 8, side, side, requires_grad=True)


@needs_mkldnn
def test_each_size_is_packed_at_its_first_use_once_for_each_pass(counting):
    convolution = nn.Conv2d(8, 16, 3).requires_grad_(requires_grad=False)
    made = packed(convolution, (1, 8, 10, 10))
    assert counting.packings() == (0, 0)
    with torch.no_grad():
        made(images(1).detach())
    assert counting.packings() == (1, 0)  # no gradient was asked for
    for size, expected in ((images(1), (0, 1)), (images(8), (1, 1)), (images(8, 12), (1, 1))):
        assert_as_torch(convolution, made, size)
        assert counting.packings() == expected
    for size in (images(8), images(1), images(8, 12)):
        assert_as_torch(convolution, made, size)
    assert counting.packings() == (0, 0)


@needs_mkldnn
def test_a_network_prepared_with_one_image_is_packed_for_eight_once(counting):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)).eval()
    prepared = relume.prepare(net, torch.randn(1, 3, 12, 12))
    assert prepared.preparation.packed == ("0", "2")
    assert counting.packings() == (3, 1)  # the gradient of the first one's input is computed as a convolution
    x = torch.randn(8, 3, 12, 12)
    for expected in ((3, 1), (0, 0)):  # every call runs another replica
        torch.testing.assert_close(
            *(relume.explain(n, x, 1, ["guided_backprop"])["guided_backprop"] for n in (prepared, net)), rtol=1e-4, atol=1e-6
        )
        assert counting.packings() == expected
    relume.explain(prepared, x, 1, ["guided_backprop"], batch_size=3)
    assert counting.packings() == (6, 2)  # 3 + 3 + 2
    relume.explain(prepared, x, 1, ["guided_backprop"], batch_size=3)
    relume.explain(prepared, x[:1], 1, ["guided_backprop"])
    assert counting.packings() == (0, 0)


@needs_mkldnn
@pytest.mark.parametrize("same", [True, False])
def test_a_few_sizes_are_kept_those_asked_for_last(counting, monkeypatch, same):
    """Sizes for which oneDNN wants the same order share one packed form."""
    monkeypatch.setattr(plan, "_same_order", lambda *_: same)
    convolution = nn.Conv2d(8, 16, 3).requires_grad_(requires_grad=False)
    made = packed(convolution, (1, 8, 10, 10))
    for number in (*range(1, SIZES + 1), 1, SIZES + 1):
        if not same:
            assert_as_torch(convolution, made, images(number))
        else:  # not the order that it wants, so none of its results
            made(images(number))
    assert counting.packings() == (SIZES + 1, SIZES + 1)
    made(images(1))
    assert counting.packings() == (0, 0)
    made(images(2))  # the oldest
    assert counting.packings() == (1, 1)
    kept = [*made._relume_weights._forward.values()]
    assert (len(kept), len({id(form) for form in kept})) == (SIZES, 1 if same else SIZES)
    kept = [*made._relume_weights._backward.values()]
    assert (len(kept), len({id(form) for form in kept})) == (SIZES, 1 if same else SIZES)


@needs_mkldnn
def test_another_number_of_threads_is_packed_for(counting, monkeypatch):
    made = packed(nn.Conv2d(8, 16, 3), (1, 8, 10, 10)).requires_grad_(requires_grad=False)
    made(images(1))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    made(images(1))
    assert counting.packings() == (2, 2)


@needs_mkldnn
def test_what_is_packed_under_inference_mode_serves_a_gradient():
    convolution = nn.Conv2d(8, 16, 3).requires_grad_(requires_grad=False)
    made = packed(convolution, (1, 8, 10, 10))
    with torch.inference_mode():
        made(torch.randn(2, 8, 10, 10))
    assert_as_torch(convolution, made, images(2))


@needs_mkldnn
def test_a_backward_pass_is_that_of_the_weights_it_ran_forward_with():
    convolution = nn.Conv2d(8, 16, 3).requires_grad_(requires_grad=False)
    made, x = packed(convolution, (1, 8, 10, 10)), images(2)
    expected = torch.autograd.grad(convolution(x).sum(), x)[0]
    y = made(x)
    with torch.no_grad():
        made.weight.zero_()
    assert made(images(2)).abs().max() <= made.bias.abs().max()
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], expected)


@needs_mkldnn
def test_a_copy_packs_its_own_weights(counting):
    made, x = packed(nn.Conv2d(8, 16, 3), (1, 8, 10, 10)).requires_grad_(requires_grad=False), images(2)
    y = made(x)
    other = copy.deepcopy(made)
    with torch.no_grad():
        other.weight.mul_(2)
    counting.packings()
    torch.testing.assert_close(other(x) - other.bias[:, None, None], 2 * (y - made.bias[:, None, None]))
    assert counting.packings() == (1, 1)
    assert torch.equal(made(x), y)
    assert counting.packings() == (0, 0)


@needs_mkldnn
def test_other_steps_and_other_kinds_of_number_take_the_ordinary_way():
    made, x = packed(nn.Conv2d(8, 16, 3), (1, 8, 10, 10)).requires_grad_(requires_grad=False), images(2)
    made.stride = (2, 2)
    torch.testing.assert_close(made(x), F.conv2d(x, made.weight, made.bias, 2))
    made.double()
    torch.testing.assert_close(made(x.double()), F.conv2d(x.double(), made.weight, made.bias, 2))


@needs_mkldnn
def test_threads_pack_each_size_once(counting):
    convolution = nn.Conv2d(8, 16, 3).requires_grad_(requires_grad=False)
    made = packed(convolution, (1, 8, 10, 10))
    start, wrong = threading.Barrier(8), []

    def work(number):
        x = images(number)
        start.wait()
        for _ in range(20):
            y = made(x)
            same = torch.allclose(y, convolution(x), atol=1e-5)
            z = torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(convolution(x).sum(), x)[0]
            if not same or not torch.allclose(*z, atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(1 + i % SIZES,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert counting.packings() == (SIZES, SIZES)
