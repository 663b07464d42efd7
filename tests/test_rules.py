"""Each rule at each rectifier in each spelling, against the twin."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume.engine.rectifiers import RECTIFIERS
from tests.reference import twin

ZERO = torch.zeros((), dtype=torch.float64)

SPELLINGS = {
    "F.relu": F.relu,
    "F.relu inplace": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "torch.relu_": torch.relu_,
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU inplace": nn.ReLU(inplace=True),
    "F.relu6": F.relu6,
    "nn.ReLU6 inplace": nn.ReLU6(inplace=True),
    "F.hardtanh": lambda x: F.hardtanh(x, 0, 2),
    "F.hardtanh about zero": F.hardtanh,
    "F.hardtanh inplace": lambda x: F.hardtanh(x, 0, 2, inplace=True),
    "clamp min": lambda x: x.clamp(min=0),
    "clamp positional": lambda x: torch.clamp(x, 0),
    "clamp both": lambda x: x.clamp(0, 1.5),
    "clamp_": lambda x: x.clamp_(min=0),
    "clamp tensor": lambda x: x.clamp(min=ZERO),
    "clip": lambda x: x.clip(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clamp_min tensor": lambda x: torch.clamp_min(x, ZERO),
    "clamp_min_": lambda x: x.clamp_min_(0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold inplace": lambda x: F.threshold(x, 0, 0, inplace=True),
    "maximum": lambda x: torch.maximum(x, ZERO),
    "maximum reversed": lambda x: torch.maximum(torch.zeros_like(x), x),
    "fmax": lambda x: torch.fmax(x, ZERO),
    "leaky_relu": F.leaky_relu,
    "leaky_relu steep": lambda x: F.leaky_relu(x, 0.3),
    "leaky_relu negative slope": lambda x: F.leaky_relu(x, -0.3),
    "leaky_relu inplace": lambda x: F.leaky_relu(x, 0.2, inplace=True),
    "prelu": nn.PReLU(4).double(),
    "prelu with a negative channel": lambda x: F.prelu(x, torch.tensor([0.25, -0.5, 0.0, -1.5], dtype=x.dtype)),
    "elu": F.elu,
    "elu alpha": lambda x: F.elu(x, 0.7),
    "elu inplace": lambda x: F.elu(x, inplace=True),
    "selu": F.selu,
    "selu inplace": lambda x: F.selu(x, inplace=True),
    # torch's backward of celu rounds 1 / alpha to float32, also in float64: an alpha for which that is exact
    "celu": lambda x: F.celu(x, 0.5),
    "celu inplace": lambda x: F.celu(x, 0.5, inplace=True),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "silu inplace": lambda x: F.silu(x, inplace=True),
    "mish": F.mish,
    "mish inplace": lambda x: F.mish(x, inplace=True),
    "hardswish": F.hardswish,
    "hardswish inplace": lambda x: F.hardswish(x, inplace=True),
    "softplus": F.softplus,
    "rrelu": F.rrelu,
    "rrelu inplace": lambda x: F.rrelu(x, inplace=True),
}
RULES = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}


class Around(nn.Module):
    """Convolution, the rectifier under test, convolution, again, and a linear head: signed gradients arrive everywhere."""

    def __init__(self, rectify):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4 * 4 * 4, 5)
        self.rectify = rectify

    def forward(self, x):
        x = self.rectify(self.first(x) * 3)
        return self.head(self.rectify(self.second(x)).flatten(1))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_equals_the_twin(spelling, rule):
    net = Around(SPELLINGS[spelling]).double()
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    expected, scores, calls = twin.attribution(net, x, [0, 3, 4], RULES[rule])
    assert calls.total() == 2, "the twin did not recognise the rectifier"
    e = relume.explain(net, x, [0, 3, 4], [rule])
    torch.testing.assert_close(e.scores, scores, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(e[rule], expected, rtol=1e-12, atol=1e-13)
    assert e.coverage.guided == 2
    assert e.coverage.complete
    assert expected.abs().sum() > 0


def test_every_node_of_the_table_was_met():
    """No row of the engine's table is there without a spelling that reaches it."""
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    met = {type(rectify(x.clone()).grad_fn).__name__ for rectify in SPELLINGS.values()}
    met.add(type(F.rrelu(x.clone(), training=True).grad_fn).__name__)
    assert set(RECTIFIERS) - met == set()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_output_and_activity_are_those_of_the_definition(spelling):
    """What a rule may ask, ``local.output`` and ``local.active``, is ``f(x)`` and ``f(x) > 0`` at every rectifier."""
    seen = []

    def watching(grad_out, local):
        seen.append((local.output, local.active))
        return local.pull(grad_out)

    ran = []

    def rectify(x):
        y = SPELLINGS[spelling](x)
        ran.append(y.detach().clone())
        return y

    net = Around(rectify).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    plain = relume.Gradient(net).attribute(x, 1)
    ran.clear()
    watched = relume.Backpropagation(net, watching).attribute(x, 1)
    assert torch.equal(plain, watched)
    for (output, active), y in zip(seen, reversed(ran), strict=True):
        torch.testing.assert_close(output, y, rtol=1e-12, atol=1e-14)
        assert torch.equal(active, y > 0)


@pytest.mark.parametrize("rectify", [F.relu, F.relu6, F.leaky_relu, F.gelu, lambda x: x.clamp(min=0)])
def test_exactly_at_zero_nothing_passes(rectify):
    """``1[x > 0]`` is strict, also where torch's own derivative at the bound is 1 or 1/2."""

    class AtZero(nn.Module):
        def forward(self, x):
            return rectify(x * 0).flatten(1) + F.relu(x).flatten(1) * 0

    guided = relume.GuidedBackpropagation(AtZero()).attribute(torch.ones(1, 1, 2, 2), 0)
    assert torch.equal(guided, torch.zeros_like(guided))


@pytest.mark.parametrize(
    "clamp",
    [lambda x: x.clamp(min=1e-6), lambda x: x.clamp(max=0), lambda x: x.clamp(-1, 1), lambda x: F.threshold(x, -1, 0),
     lambda x: torch.maximum(x, torch.full_like(x, 0.1)), lambda x: torch.maximum(x, x * 0.5)],
)  # fmt: skip
def test_a_clamp_elsewhere_is_no_rectifier(clamp):
    class Clamped(nn.Module):
        def forward(self, x):
            return clamp(x * -1).flatten(1)

    with pytest.raises(relume.errors.NoRectifierError, match="no rectifier ran"):
        relume.GuidedBackpropagation(Clamped()).attribute(torch.randn(1, 1, 2, 2), 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", relume.METHODS)
def test_every_dtype(dtype, method):
    net = Around(F.relu).to(dtype)
    x = torch.randn(2, 3, 8, 8).to(dtype)
    raw = relume.explain(net, x, 1, [method], "second")[method]
    assert raw.dtype == dtype
    wide = relume.explain(net.double(), x.double(), 1, [method], "second")[method]
    error = (raw.double() - wide).norm() / wide.norm()
    # a few roundings of relative size eps; ReLU masks may flip where an activation is within rounding of zero
    assert error < {torch.float64: 1e-14, torch.float32: 1e-5}.get(dtype, 0.15)


def test_autocast_narrows_the_forward_and_not_the_backward():
    """To the last bit the twin's gradient, whose forward ran under autocast and whose backward did not."""
    net = Around(F.relu)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = relume.GuidedBackpropagation(net).attribute(x, 1)
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16), twin.Twin(twin.guided):
        score = net(leaf)[:, 1].sum()
    (expected,) = torch.autograd.grad(score, leaf)
    assert (got.dtype, score.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(got, expected)


def test_guided_relu_function_is_the_definition():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    g = torch.randn(50, dtype=torch.float64)
    y = relume.GuidedReLU.apply(x)
    (got,) = torch.autograd.grad(y, x, g)
    assert torch.equal(y, x.clamp(min=0))
    assert torch.equal(got, g * (x > 0) * (g > 0))


def test_a_rule_may_ask_in_any_order():
    """Asking for one pull must not spoil the next: the first may be written into."""

    def asks_twice(grad_out, local):
        positive = local.pull_positive(grad_out)
        negative = local.pull(grad_out).clamp(max=0)
        again = local.pull(grad_out)
        assert torch.equal(positive + negative, again)
        return again

    net = Around(F.gelu).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(relume.Backpropagation(net, asks_twice).attribute(x, 0), relume.Gradient(net).attribute(x, 0))
