"""The slow twin: any network rewritten, as it runs, with an explicit rectifier Function for every rectifier.

Nothing here knows of the engine. Formulas and derivatives are written from the definitions in plain arithmetic; every
rectifier call of the network, in whatever spelling, is intercepted and exchanged for a Function that applies the rule in
its backward pass. Run it in float64.
"""

import math
from collections import Counter

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def _normal_density(x):
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _normal_distribution(x):
    return (1 + torch.erf(x / math.sqrt(2))) / 2


def _tanh_gelu(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))


def _tanh_gelu_slope(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + torch.tanh(inner)) + 0.5 * x * (1 - torch.tanh(inner) ** 2) * slope


def _sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def _mish_slope(x):
    t = torch.tanh(torch.log1p(torch.exp(x)))
    return t + x * (1 - t * t) * _sigmoid(x)


def _piecewise(condition, yes, no):
    return torch.where(condition, yes, no)


def formula(name, **p):
    """``f`` and ``f'`` of a rectifier, from its definition."""
    one, zero = torch.ones_like, torch.zeros_like
    low, high = p.get("low", 0), p.get("high", math.inf)
    slope, alpha, scale = p.get("slope", 0.01), p.get("alpha", 1.0), p.get("scale", 1.0)
    match name:
        case "relu":
            return lambda x: x.clamp(min=0), lambda x: (x > 0).to(x)
        case "clamp":  # open at the bounds where only the local derivative, not the rule, could tell
            return lambda x: x.clamp(low, high), lambda x: ((x > low) & (x <= high)).to(x)
        case "hardtanh":
            return lambda x: x.clamp(low, high), lambda x: ((x > low) & (x < high)).to(x)
        case "leaky":
            return lambda x: _piecewise(x > 0, x, slope * x), lambda x: _piecewise(x > 0, one(x), one(x) * slope)
        case "elu":
            return (
                lambda x: scale * _piecewise(x > 0, x, alpha * (torch.exp(x) - 1)),
                lambda x: scale * _piecewise(x > 0, one(x), alpha * torch.exp(x)),
            )
        case "celu":
            return (
                lambda x: _piecewise(x > 0, x, alpha * (torch.exp(x / alpha) - 1)),
                lambda x: _piecewise(x > 0, one(x), torch.exp(x / alpha)),
            )
        case "gelu":
            return lambda x: x * _normal_distribution(x), lambda x: _normal_distribution(x) + x * _normal_density(x)
        case "gelu_tanh":
            return _tanh_gelu, _tanh_gelu_slope
        case "silu":
            return lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x)))
        case "mish":
            return lambda x: x * torch.tanh(torch.log1p(torch.exp(x))), _mish_slope
        case "hardswish":
            return (
                lambda x: x * (x + 3).clamp(0, 6) / 6,
                lambda x: _piecewise(x <= -3, zero(x), _piecewise(x >= 3, one(x), (2 * x + 3) / 6)),
            )
        case "softplus":
            return lambda x: torch.log1p(torch.exp(x)), _sigmoid
    raise AssertionError(name)


def gradient(g, slope, active):
    return g * slope


def deconvnet(g, slope, active):
    return g * (g > 0)


def guided(g, slope, active):
    return g * (g > 0) * slope * active


class Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, f, slope, rule):
        y = f(x)
        ctx.save_for_backward(slope(x), (y > 0).to(x))
        ctx.rule = rule
        return y

    @staticmethod
    def backward(ctx, g):
        return ctx.rule(g, *ctx.saved_tensors), None, None, None


# --- Recognising a rectifier by the call that was made ---


def _call(name, *, overwrites=False, **fixed):
    """A reader of one spelling: from a call's arguments to x, the formula, its parameters, and whether x is overwritten."""

    def read(x, inplace=False, **given):
        return x, name, fixed | given, overwrites or inplace

    return read


def _clamp(x, min=None, max=None, overwrites=False):
    low = None if min is None else float(min)
    return (x, "clamp", {"high": math.inf if max is None else float(max)}, overwrites) if low == 0 else None


def _clamp_(x, min=None, max=None):
    return _clamp(x, min, max, overwrites=True)


def _hardtanh(x, min_val=-1.0, max_val=1.0, inplace=False):
    return x, "hardtanh", {"low": min_val, "high": max_val}, inplace


def _threshold(x, threshold, value, inplace=False):
    return (x, "relu", {}, inplace) if threshold == value == 0 else None


def _maximum(a, b):
    for x, other in ((a, b), (b, a)):
        if isinstance(other, torch.Tensor) and not other.requires_grad and bool((other == 0).all()):
            return x, "relu", {}, False
    return None


def _leaky(x, negative_slope=0.01, inplace=False):
    return x, "leaky", {"slope": negative_slope}, inplace


def _prelu(x, weight):
    return x, "leaky", {"slope": weight.reshape(1, -1, *[1] * (x.ndim - 2))}, False


def _rrelu(x, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    return x, "leaky", {"slope": (lower + upper) / 2}, inplace


def _elu(x, alpha=1.0, inplace=False):
    return x, "elu", {"alpha": alpha}, inplace


def _celu(x, alpha=1.0, inplace=False):
    return x, "celu", {"alpha": alpha}, inplace


def _gelu(x, approximate="none"):
    return x, "gelu" if approximate == "none" else "gelu_tanh", {}, False


_SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805}
_RELU6 = {"low": 0, "high": 6}

SPELLINGS = {
    **dict.fromkeys([F.relu, torch.relu, torch.Tensor.relu], _call("relu")),
    **dict.fromkeys([F.relu_, torch.relu_, torch.Tensor.relu_], _call("relu", overwrites=True)),
    F.relu6: _call("hardtanh", **_RELU6),
    F.hardtanh: _hardtanh,
    **dict.fromkeys(
        [torch.clamp, torch.Tensor.clamp, torch.clip, torch.Tensor.clip, torch.clamp_min, torch.Tensor.clamp_min],
        _clamp,
    ),
    **dict.fromkeys([torch.clamp_, torch.Tensor.clamp_, torch.Tensor.clamp_min_], _clamp_),
    F.threshold: _threshold,
    **dict.fromkeys([torch.maximum, torch.Tensor.maximum, torch.fmax], _maximum),
    F.leaky_relu: _leaky,
    F.prelu: _prelu,
    F.rrelu: _rrelu,
    F.elu: _elu,
    F.selu: _call("elu", **_SELU),
    F.celu: _celu,
    F.gelu: _gelu,
    F.silu: _call("silu"),
    F.mish: _call("mish"),
    F.hardswish: _call("hardswish"),
    F.softplus: _call("softplus"),
}


class Twin(TorchFunctionMode):
    """Run a network inside, and every rectifier in it is the explicit Function; ``calls`` counts them by formula."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        self.calls = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        read = SPELLINGS.get(func)
        records = any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)
        found = read(*args, **(kwargs or {})) if read and records else None
        if found is None:
            return func(*args, **(kwargs or {}))
        x, name, parameters, overwrites = found
        self.calls[name] += 1
        f, slope = formula(name, **parameters)
        if overwrites:
            return x.copy_(Rectifier.apply(x.clone(), f, slope, self.rule))
        return Rectifier.apply(x, f, slope, self.rule)


def attribution(network, x, target, rule, *, pick=lambda out: out):
    """The twin's map and its class scores: gradient of ``Σ_n score_n`` with respect to ``x``, every rectifier by ``rule``."""
    leaf = x.detach().clone().requires_grad_()
    with Twin(rule) as twin:
        scores = pick(network(leaf.clone()))
    score = scores[torch.arange(len(x)), torch.as_tensor(target)].sum()
    (grad,) = torch.autograd.grad(score, leaf)
    return grad, scores.detach(), twin.calls


def grad_cam(activation, gradient_at_layer):
    """``ReLU(Σ_k α_k A_k)`` in loops, for one or several samples of two-dimensional maps."""
    heat = torch.zeros_like(activation[:, 0])
    for n in range(activation.shape[0]):
        for k in range(activation.shape[1]):
            alpha = gradient_at_layer[n, k].sum() / gradient_at_layer[n, k].numel()
            heat[n] += alpha * activation[n, k]
    return heat * (heat > 0)


def _positive_sum(activation, weights):
    """``ReLU(Σ_k w_k ⊙ A_k)`` in loops; ``weights(A_k, n, k)`` gives the weight or the weights of a channel."""
    heat = torch.zeros_like(activation[:, 0])
    for n in range(activation.shape[0]):
        for k in range(activation.shape[1]):
            heat[n] += weights(activation[n, k], n, k) * activation[n, k]
    return heat * (heat > 0)


def hires_cam(activation, gradient_at_layer):
    """Draelos & Carin 2020: the gradient is not averaged over a channel's places."""
    return _positive_sum(activation, lambda _, n, k: gradient_at_layer[n, k])


def layer_cam(activation, gradient_at_layer):
    """Jiang et al. 2021: each place by its own gradient, if that is positive."""
    return _positive_sum(activation, lambda _, n, k: gradient_at_layer[n, k] * (gradient_at_layer[n, k] > 0))


def grad_cam_plusplus(activation, gradient_at_layer):
    """Chattopadhyay et al. 2018, equations 15 and 19 with their powers, place by place."""

    def weight(values, n, k):
        total, channel = float(values.sum()), 0.0
        for g in gradient_at_layer[n, k].flatten().tolist():
            divisor = 2 * g**2 + total * g**3
            channel += g**2 / divisor * max(g, 0) if divisor > 0 else 0
        return channel

    return _positive_sum(activation, weight)


def xgrad_cam(activation, gradient_at_layer):
    """Fu et al. 2020, equation 8: the gradient's mean weighted by the share of the activation."""

    def weight(values, n, k):
        total, places = (
            float(values.sum()),
            zip(values.flatten().tolist(), gradient_at_layer[n, k].flatten().tolist(), strict=True),
        )
        return sum(a / total * g for a, g in places) if total else 0  # a channel of zeros has no share

    return _positive_sum(activation, weight)


def linear(heat, size):
    """Linear upsampling with half-pixel centres, axis by axis and place by place: ``(*coarse)`` to ``size``."""
    for axis, length in enumerate(size):
        before, places = heat.shape[axis], []
        for i in range(length):
            y = min(max((i + 0.5) * before / length - 0.5, 0), before - 1)
            low, high, u = int(y), min(int(y) + 1, before - 1), y - int(y)
            places.append((1 - u) * heat.select(axis, low) + u * heat.select(axis, high))
        heat = torch.stack(places, axis)
    return heat


def guided_gradcam(guided_map, heat):
    """Guided gradient times upsampled Grad-CAM, sample by sample and channel by channel."""
    out = torch.zeros_like(guided_map)
    for n in range(guided_map.shape[0]):
        fine = linear(heat[n], guided_map.shape[2:])
        for c in range(guided_map.shape[1]):
            out[n, c] = guided_map[n, c] * fine
    return out


def at_layer(net, layer, x, target):
    """Activation and plain gradient of a layer, by plain autograd on a copy of the layer's output."""
    kept = []
    handle = layer.register_forward_hook(lambda _m, _a, out: kept.append(out) or out.clone())
    try:
        score = net(x.clone().requires_grad_())[torch.arange(len(x)), torch.as_tensor(target)].sum()
        (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        handle.remove()
    return kept[0].detach(), gradient


def slow_grad_cam(net, layer, x, target, formula=grad_cam):
    """The layer's activation and gradient, then the loops of the twin."""
    return formula(*at_layer(net, layer, x, target))


CAMS = {
    "gradcam": grad_cam,
    "hirescam": hires_cam,
    "layercam": layer_cam,
    "gradcam_plusplus": grad_cam_plusplus,
    "xgradcam": xgrad_cam,
}


def every_map(net, layer, x, target, arranged=lambda values: values):
    """The maps of a batch by every method, without the engine; ``arranged`` makes a map of what the layer returned."""
    maps = {
        name: attribution(net, x, target, rule)[0]
        for name, rule in (("gradient", gradient), ("deconvnet", deconvnet), ("guided_backprop", guided))
    }
    maps["gradient_x_input"] = maps["gradient"] * x
    activation, gradient_there = map(arranged, at_layer(net, layer, x, target))
    for name, formula in CAMS.items():
        maps[name] = formula(activation, gradient_there)
        maps[f"guided_{name}"] = guided_gradcam(maps["guided_backprop"], maps[name])
    return maps


def by_twin(net, method, target, layer="body"):
    """What makes the maps of a batch by one method, without the engine."""
    return lambda images: every_map(net, net.get_submodule(layer), images, target)[method]
