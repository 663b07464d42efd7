"""One image alone has the map that it has in a batch: torch's kernels read an axis of one entry in ways of their own."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import relume
from relume.engine.graph import gradients
from relume.engine.reading import Reading
from relume.engine.trace import Trace
from relume.models.libraries import import_library
from tests.reference import twin

METHODS = ["gradient", "deconvnet", "guided_backprop"]


def relative_error(got, expected):
    return float((got - expected).norm() / expected.norm().clamp(min=1e-300))


def assert_alone_as_in_a_batch(model, image, methods=METHODS, layer=None):
    alone = relume.explain(model, image, 1, methods, layer)
    pair = relume.explain(model, torch.cat([image, image]), 1, methods, layer)
    for method in methods:
        assert relative_error(alone[method][0], pair[method][0]) < 1e-9, method
        assert relative_error(pair[method][1], pair[method][0]) < 1e-9, method


class Tokens(nn.Module):
    """A BatchNorm whose map becomes tokens: its gradient arrives with the channels last."""

    def __init__(self, norm=None):
        super().__init__()
        self.conv, self.norm, self.mix, self.head = (
            nn.Conv2d(3, 4, 3),
            norm or nn.BatchNorm2d(4),
            nn.Linear(4, 4),
            nn.Linear(4, 3),
        )
        for name, buffer in self.norm.named_buffers():
            if name in ("running_mean", "running_var"):
                nn.init.uniform_(buffer, 0.5, 2)

    def tokens(self, x):
        return x.flatten(2).transpose(1, 2)

    def forward(self, x):
        return self.head(F.relu(self.mix(self.tokens(self.norm(self.conv(x))))).cumsum(1).mean(1))


class TokensFirst(Tokens):
    """Tokens before images, as in torch's own transformers: on the way back an image's stride is that of one token."""

    def forward(self, x):
        return self.head(F.relu(self.mix(self.norm(self.conv(x)).flatten(2).permute(2, 0, 1))).cumsum(0).mean(0))


class Checkpointed(Tokens):
    def tokens(self, x):
        return checkpoint(lambda y: self.norm(y * 2).flatten(2).transpose(1, 2), x, use_reentrant=False)


@pytest.mark.parametrize("method", [*METHODS, "gradcam", "guided_gradcam"])
@pytest.mark.parametrize("kind", [Tokens, TokensFirst, Checkpointed])
def test_a_batchnorm_before_tokens(kind, method):
    net = kind().double().eval()
    image = torch.randn(1, 3, 9, 8, dtype=torch.float64)
    assert_alone_as_in_a_batch(net, image, [method], "conv" if "cam" in method else None)
    rule = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}.get(method)
    if rule is not None:  # the twin runs torch's kernels too, and is right for a pair alone
        expected, _, _ = twin.attribution(net, torch.cat([image, image]), [2, 2], rule)
        assert relative_error(relume.explain(net, image, 2, [method])[method], expected[:1]) < 1e-12


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("kind", [Tokens, TokensFirst])
def test_an_instance_norm_before_tokens(kind, images):
    """It puts all channels of all images into one: several images are one to it as well."""
    net = kind(nn.InstanceNorm2d(4, affine=True)).double().eval()
    x = torch.randn(images, 3, 9, 8, dtype=torch.float64)
    e = relume.explain(net, x, 1, METHODS)

    def written_out(_norm, y):
        z = (y - y.mean((2, 3), keepdim=True)) / (y.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        return z * net.norm.weight[:, None, None] + net.norm.bias[:, None, None]

    plain = kind(type("Written", (nn.Module,), {"forward": written_out})())
    plain.conv, plain.mix, plain.head = net.conv, net.mix, net.head
    for method, rule in (("gradient", twin.gradient), ("deconvnet", twin.deconvnet), ("guided_backprop", twin.guided)):
        expected, _, _ = twin.attribution(plain, x, [1] * images, rule)
        assert relative_error(e[method], expected) < 1e-11, method


def test_a_prepared_network_is_compared_with_the_right_gradient():
    """The example decides whether the prepared form may be used; folded, there is no BatchNorm to go wrong."""
    net = Tokens().double().eval()
    image = torch.randn(1, 3, 9, 8, dtype=torch.float64)
    made = relume.prepare(net, image)
    assert made.preparation.agreement > 0.999999
    expected = relume.explain(net, torch.cat([image, image]), 1, ["guided_backprop"])["guided_backprop"][:1]
    assert relative_error(relume.explain(made, image, 1, ["guided_backprop"])["guided_backprop"], expected) < 1e-9


def test_the_trace_of_several_layers():
    net = Tokens().double().eval()
    image = torch.randn(1, 3, 9, 8, dtype=torch.float64)
    found = []
    for images in (image, torch.cat([image, image])):
        trace = Trace.run(net, images, Reading(layers=["conv", "norm"]))
        found.append([g[:1] for g in trace.grad(trace.score(1), [layer.output for layer in trace.layers])])
    for alone, paired in zip(*found, strict=True):
        assert relative_error(alone, paired) < 1e-12


def layouts(values):
    """``values`` in every order of its axes in memory, and with every stride that an axis of one entry may have."""
    for order in itertools.permutations(range(values.ndim)):
        laid = values.permute(order).contiguous().permute([order.index(i) for i in range(values.ndim)])
        yield laid
        for stride in (1, 3):
            strides = [stride if n == 1 else s for n, s in zip(laid.shape, laid.stride(), strict=True)]
            yield laid.as_strided(laid.shape, strides)


C = 3
STATISTICS = torch.tensor([0.3, -0.2, 1.0]).double(), torch.tensor([0.5, 1.5, 2.0]).double()
AFFINE = torch.tensor([0.7, -1.2, 2.0]).double(), torch.tensor([0.1, 0.2, 0.3]).double()
SPELLINGS = {
    "batch_norm": lambda x: F.batch_norm(x, *STATISTICS, *AFFINE),
    "native": lambda x: torch.native_batch_norm(x, *AFFINE, *STATISTICS, False, 0.1, 1e-5)[0],
    "legit": lambda x: torch.ops.aten._native_batch_norm_legit(x, *AFFINE, *STATISTICS, False, 0.1, 1e-5)[0],
    "exported": lambda x: torch.ops.aten._native_batch_norm_legit_no_training(x, *AFFINE, *STATISTICS, 0.1, 1e-5)[0],
    "no update": lambda x: torch.ops.aten._batch_norm_no_update(x, *AFFINE, *STATISTICS, 0.1, 1e-5)[0],
}


@pytest.mark.parametrize("share", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(1, C, 4, 5), (2, C, 1, 5), (1, C, 1, 5), (1, C, 4), (1, C, 2, 3, 2)])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_layouts_of_input_and_gradient(spelling, shape, share):
    """Every seventh pair, so that each layout meets several others; of five axes, which have 129,600 pairs, fewer."""
    values, arriving = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    factor = AFFINE[0] / (STATISTICS[1] + 1e-5).sqrt()
    expected = arriving * factor.view(1, C, *[1] * (len(shape) - 2))
    pairs = itertools.product(layouts(values), layouts(arriving))
    for given, gradient in itertools.islice(pairs, 0, None, share if len(shape) < 5 else 121 * share):
        x = given.detach().requires_grad_()
        y = SPELLINGS[spelling](x)
        hook = y.register_hook(lambda _, gradient=gradient: gradient)
        (got,) = gradients(y.sum(), [x])
        hook.remove()
        assert relative_error(got, expected) < 1e-12, (given.stride(), gradient.stride())


NETWORKS = {"levit_128s": 224, "efficientformer_l1": 224, "xcit_nano_12_p16_224": 64, "nextvit_small": 64}
LARGE = ("efficientformer_l1", "nextvit_small")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in NETWORKS])
def test_networks_of_timm(name):
    torch.manual_seed(0)
    model = import_library("timm").create_model(name, num_classes=5).double().eval()
    for parameter in model.parameters():  # LayerScale begins at nothing, and hides what is inside
        if parameter.ndim == 1 and float(parameter.detach().abs().max()) < 0.1:
            nn.init.normal_(parameter, 0.5, 0.2)
    assert_alone_as_in_a_batch(model, torch.randn(1, 3, NETWORKS[name], NETWORKS[name], dtype=torch.float64))
