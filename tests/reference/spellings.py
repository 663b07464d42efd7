"""Activations written as formulas, each beside the function it is, and formulas that are no activation.

Nothing here knows of the engine. The derivative of a function is autograd's, of that function written plainly, in float64.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from tests.reference import twin

ROOT = math.sqrt(2 / math.pi)
SELU = (1.0507009873554805, 1.6732632423543772)


def derivative(f):
    def slope(x):
        with torch.enable_grad(), torch._C.DisableTorchFunction():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(f(leaf).sum(), leaf)[0]

    return slope


def rectifier(f, rule):
    """``f`` as one explicit rectifier, to which ``rule`` of the twin is applied."""
    return lambda x: twin.Rectifier.apply(x, f, derivative(f), rule)


@dataclass(frozen=True)
class Spelling:
    """One way to write ``function``.

    The ``outcome`` is ``guided``; ``listed``, since nothing tells it; or ``its rectifiers``, which are guided as they are.
    """

    written: Any
    function: Any
    outcome: str
    tolerance: float = 1e-12


# --- The functions, from their definitions ---


def relu(x):
    return torch.where(x > 0, x, 0)


def leaky(x):
    return torch.where(x > 0, x, 0.1 * x)


def relu_squared(x):
    return torch.where(x > 0, x * x, 0)


def elu(x):
    return torch.where(x > 0, x, torch.expm1(x))


def selu(x):
    return SELU[0] * torch.where(x > 0, x, SELU[1] * torch.expm1(x))


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def tanh_gelu(x, root=ROOT):
    return x * (1 + torch.tanh(root * (x + 0.044715 * x**3))) / 2


def silu(x):
    return x * torch.sigmoid(x)


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def softplus(x):
    return torch.log1p(torch.exp(x))


def mish(x):
    return x * torch.tanh(softplus(x))


def hardswish(x):
    return x * torch.minimum(relu(x + 3), torch.full_like(x, 6)) / 6


def squareplus(x):
    return (x + (x**2 + 4) ** 0.5) / 2


def smelu(x):
    return torch.where(x.abs() < 1, (x + 1) ** 2 / 4, relu(x))


# --- Spellings that take more than an expression ---


def _assigned(x):
    y = x.clone()
    y[y < 0] = 0
    return y


def _scaled(x):
    y = x.clone()
    y[x < 0] *= 0.1
    return y


def _picked(x):
    y = torch.zeros_like(x)
    positive = x > 0
    y[positive] = x[positive]
    return y


def _filled(x):
    y = x.clone()
    return y.masked_fill_(y < 0, 0)


def _zeros(x):
    return torch.zeros_like(x)


def _spellings(outcome, *rows):
    return {name: Spelling(written, function, outcome) for name, written, function in rows}


SPELLINGS = {
    **_spellings(
        "guided",
        ("gelu_new", lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))), tanh_gelu),
        (
            "gelu_fast",
            lambda x: 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x))),
            lambda x: tanh_gelu(x, 0.7978845608),
        ),
        ("gelu_accurate", lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3)))), tanh_gelu),
        ("gelu_python_tanh", lambda x: x * 0.5 * (1.0 + torch.tanh(ROOT * (x + 0.044715 * x.pow(3.0)))), tanh_gelu),
        ("gelu_python", lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), gelu),
        ("0.5*x*(1 + erf(x/sqrt(2)))", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), gelu),
        ("x*ndtr(x)", lambda x: x * torch.special.ndtr(x), gelu),
        ("x*0.5*erfc(-x*sqrt(0.5))", lambda x: x * 0.5 * torch.erfc(-x * math.sqrt(0.5)), gelu),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x), quick_gelu),
        ("sigmoid(1.702*x)*x", lambda x: torch.sigmoid(1.702 * x) * x, quick_gelu),
        ("x*sigmoid(x)", lambda x: x * torch.sigmoid(x), silu),
        ("x/(1 + exp(-x))", lambda x: x / (1 + torch.exp(-x)), silu),
        ("sigmoid(x).mul(x)", lambda x: torch.sigmoid(x).mul(x), silu),
        ("x*0.5*(1 + tanh(x/2))", lambda x: x * 0.5 * (1 + torch.tanh(x / 2)), silu),
        ("x*tanh(softplus(x))", lambda x: x * torch.tanh(F.softplus(x)), mish),
        ("x*tanh(log(1 + exp(x)))", lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))), mish),
        (
            "serf: x*erf(log1p(exp(x)))",
            lambda x: x * torch.erf(torch.log1p(torch.exp(x))),
            lambda x: x * torch.erf(softplus(x)),
        ),
        (
            "logish: x*log1p(sigmoid(x))",
            lambda x: x * torch.log1p(x.sigmoid()),
            lambda x: x * torch.log1p(1 / (1 + torch.exp(-x))),
        ),
        ("tanhexp: x*tanh(exp(x))", lambda x: x * torch.tanh(torch.exp(x)), lambda x: x * torch.tanh(torch.exp(x))),
        ("log1p(exp(x))", lambda x: torch.log1p(torch.exp(x)), softplus),
        ("log(1 + exp(x))", lambda x: torch.log(1 + torch.exp(x)), softplus),
        ("logaddexp(x, zeros)", lambda x: torch.logaddexp(x, _zeros(x)), softplus),
        ("-logsigmoid(-x)", lambda x: -F.logsigmoid(-x), softplus),
        ("log1p(exp(2*x))/2", lambda x: torch.log1p(torch.exp(2 * x)) / 2, lambda x: softplus(2 * x) / 2),
        ("sqrtsoftplus", lambda x: F.softplus(x).sqrt(), lambda x: softplus(x) ** 0.5),
        ("squareplus: (x + sqrt(x*x + 4))/2", lambda x: (x + torch.sqrt(x * x + 4)) / 2, squareplus),
        ("x*relu6(x + 3)/6", lambda x: x * F.relu6(x + 3) / 6, hardswish),
        ("x*(x + 3).clamp(0, 6)/6", lambda x: x * (x + 3).clamp(0, 6) / 6, hardswish),
        ("x*hardsigmoid(x)", lambda x: x * F.hardsigmoid(x), hardswish),
        ("(x + |x|)/2", lambda x: (x + x.abs()) / 2, relu),
        ("(x - (-|x|))/2", lambda x: (x - (-x.abs())) / 2, relu),
        ("(x + sqrt(x*x))/2", lambda x: (x + torch.sqrt(x * x)) / 2, relu),
        ("x*(1 + sign(x))/2", lambda x: x * (1 + torch.sign(x)) / 2, relu),
        ("(x + x*sign(x))/2", lambda x: (x + x * x.sign()) / 2, relu),
        ("0.55*x + 0.45*|x|", lambda x: 0.55 * x + 0.45 * x.abs(), leaky),
        ("max(x, 0.1*x)", lambda x: torch.max(x, 0.1 * x), leaky),
        ("maximum(x, 0*x)", lambda x: torch.maximum(x, 0 * x), relu),
        ("-minimum(-x, zeros)", lambda x: -torch.minimum(-x, _zeros(x)), relu),
        ("-((-x).clamp(max=0))", lambda x: -((-x).clamp(max=0)), relu),
        ("x - x.clamp(max=0)", lambda x: x - x.clamp(max=0), relu),
        ("relu(x)**2", lambda x: F.relu(x) ** 2, relu_squared),
        ("relu2", lambda x: torch.square(F.relu(x)), relu_squared),
        ("relu(x)*relu(x)", lambda x: F.relu(x) * F.relu(x), relu_squared),
        ("relu(x)*x", lambda x: F.relu(x) * x, relu_squared),
        (
            "clamp(x, min=0) + minimum(zeros, expm1(x))",
            lambda x: x.clamp(min=0) + torch.minimum(_zeros(x), torch.expm1(x)),
            elu,
        ),
        ("relu(x) + clamp(exp(x) - 1, max=0)", lambda x: F.relu(x) + torch.clamp(torch.exp(x) - 1, max=0), elu),
        ("where(x > 0, x, expm1(x))", lambda x: torch.where(x > 0, x, torch.expm1(x)), elu),
        ("where(x > 0, x, exp(x) - 1)", lambda x: torch.where(x > 0, x, torch.exp(x) - 1), elu),
        ("selu", lambda x: SELU[0] * torch.where(x > 0, x, SELU[1] * (torch.exp(x) - 1)), selu),
        ("x*(x > 0)", lambda x: x * (x > 0), relu),
        ("x*(x > 0).float()", lambda x: x * (x > 0).float(), relu),
        ("x*(x > 0).to(x)", lambda x: x * (x > 0).to(x), relu),
        ("x*(x > 0).type_as(x)", lambda x: x * (x > 0).type_as(x), relu),
        ("x*(x >= 0).int()", lambda x: x * (x >= 0).int(), relu),
        ("where(x > 0, x, 0)", lambda x: torch.where(x > 0, x, 0), relu),
        ("where(x > 0, x, zeros)", lambda x: torch.where(x > 0, x, _zeros(x)), relu),
        ("where(x > 0, x, 0.1*x)", lambda x: torch.where(x > 0, x, 0.1 * x), leaky),
        ("where(x < 0, 0.1*x, x)", lambda x: torch.where(x < 0, 0.1 * x, x), leaky),
        ("x.masked_fill(x < 0, 0)", lambda x: x.masked_fill(x < 0, 0), relu),
        ("y.masked_fill_(y < 0, 0)", _filled, relu),
        ("y[y < 0] = 0", _assigned, relu),
        ("lerp(zeros, x, (x > 0).to(x))", lambda x: torch.lerp(_zeros(x), x, (x > 0).to(x)), relu),
        ("addcmul(zeros, x, (x > 0).to(x))", lambda x: torch.addcmul(_zeros(x), x, (x > 0).to(x)), relu),
        ("einsum(x, (x > 0).to(x))", lambda x: torch.einsum("...,...->...", x, (x > 0).to(x)), relu),
        ("(x + copysign(x, ones))/2", lambda x: (x + torch.copysign(x, torch.ones_like(x))) / 2, relu),
        ("(x + hypot(x, zeros))/2", lambda x: (x + torch.hypot(x, _zeros(x))) / 2, relu),
        ("x*heaviside(x.detach(), 0)", lambda x: x * torch.heaviside(x.detach(), x.new_zeros(())), relu),
        ("x*where(x > 0, 1, 0)", lambda x: x * torch.where(x > 0, 1.0, 0.0).to(x), relu),
        ("x*where(x > 0, 1, 0.1)", lambda x: x * torch.where(x > 0, 1.0, 0.1).to(x), leaky),
        (
            "smelu: where(|x| < 1, (x + 1)**2/4, relu(x))",
            lambda x: torch.where(x.abs() < 1, (x + 1) ** 2 / 4, F.relu(x)),
            smelu,
        ),
    ),
    **_spellings(
        "listed",
        ("y[x < 0] *= 0.1", _scaled, leaky),
        ("y[x > 0] = x[x > 0]", _picked, relu),
        ("zeros.masked_scatter(x > 0, x[x > 0])", lambda x: _zeros(x).masked_scatter(x > 0, x[x > 0]), relu),
        ("stack([x, zeros]).amax(0)", lambda x: torch.stack([x, _zeros(x)]).amax(0), relu),
        ("stack([x, zeros]).max(0)[0]", lambda x: torch.stack([x, _zeros(x)]).max(0)[0], relu),
    ),
    **_spellings("its rectifiers", ("relu(x) - 0.1*relu(-x)", lambda x: F.relu(x) - 0.1 * F.relu(-x), leaky)),
}
# the backward pass of torch's hardsigmoid has 1/6 in float32
SPELLINGS["x*hardsigmoid(x)"] = Spelling(lambda x: x * F.hardsigmoid(x), hardswish, "guided", 1e-7)


# --- Constants per channel ---


def _per_channel(x, low, high):
    return torch.linspace(low, high, x.shape[1], dtype=x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))


def _swish(x):
    return x * torch.sigmoid(_per_channel(x, 0.5, 2) * x)


def _prelu(x):
    slope = _per_channel(x, 0.05, 0.3)
    return torch.where(x > 0, x, slope * x)


def _acon(x):
    # Ma et al. 2021, arXiv:2009.04759, equation 5: (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x
    p, q, beta = _per_channel(x, 0.9, 1.2), _per_channel(x, 0.05, 0.2), _per_channel(x, 0.8, 1.5)
    difference = (p - q) * x
    return difference * torch.sigmoid(beta * difference) + q * x


def _acon_twice(x):
    p, q, beta = _per_channel(x, 0.9, 1.2), _per_channel(x, 0.05, 0.2), _per_channel(x, 0.8, 1.5)
    return (p - q) * x * torch.sigmoid(beta * (p - q) * x) + q * x


PER_CHANNEL = _spellings(
    "guided",
    ("swish with beta", _swish, _swish),
    ("max(x, slope*x)", lambda x: torch.max(x, _per_channel(x, 0.05, 0.3) * x), _prelu),
    (
        "max(x, 0) + slope*min(x, 0)",
        lambda x: torch.max(x, _zeros(x)) + _per_channel(x, 0.05, 0.3) * torch.min(x, _zeros(x)),
        _prelu,
    ),
    ("ACON-C", _acon, _acon),
    ("ACON-C, difference twice", _acon_twice, _acon),
)


# --- What is no rectifier ---


def _laplace(x, mu=0.707107, sigma=0.282095):
    return 0.5 * (1.0 + torch.erf((x - mu).div(sigma * math.sqrt(2.0))))


def _attention(x):
    tokens = x.flatten(2)
    weights = (tokens.transpose(1, 2) @ tokens * 0.1).softmax(-1).mean(-1)
    return weights.view(x.shape[0], 1, *x.shape[2:]) * x


def _drawn(x, seed=1):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))


FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "sigmoid by hand": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": torch.tanh,
    "tanh by hand": lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
    "laplace": _laplace,
    "abs": torch.abs,
    "square": lambda x: x * x,
    "x**2": lambda x: x**2,
    "cube": lambda x: x**3,
    "scale and shift": lambda x: 1.7 * x + 0.3,
    "x + x/2": lambda x: x + 0.5 * x,
    "charbonnier": lambda x: torch.sqrt(x * x + 1e-3),
    "exp": torch.exp,
    "gaussian": lambda x: torch.exp(-x * x),
    "softsign": F.softsign,
    "softsign by hand": lambda x: x / (1 + x.abs()),
    "tanhshrink": lambda x: x - torch.tanh(x),
    "softshrink": lambda x: F.softshrink(x, 0.1),
    "max, then min": lambda x: torch.minimum(torch.maximum(x, -torch.ones_like(x)), torch.ones_like(x)),
    "asinh": torch.asinh,
    "snake": lambda x: x + torch.sin(x) ** 2,
    "signed logarithm": lambda x: torch.sign(x) * torch.log1p(x.abs()),
    "x*tanh(x)": lambda x: x * torch.tanh(x),
    "x + relu(x)": lambda x: x + F.relu(x),
    "x - relu(x)": lambda x: x - F.relu(x),
    "-relu(x)": lambda x: -F.relu(x),
    "layer scale": lambda x: x * _per_channel(x, -1, 1) + 0.1,
    "glu": lambda x: torch.cat([x[:, ::2] * torch.sigmoid(x[:, 1::2])] * 2, 1),
    "swiglu": lambda x: torch.cat([F.silu(x[:, ::2]) * x[:, 1::2]] * 2, 1),
    "geglu": lambda x: torch.cat([F.gelu(x[:, ::2]) * x[:, 1::2]] * 2, 1),
    "squeeze and excitation": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "layer norm by hand": lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True) + 1e-5),
    "rms norm by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6),
    "softmax by hand": lambda x: torch.exp(x) / torch.exp(x).sum(1, keepdim=True),
    "attention": _attention,
    "random mask": lambda x: x * (_drawn(x) > 0.5).to(x),
    "dropout": lambda x: x * ((_drawn(x) > 0.3).to(x) / 0.7),
}


def _elsewhere(x):
    """A value of the graph beside ``x``: a fixed convolution of it."""
    weight = torch.linspace(-1, 1, x.shape[1] ** 2 * 9, dtype=x.dtype).sin().view(x.shape[1], x.shape[1], 3, 3)
    return F.conv2d(x, weight, padding=1)


def _top(x, count, dims):
    flat = x.flatten(*dims)
    return torch.zeros_like(flat).scatter(dims[0], flat.topk(count, dims[0]).indices, 1.0).view_as(x)


def _written(x, mask):
    y = x.clone()
    y[mask] = 0
    return y


MASKS = {
    "random, multiplied": lambda x: x * (_drawn(x) > 0.5),
    "random, where": lambda x: torch.where(_drawn(x) > 0.5, x, 0),
    "random, filled": lambda x: x.masked_fill(_drawn(x) > 0.5, 0),
    "random, assigned": lambda x: _written(x, _drawn(x) > 0.5),
    "random halves": lambda x: torch.where(_drawn(x) > 0.5, x, 0.1 * x),
    "another convolution, multiplied": lambda x: x * (_elsewhere(x) > 0).to(x),
    "another convolution, where": lambda x: torch.where(_elsewhere(x) > 0, x, 0),
    "another convolution, filled": lambda x: x.masked_fill(_elsewhere(x) < 0, 0),
    "another convolution, halves": lambda x: torch.where(_elsewhere(x) > 0, x, 0.1 * x),
    "top places of each channel": lambda x: x * _top(x, 5, (2, 3)),
    "winning channels": lambda x: x * _top(x, 2, (1, 1)),
    "|x| > 0.3": lambda x: x * (x.abs() > 0.3),
    "|x| > 0.3, where": lambda x: torch.where(x.abs() > 0.3, x, 0),
    "x > 0.3": lambda x: x * (x > 0.3).to(x),
    "x > 0.3, where": lambda x: torch.where(x > 0.3, x, 0),
    "random signs": lambda x: x * torch.where(_drawn(x) > 0.5, 1.0, -1.0).to(x),
    "signs of another convolution": lambda x: torch.where(_elsewhere(x) > 0, x, -x),
}
