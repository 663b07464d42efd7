"""Lean runs: the same maps to the last bit, of which less is kept."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import relume
from relume.errors import GraphError
from relume.graph import walk
from relume.lean import Lean, is_lean
from relume.trace import Trace

ALL = list(relume.METHODS)


class Net(nn.Module):
    """Convolution, normalisation, a function, a pooling, a second convolution: what a network keeps most of."""

    def __init__(self, function, pool=None, dims=2, dtype=torch.float64):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.first, self.norm, self.last = conv(3, 8, 3, padding=1), norm(8), conv(8, 6, 3, padding=1, groups=2)
        self.function, self.pool = function, pool or nn.Identity()
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.running_mean)
        nn.init.constant_(self.last.bias, 0.1)  # no class is dead
        self.to(dtype).eval()

    def forward(self, x):
        x = self.pool(self.function(self.norm(self.first(x))))
        return self.function(self.last(x) * 1).flatten(2).mean(2)


FUNCTIONS = {
    "relu": F.relu,
    "relu in place": torch.relu_,
    "relu6": F.relu6,
    "relu6 in place": lambda x: F.relu6(x, inplace=True),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.25),
    "hardtanh to infinity": lambda x: F.hardtanh(x, 0, torch.inf),
    "leaky": F.leaky_relu,
    "leaky in place": lambda x: F.leaky_relu_(x, 0.2),
    "leaky, falling": lambda x: F.leaky_relu(x, -0.3),
    "prelu": lambda x: F.prelu(x, torch.full((1,), 0.1, dtype=x.dtype)),
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "clamp": lambda x: x.clamp(min=0),
    "threshold": lambda x: F.threshold(x, 0, 0),
}
POOLS = {
    "max": nn.MaxPool2d(2),
    "overlapping max": nn.MaxPool2d(3, 2, 1),
    "average": nn.AvgPool2d(2),
    "adaptive": nn.AdaptiveAvgPool2d(5),
    "adaptive max": nn.AdaptiveMaxPool2d(5),
}


def assert_same(net, x, **options):
    plain = relume.prepare(net, x, channels_last=False, **options)
    lean = relume.prepare(net, x, channels_last=False, lean=True, **options)
    expected, got = (relume.explain(model, x, 1, ALL, "last") for model in (plain, lean))
    assert got.coverage == expected.coverage
    for method in ALL:
        assert torch.equal(got[method], expected[method]), method
    assert got["gradient"].any()


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_rectifier(function, fold):
    assert_same(Net(function), torch.randn(2, 3, 9, 7, dtype=torch.float64), fold=fold)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_every_pooling(pool):
    assert_same(Net(F.relu, pool), torch.randn(2, 3, 12, 12, dtype=torch.float64))


@pytest.mark.parametrize("pool", [nn.MaxPool3d(2), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(2)], ids=str)
def test_volumes(pool):
    assert_same(Net(F.relu, pool, dims=3), torch.randn(2, 3, 4, 6, 8, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_narrower_types(dtype):
    for function in (F.relu, F.relu6, F.leaky_relu):
        assert_same(Net(function, dtype=dtype), torch.randn(2, 3, 8, 8, dtype=dtype), fold=False)


def test_zeros_and_bounds_themselves():
    for function, values in (
        (F.relu, [-1.0, -0.0, 0.0, 1e-30]),
        (F.relu6, [0.0, 6.0, 5.9, 7.0]),
        (F.leaky_relu, [0.0, -1.0, 2.0, 0.0]),
    ):
        x = torch.tensor(values).repeat(4, 1).requires_grad_()
        (expected,) = torch.autograd.grad(function(x).sum(), x)
        with Lean():
            y = function(x)
        assert is_lean(y.grad_fn)
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)


def test_sizes_that_fill_no_whole_bytes_and_views_with_gaps():
    for shape in ((3, 5), (1,), (7, 3, 3), (16, 3)):
        base = torch.randn(*shape, 3).requires_grad_()
        for x in (base[..., 1], base.transpose(0, -1)):
            (expected,) = torch.autograd.grad(F.relu(x).square().sum(), base)
            with Lean():
                y = F.relu(x)
            assert torch.equal(torch.autograd.grad((2 * y.detach() * y).sum(), base)[0], expected)


def kept(model, x):
    """The bytes that the graph of a forward pass keeps, each memory once, weights apart."""
    trace = Trace.run(model, x)
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    held = {}
    for node in walk(trace.outputs.grad_fn):
        for name in dir(node):
            if name.startswith("_raw_saved_"):
                data = getattr(node, name).data
                for tensor in [data] if isinstance(data, torch.Tensor) else [getattr(data, "kept", None)]:
                    if tensor is not None and tensor.untyped_storage().data_ptr() not in weights:
                        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(held.values())


def test_a_bit_of_each_value_is_kept_and_no_input():
    net, x = (
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten()).eval(),
        torch.randn(2, 3, 12, 12),
    )
    values = 2 * 16 * (10 * 10 + 8 * 8)
    plain = relume.prepare(net, x, channels_last=False)
    lean = relume.prepare(net, x, channels_last=False, lean=True)
    assert values * 4 <= kept(plain, x) <= values * 4 + 2 * x.nbytes
    assert kept(lean, x) == values / 8


def test_a_rule_that_asks_for_the_output_is_refused():
    net, x = Net(F.relu), torch.randn(1, 3, 8, 8, dtype=torch.float64)

    def rule(grad, local):
        return local.pull(grad) * (local.output > 0.1)

    assert relume.Backpropagation(relume.prepare(net, x), rule).attribute(x, 1).any()
    with pytest.raises(GraphError, match="lean=False"):
        relume.Backpropagation(relume.prepare(net, x, lean=True), rule).attribute(x, 1)


def test_hooks_of_the_caller_and_checkpoints_keep_what_they_keep():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside, self.last = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            return F.relu(self.last(checkpoint(self.inside, x, use_reentrant=False))).mean((2, 3))

    x = torch.randn(2, 3, 12, 12)
    assert_same(Checkpointed().eval(), x)
    with torch.autograd.graph.save_on_cpu():
        assert_same(Net(F.relu, dtype=torch.float32), x)
