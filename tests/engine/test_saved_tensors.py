"""Lean runs: the same maps to the last bit, of which less is kept."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint

import relume
from relume import errors
from relume.engine.graph import walk
from relume.engine.reading import Reading
from relume.engine.saved_tensors import Lean, is_lean
from relume.engine.trace import Trace
from tests.helpers.networks import Small, torchvision_network

ALL = list(relume.METHODS)


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that stands for what was not kept holds NaN: a formula that reads it would show."""
    plain = torch.empty_strided

    def empty(*args, **kwargs):
        made = plain(*args, **kwargs)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty_strided", empty)


def kept(trace):
    """Every tensor that the graph of a trace keeps, in the form in which it keeps it: node, name, tensor."""
    found = []
    for node in walk(trace.score(0).value.grad_fn):
        for name in dir(node):
            values = getattr(node, name) if name.startswith("_raw_saved_") else ()
            for value in values if isinstance(values, (list, tuple)) else [values]:
                tensors = tree_iter(getattr(value.data, "kept", value.data))  # of bits; of what else is kept; as it was
                found += [(node.name(), name.removeprefix("_raw_saved_"), t) for t in tensors if isinstance(t, torch.Tensor)]
    return found


def kept_bytes(trace):
    weights = {t.untyped_storage().data_ptr() for t in trace.model.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for _, _, t in kept(trace)}
    return sum(size for pointer, size in storages.items() if pointer not in weights)


# --- The same to the last bit ------------------------------------------------------------------------------------------------


class Uses(nn.Module):
    """Convolution, ``use``, convolution, BatchNorm, ``use``, pooling, a classifier."""

    def __init__(self, use, axes=2, **options):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.use, self.prelu = use, nn.PReLU(4, init=-0.2)
        self.c1, self.c2, self.bn, self.head = conv(3, 4, 3), conv(4, 4, 3, **options), norm(4), nn.Linear(4, 5)
        nn.init.uniform_(self.bn.running_mean, -0.5, 0.5)
        nn.init.uniform_(self.bn.weight, -1.5, 1.5)

    def forward(self, x):
        x = self.use(self, self.bn(self.c2(self.use(self, self.c1(x)))))
        return self.head(x.flatten(2).mean(2))


USES = {
    "relu": lambda _, x: F.relu(x),
    "relu in place": lambda _, x: F.relu_(x),
    "relu twice": lambda _, x: F.relu(F.relu(x) - 0.1),
    "relu6": lambda _, x: F.relu6(4 * x),
    "relu6 in place": lambda _, x: F.relu6(4 * x, inplace=True),
    "leaky": lambda _, x: F.leaky_relu(x, 0.2),
    "leaky in place": lambda _, x: F.leaky_relu_(x, 0.2),
    "leaky, falling": lambda _, x: F.leaky_relu(x * (x > -0.2), -0.3),
    "hardtanh": lambda _, x: F.hardtanh(x, -0.3, 0.2),
    "hardtanh from 0": lambda _, x: F.hardtanh(x, 0, 0.7),
    "hardtanh without end": lambda _, x: F.hardtanh(x, 0, torch.inf),
    "prelu": lambda net, x: net.prelu(x),
    "gelu": lambda _, x: F.gelu(x),
    "silu": lambda _, x: F.silu(x),
    "elu": lambda _, x: F.elu(x),
    "hardswish": lambda _, x: F.hardswish(x),
    "clamp": lambda _, x: x.clamp(0, 0.5),
    "threshold": lambda _, x: F.threshold(x, 0, 0),
    "max-pooling": lambda _, x: F.max_pool2d(F.relu(x), 3, 2, 1),
    "max-pooling, dilated": lambda _, x: F.max_pool2d(F.relu(x), 2, 1, dilation=2),
    "max-pooling, adaptive": lambda _, x: F.adaptive_max_pool2d(F.relu(x), 4),
    "average-pooling": lambda _, x: F.avg_pool2d(F.relu(x), 3, 1, 1, count_include_pad=False),
    "average-pooling, adaptive": lambda _, x: F.adaptive_avg_pool2d(F.relu(x), (5, 4)),
    "in place afterwards": lambda _, x: F.relu(x).add(1).mul_(2),
    "in place on a view": lambda _, x: (F.relu(x)[:, :2].clone().mul_(2)).repeat(1, 2, 1, 1),
    "a custom function": lambda _, x: F.relu(relume.GuidedReLU.apply(x + 0.1)),
    "checkpointed": lambda _, x: checkpoint(lambda y: F.max_pool2d(F.relu(F.relu6(y)), 2, 1), x, use_reentrant=False),
    "weights to be trained": lambda _, x: F.relu(F.conv2d(x, TRAINED, padding=1)),
    "nothing left": lambda _, x: F.relu(x) + F.max_pool2d(F.relu(x[:0]), 2).sum(),
}
TRAINED = nn.Parameter(torch.randn(4, 4, 3, 3))


def assert_equal(plain, lean, x, layer="bn"):
    expected, got = (relume.explain(net, x, 1, ALL, layer) for net in (plain, lean))
    for method in ALL:
        assert torch.equal(got[method], expected[method]), method
    assert torch.equal(got.scores, expected.scores)
    assert str(got.coverage) == str(expected.coverage)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("use", USES)
def test_maps_are_the_same_to_the_last_bit(use, fold):
    for dtype in (torch.float32, torch.bfloat16) if fold else (torch.float32,):
        net, x = Uses(USES[use]).eval(), torch.randn(2, 3, 14, 13)
        if use == "weights to be trained" and dtype == torch.bfloat16:
            continue  # they are no weights of the network
        plain, lean = (relume.prepare(net, x, fold=fold, channels_last=fold, dtype=dtype, lean=flag) for flag in (False, True))
        assert_equal(plain, lean, x)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"stride": 2, "padding": 1}, {"groups": 4, "bias": False}])
@pytest.mark.parametrize("axes", [2, 3])
def test_other_convolutions_and_three_dimensions(options, axes):
    def use(_net, x):
        pool = (F.max_pool2d, F.avg_pool2d) if axes == 2 else (F.max_pool3d, F.avg_pool3d)
        adaptive = F.adaptive_avg_pool2d if axes == 2 else F.adaptive_avg_pool3d
        return adaptive(pool[0](F.relu(x), 2, 1) + pool[1](F.relu(-x), 2, 1), 7)

    for dtype, options_of_prepare in itertools.product(
        (torch.float32, torch.float64), ({}, {"fold": False, "channels_last": False})
    ):
        net, x = Uses(use, axes, **options).to(dtype).eval(), torch.randn(2, 3, *[11] * axes, dtype=dtype)
        plain, lean = (relume.prepare(net, x, lean=flag, **options_of_prepare) for flag in (False, True))
        assert_equal(plain, lean, x)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "googlenet"])
def test_networks_of_torchvision(name):
    net, x = torchvision_network(name), torch.randn(1, 3, 64, 64)
    assert_equal(relume.prepare(net, x), relume.prepare(net, x, lean=True), x, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("highest", [0.1, 1 / 3, 0.7, 2.1, 6, 1e-3, 3e4, torch.inf])
def test_a_relu6_at_and_beside_its_bounds(dtype, highest):
    """Where a bound is no value of the dtype, torch compares in float32."""
    around = torch.tensor([highest]).clamp(max=6e4) * torch.tensor([0, 0.5, 0.99, 0.999, 1, 1.001, 1.01, 2])
    values = torch.cat([around, torch.linspace(-1, 3 * min(highest, 5), 400)]).to(dtype)
    values = torch.cat([values, values.nextafter(torch.zeros_like(values)) if dtype.itemsize > 2 else values])
    gradients = []
    for around_it in (Lean(), torch.enable_grad()):
        x = values.clone().requires_grad_()
        with around_it:
            y = F.hardtanh(x, 0, highest)
        gradients.append(torch.autograd.grad(y.sum(), x)[0])
    assert torch.equal(*gradients)


def test_sizes_that_fill_no_whole_bytes_and_views_with_gaps():
    for shape in ((3, 5), (1,), (7, 3, 3), (16, 3), (8, 4, 2), (8,), (2, 4), (0, 4), (16,)):
        base = torch.randn(*shape, 3).requires_grad_()
        for x in (base[..., 1], base.transpose(0, -1), base[..., :1].expand_as(base), base[::2]):
            (expected,) = torch.autograd.grad(F.relu(x).square().sum(), base)
            with Lean():
                y = F.relu(x)
            assert torch.equal(torch.autograd.grad((2 * y.detach() * y).sum(), base)[0], expected)


def test_the_callers_hooks_on_what_is_saved():
    net, x = Uses(USES["max-pooling"]).eval(), torch.randn(2, 3, 14, 14)
    plain, lean = (relume.prepare(net, x, fold=False, channels_last=False, lean=flag) for flag in (False, True))
    with torch.autograd.graph.save_on_cpu():
        assert_equal(plain, lean, x)
    assert_equal(plain, lean, x)


def test_a_checkpointed_region_is_computed_once_in_the_forward_pass():
    runs = []

    def region(y):
        runs.append(1)
        for conv in convs:
            y = F.max_pool2d(F.leaky_relu(conv(y)), 2, 1)
        return y

    convs = nn.ModuleList(nn.Conv2d(4, 4, 3) for _ in range(2))
    net = Uses(lambda _, x: checkpoint(region, x, use_reentrant=False)).eval()
    lean = relume.prepare(net, x := torch.randn(1, 3, 24, 24), lean=True, channels_last=False)
    runs.clear()
    Trace.run(lean, x, Reading())
    assert len(runs) == 2  # it is used twice


def test_two_backward_passes_over_one_graph():
    net, x = Small().eval(), torch.randn(2, 3, 12, 12)
    trace = Trace.run(relume.prepare(net, x, lean=True), x, Reading(layers=["body"]))
    score = trace.score(1)
    first, second = (trace.grad(score, [trace.images, trace.layers[0].output], relume.rules.guided) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --- What is kept ------------------------------------------------------------------------------------------------------------


def test_what_is_kept():
    net, x = Uses(USES["max-pooling"]).eval(), torch.randn(2, 3, 24, 24)
    plain = Trace.run(net, x, Reading())
    lean = Trace.run(relume.prepare(net, x, lean=True, fold=False, channels_last=False), x, Reading())
    names = {(node, name) for node, name, _ in kept(plain)}
    assert {("ConvolutionBackward0", "input"), ("NativeBatchNormBackward0", "input"), ("ReluBackward0", "result")} < names
    found = {(node, name): tensor for node, name, tensor in kept(lean)}
    for read_for_its_size in (
        ("ConvolutionBackward0", "input"),
        ("NativeBatchNormBackward0", "input"),
        ("MaxPool2DWithIndicesBackward0", "self"),
    ):
        assert read_for_its_size in names
        assert read_for_its_size not in found
    assert found["ReluBackward0", "result"].dtype == torch.uint8
    assert found["MaxPool2DWithIndicesBackward0", "result1"].dtype == torch.int32
    # of the two ReLUs a bit a value, of the poolings after them four bytes for each index; the statistics, and the score's
    assert kept_bytes(lean) == 2 * 4 * (22 * 22 + 9 * 9) / 8 + 2 * 4 * 4 * (11 * 11 + 5 * 5) + 2 * 4 * 4 + 2 * 8 + 2 * 5 * 4
    assert kept_bytes(plain) > 5 * kept_bytes(lean)


@pytest.mark.parametrize(
    ("name", "share"), [("resnet18", 0.15), ("mobilenet_v2", 0.1), ("squeezenet1_1", 0.2), ("densenet121", 0.16)]
)
def test_how_much_is_kept(name, share):
    net, x = torchvision_network(name), torch.randn(1, 3, 64, 64)
    plain = kept_bytes(Trace.run(net, x, Reading()))
    prepared = kept_bytes(Trace.run(relume.prepare(net, x), x, Reading()))
    lean = Trace.run(relume.prepare(net, x, lean=True), x, Reading())
    assert kept_bytes(lean) < share * plain
    assert kept_bytes(lean) <= prepared <= plain
    assert not any(name == "input" for node, name, _ in kept(lean) if "Conv" in node)


def test_a_rule_that_asks_for_the_output_is_refused():
    def by_output(grad, local):
        return local.pull(grad) * local.output

    net, x = Small().eval(), torch.randn(1, 3, 12, 12)
    assert relume.Backpropagation(relume.prepare(net, x), by_output).attribute(x, 1).any()
    lean = relume.prepare(net, x, lean=True)
    with pytest.raises(errors.GraphError, match=r"asks for a rectifier's output.*prepare it with lean=False"):
        relume.Backpropagation(lean, by_output).attribute(x, 1)
    active = relume.Backpropagation(lean, lambda grad, local: grad * local.active).attribute(x, 1)
    assert active.any()


def test_an_output_that_is_still_there_is_not_refused():
    x = torch.randn(4, requires_grad=True)
    with Lean():
        kept_whole = F.leaky_relu(x, -0.3), F.hardtanh(x, -1, 1), F.gelu(x), F.hardtanh(x, 0, torch.inf)
        reduced = F.leaky_relu(x, 0.3), F.hardtanh(x, 0, 1), F.relu(x)
    assert [is_lean(y.grad_fn) for y in (*kept_whole, *reduced)] == [False] * 4 + [True] * 3
