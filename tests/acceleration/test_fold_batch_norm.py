"""Prepared networks: what is folded and what is not, the same maps, and what happens when the original changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import relume
from relume import errors
from relume.engine.preparation import preparation_of
from relume.models.libraries import import_torchvision
from tests.helpers.networks import Small, assert_unchanged, snapshot

ALL = list(relume.METHODS)


def unlike(norm):
    """Statistics and weights that a wrong fold would show with."""
    for values, low, high in (
        (norm.running_mean, -0.5, 0.5),
        (norm.running_var, 0.5, 2),
        (norm.weight, 0.5, 2),
        (norm.bias, -0.5, 0.5),
    ):
        if values is not None:
            nn.init.uniform_(values, low, high)
    return norm


class Net(nn.Module):
    """A convolution, ``way``, ReLU, pooling, a classifier; ``way`` takes the network, what the convolution made, and images."""

    def __init__(self, way=None, conv=None, bn=None, shape=None):
        super().__init__()
        self.conv, self.bn = conv or nn.Conv2d(3, 4, 3, padding=1), unlike(bn or nn.BatchNorm2d(4))
        self.other, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)
        self.way, self.shape = way or (lambda net, y, _: net.bn(y)), shape or (lambda x: x)

    def forward(self, x):
        x = self.shape(x)
        return self.head(F.relu(self.way(self, self.conv(x), x)).flatten(2).mean(2))


def images(*shape, dtype=torch.float64):
    return torch.randn(shape or (2, 3, 8, 8), dtype=dtype)


def assert_alike(plain, prepared, x, tolerance=1e-9, methods=ALL, layer="bn", target=1):
    """The same maps, scores, coverage and layer, to ``tolerance`` times the largest value."""
    a, b = (relume.explain(net, x, target, methods, layer) for net in (plain, prepared))
    for method in methods:
        assert (b[method].shape, b[method].dtype) == (a[method].shape, a[method].dtype)
        assert b[method].is_contiguous()
        assert (b[method] - a[method]).abs().max() <= tolerance * a[method].abs().max(), method
    assert (b.scores - a.scores).abs().max() <= tolerance * a.scores.abs().max()
    assert str(b.coverage) == str(a.coverage)
    assert b.layer == a.layer
    return a


# --- What may be folded ----------------------------------------------------------------------------------------------------

FOLDED = {
    "plain": Net,
    "without a bias": lambda: Net(conv=nn.Conv2d(3, 4, 3, bias=False)),
    "not affine": lambda: Net(bn=nn.BatchNorm2d(4, affine=False)),
    "another eps": lambda: Net(bn=nn.BatchNorm2d(4, eps=0.1)),
    "groups": lambda: Net(conv=nn.Conv2d(3, 6, 3, groups=3), bn=nn.BatchNorm2d(6), way=lambda n, y, _: n.bn(y)[:, :4]),
    "circular padding": lambda: Net(conv=nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
    "same padding": lambda: Net(conv=nn.Conv2d(3, 4, 2, padding="same")),
    "one dimension": lambda: Net(None, nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), lambda x: x.flatten(2)),
    "three dimensions": lambda: Net(None, nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), lambda x: x[..., None]),
    "SyncBatchNorm": lambda: Net(bn=nn.SyncBatchNorm(4)),
    "normalised further": lambda: Net(bn=Further(4)),
    "memory that others had": lambda: Net(
        conv=nn.Conv2d(4, 4, 3, padding=1), shape=lambda x: torch.cat([x, x[:, :1]], 1) * 1 * 1 * 1
    ),
    "its shape is asked for": lambda: Net(lambda n, y, _: n.bn(y) * y.shape[0]),
    "overwritten afterwards": lambda: Net(lambda n, y, _: F.relu_(n.bn(y))),
    "a hook on what BatchNorm makes": lambda: hooked(Net(), lambda n: n.bn.register_forward_hook(lambda _m, _a, out: out * 2)),
    "a hook on what the convolution takes": lambda: hooked(
        Net(), lambda n: n.conv.register_forward_pre_hook(lambda _m, args: (args[0] * 2,))
    ),
}


class Further(nn.BatchNorm2d):
    """Normalises what it has normalised by other statistics."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("mean", torch.linspace(-1, 1, channels))
        self.register_buffer("var", torch.linspace(1, 3, channels))

    def forward(self, x):
        return F.batch_norm(super().forward(x), self.mean, self.var)


def hooked(net, register):
    register(net)
    return net


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    net, x = FOLDED[name]().double().eval(), images()
    prepared = relume.prepare(net, x[:1])
    assert (prepared.preparation.folded, prepared.preparation.kept) == ({"bn": "conv"}, {})
    assert_alike(net, prepared, x, methods=ALL[:3] if "dimension" in name else ALL)  # another number of axes is no map


def test_batch_norm_with_an_activation_of_its_own():
    import_torchvision()
    from timm.layers import BatchNormAct2d

    net, x = Net(bn=BatchNormAct2d(4)).double().eval(), images()
    prepared = relume.prepare(net, x)
    assert prepared.preparation.folded == {"bn": "conv"}
    assert prepared.bn(prepared.conv(x)).min() == 0  # the activation still runs
    assert_alike(net, prepared, x)


# --- What must not be ------------------------------------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class Louder(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).mul_(torch.linspace(1, 3, 4, dtype=x.dtype).view(1, 4, 1, 1))


class Scaling(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x * torch.linspace(1, 3, 4, dtype=x.dtype).view(1, 4, 1, 1))


class Doubled(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(super().forward(x))


def also(use):
    """The convolution's output is used by ``use`` too, before the BatchNorm."""
    return lambda net, y, _: use(y) + net.bn(y)


TAKEN = "something else takes what its convolution made"
NONE = "does not take what a convolution made"
WEIGHTS = "something else takes its weights, or its convolution's"
COMPUTED = "the weight of its convolution is computed"

KEPT = {
    "used too": (Net(also(lambda y: y)), TAKEN),
    "used after": (Net(lambda n, y, _: n.bn(y) + y), TAKEN),
    "used detached": (Net(also(lambda y: y.detach())), TAKEN),
    "used as data": (Net(also(lambda y: y.data * 1)), TAKEN),
    "used by a view": (Net(also(lambda y: y[:, :1])), TAKEN),
    "used for a number": (Net(also(lambda y: y.sum().item())), TAKEN),
    "written to": (Net(lambda n, y, _: n.bn(y.mul_(2))), TAKEN),
    "written to by its own class": (Net(conv=Louder(3, 4, 3)), TAKEN),
    "a hook writes to it": (
        hooked(Net(), lambda n: n.conv.register_forward_hook(lambda _m, _a, y: (y.mul_(2), None)[1])),
        TAKEN,
    ),
    "a hook exchanges it": (hooked(Net(), lambda n: n.conv.register_forward_hook(lambda _m, _a, y: y * 2)), NONE),
    "a hook exchanges what BatchNorm takes": (
        hooked(Net(), lambda n: n.bn.register_forward_pre_hook(lambda _m, a: (a[0] * 2,))),
        NONE,
    ),
    "a hook on BatchNorm uses it": (hooked(Net(), lambda n: n.bn.register_forward_hook(lambda _m, a, y: y + a[0])), TAKEN),
    "a hook on its gradient": (Net(lambda n, y, _: (y.register_hook(lambda g: g * 2), n.bn(y))[1]), TAKEN),
    "as data": (Net(lambda n, y, x: n.bn(y.data) + x.mean()), NONE),
    "a sum": (Net(lambda n, y, x: n.bn(y + n.other(x)), nn.Conv2d(3, 4, 1)), NONE),
    "another order": (Net(lambda n, _, x: n.other(n.bn(x)), bn=nn.BatchNorm2d(3)), NONE),
    "a functional convolution": (Net(lambda n, _, x: n.bn(F.conv2d(x, n.conv.weight, n.conv.bias))), NONE),
    "convolution twice": (Net(lambda n, y, x: n.bn(y) + n.conv(x * 2)), "its convolution ran 2 times"),
    "BatchNorm twice": (Net(lambda n, y, x: n.bn(y) + n.bn(n.other(x))), "ran 2 times"),
    "never": (Net(lambda _n, y, _: y), "did not run"),
    "by the batch": (Net(bn=nn.BatchNorm2d(4, track_running_stats=False)), "normalises by the batch"),
    "made to train": (Net(lambda n, y, _: (n.bn.train(), n.bn(y))[1]), "normalises by the batch"),
    "weight norm": (Net(conv=parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), COMPUTED),
    "standardised": (Net(conv=Standardised(3, 4, 3)), COMPUTED),
    "scaled inside": (Net(bn=Scaling(4)), "does not normalise just what it takes"),
    "normalised twice inside": (Net(bn=Doubled(4)), WEIGHTS),
    "weight used": (Net(lambda n, y, _: n.bn(y) * n.conv.weight.mean()), WEIGHTS),
    "statistics used": (Net(lambda n, y, _: n.bn(y) + n.bn.running_mean.mean()), WEIGHTS),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name):
    net, reason = KEPT[name]
    net, x = net.double().eval(), images()
    prepared = relume.prepare(net, x)
    assert (prepared.preparation.folded, prepared.preparation.kept) == ({}, {"bn": reason})
    expected, got = (relume.explain(n, x, 1, ALL[:3], evidence=None) for n in (net, prepared))
    for method in ALL[:3]:
        torch.testing.assert_close(got[method], expected[method], rtol=1e-9, atol=1e-15)


def test_what_is_returned_is_taken():
    class Both(Net):
        def forward(self, x):
            y = self.conv(x)
            return {"logits": self.head(F.relu(self.bn(y)).mean((2, 3))), "aux": y}

    prepared = relume.prepare(Both().eval(), images(dtype=torch.float32))
    assert prepared.preparation.kept == {"bn": TAKEN}


@pytest.mark.parametrize("which", ["conv", "bn"])
def test_a_forward_that_was_exchanged_on_the_module(which):
    net, x = Net().double().eval(), images()
    module = getattr(net, which)
    plain = type(module).forward
    module.forward = lambda x: plain(module, x) * 2
    prepared = relume.prepare(net, x)
    assert prepared.preparation.kept == {"bn": "its forward, or that of its convolution, was exchanged"}
    assert_alike(net, prepared, x)


def test_tied_weights_are_kept():
    net, x = Net(lambda n, y, x: n.bn(y) + n.other(x), conv=nn.Conv2d(3, 4, 1)).double().eval(), images()
    net.other.weight = net.conv.weight
    prepared = relume.prepare(net, x)
    assert prepared.preparation.kept == {"bn": WEIGHTS}
    assert_alike(net, prepared, x)


def test_standardised_convolutions_of_timm():
    import_torchvision()
    from timm.layers import StdConv2d

    net, x = Net(conv=StdConv2d(3, 4, 3)).double().eval(), images()
    assert relume.prepare(net, x).preparation.kept == {"bn": COMPUTED}


WAYS = {
    "without its BatchNorm": lambda _, y: y,
    "beside it": lambda n, y: n.bn(y) + y,
    "before it": lambda n, y: y.mean() + n.bn(y),
    "BatchNorm twice": lambda n, y: n.bn(y) + n.bn(y),
    "BatchNorm of something else": lambda n, y: n.bn(n.other(torch.ones(2, 3, 8, 8, dtype=torch.float64))),
    "written to": lambda n, y: n.bn(y.relu_()),
}


@pytest.mark.parametrize("name", WAYS)
def test_another_way_through_the_network_is_an_error(name):
    net = Net(lambda n, y, x: WAYS[name](n, y) if x.mean() > 1 else n.bn(y)).double().eval()
    x = images()
    prepared = relume.prepare(net, x)
    assert_alike(net, prepared, x, methods=ALL[:3])
    with pytest.raises(errors.GraphError, match="takes another way through the network"):
        relume.explain(prepared, x + 5, 1, ["gradient"])
    if name != "BatchNorm of something else":  # that of a constant
        assert_alike(net, relume.prepare(net, x, fold=False), x + 5, methods=ALL[:3])


def test_the_other_way_taken_on_the_example_is_kept():
    net = Net(lambda n, y, x: y if x.mean() > 1 else n.bn(y)).double().eval()
    prepared = relume.prepare(net, images() + 5)
    assert prepared.preparation.kept == {"bn": "did not run"}
    assert_alike(net, prepared, images())


# --- What anybody reads of what was folded ------------------------------------------------------------------------------------

READ = {
    "the weight, in another convolution": lambda n, y, x: (
        F.relu(n.bn(y)) + F.conv2d(x * 2, n.conv.weight, n.conv.bias, padding=1)
    ),
    "the weight, by the convolution's own way": lambda n, y, x: n.bn(y) + n.conv._conv_forward(x * 2, n.conv.weight, None),
    "the weight's size": lambda n, y, _: n.bn(y) * n.conv.weight.abs().mean(),
    "the convolution's bias": lambda n, y, _: n.bn(y) + n.conv.bias[:, None, None],
    "whether there is a bias": lambda n, y, _: n.bn(y) * (2 if n.bn.bias is not None else 3),
    "whether the convolution has one": lambda n, y, _: n.bn(y) * (2 if n.conv.bias is not None else 3),
    "the BatchNorm's weight": lambda n, y, _: n.bn(y) * n.bn.weight.mean(),
    "the statistics": lambda n, y, _: n.bn(y) + n.bn.running_mean.mean() / n.bn.running_var.sum(),
    "the statistics, by a BatchNorm": lambda n, y, x: n.bn(y) + F.batch_norm(n.other(x), n.bn.running_mean, n.bn.running_var),
    "how many batches there were": lambda n, y, _: n.bn(y) * (n.bn.num_batches_tracked + 2),
    "all of them": lambda n, y, _: n.bn(y) * sum(p.sum() for p in n.state_dict().values()),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("bias", [True, False])
def test_another_branch_reads_the_network_s_own_weights(name, bias):
    if not bias and name == "the convolution's bias":
        return
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
    net = Net(lambda n, y, x: READ[name](n, y, x) if x.mean() > 1 else n.bn(y), conv).double().eval()
    x = images()
    prepared = relume.prepare(net, x)
    assert prepared.preparation.folded == {"bn": "conv"}
    for each in (x, x + 5):
        assert_alike(net, prepared, each, methods=ALL[:3])
    assert_alike(net, copy.deepcopy(prepared), x + 5, methods=ALL[:3])


def test_it_has_the_parameters_and_buffers_of_the_network():
    net = Small().eval()
    prepared = relume.prepare(net, images(dtype=torch.float32))
    theirs, ours = net.state_dict(), prepared.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


class Same(nn.Conv2d):
    """Pads as TensorFlow does, and convolves by itself."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, groups=self.groups)


class Padded(nn.Conv2d):
    """Pads, and leaves the rest to its class; in another branch its weight is used once more."""

    def forward(self, x):
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return super().forward(x * self.weight.mean() if x.mean() > 1 else x)


class Inner(nn.Conv2d):
    """Convolves in its own way by the weight that it finds, not by the one that it is given."""

    def _conv_forward(self, x, weight, bias):
        return F.conv2d(weight=self.weight, bias=bias, input=x, padding=1)


@pytest.mark.parametrize("kind", [Same, Padded, Inner])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_convolutions_with_a_way_of_their_own_are_folded(kind, dtype):
    net, x = Net(conv=kind(3, 4, 3)).to(dtype).eval(), images(dtype=dtype)
    prepared = relume.prepare(net, x)
    assert prepared.preparation.folded == {"bn": "conv"}
    runs_packed = kind is Padded and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    assert prepared.preparation.packed == (("conv",) if runs_packed else ())  # the others call F.conv2d themselves
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for each in (x, x + 5):
        assert_alike(net, prepared, each, tolerance, methods=ALL[:3])


def test_one_that_takes_another_way_inside_is_an_error():
    class Sometimes(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) if x.mean() < 1 else F.conv2d(x, self.weight * 2, self.bias)

    net, x = Net(conv=Sometimes(3, 4, 3)).double().eval(), images()
    prepared = relume.prepare(net, x)
    with pytest.raises(errors.GraphError, match="does not convolve by its weight, so this input takes another way"):
        relume.explain(prepared, x + 5, 1, ["gradient"])


# Modules with a forward of their own: the module, its class's forward, and the images.
INSIDE_CONVOLUTIONS = {
    "what it makes is padded": lambda _, forward, x: F.pad(forward(x), (0, 1, 0, 1)),
    "what it makes is doubled": lambda _, forward, x: forward(x) * 2,
    "what it makes is doubled in place": lambda _, forward, x: forward(x).mul_(2),
    "it convolves twice": lambda _, forward, x: forward(x) + forward(x.flip(-1)),
    "the second is returned": lambda _, forward, x: (forward(x), forward(x * 2))[1],
    "it does not convolve": lambda _, forward, x: x[:, [0, 1, 2, 0]],
    "by the weight transposed": lambda conv, _, x: F.conv2d(x, conv.weight.transpose(2, 3), conv.bias),
    "without its bias": lambda conv, _, x: F.conv2d(x, conv.weight, None),
    "by another bias": lambda conv, _, x: F.conv2d(x, conv.weight, conv.bias * 2),
    "by a part of the weight": lambda conv, _, x: F.conv2d(x, conv.weight[:2], conv.bias[:2]).repeat(1, 2, 1, 1),
}
INSIDE_NORMS = {
    "what it takes is doubled": lambda _, forward, x: forward(x * 2),
    "it does nothing": lambda _, forward, x: x,
    "what it takes is returned": lambda _, forward, x: (forward(x), x)[1],
    "what it takes is added": lambda _, forward, x: forward(x) + x,
    "it normalises twice": lambda _, forward, x: forward(x) + forward(x),
    "by another weight": lambda n, _, x: F.batch_norm(x, n.running_mean, n.running_var, n.weight * 2, n.bias),
    "without its bias": lambda n, _, x: torch.batch_norm(
        x, n.weight, None, n.running_mean, n.running_var, False, 0.1, n.eps, False
    ),
    "by another eps": lambda n, _, x: F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, eps=0.5),
    "by the batch": lambda n, _, x: F.batch_norm(x, None, None, n.weight, n.bias, training=True),
}


def inside(base, way):
    """A class with a forward of its own: ``base``'s, or on bright images ``way``."""

    class Own(base):
        def forward(self, x):
            return way(self, super().forward, x) if bright else super().forward(x)

    bright = False

    def look(images):
        nonlocal bright
        bright = bool(images.mean() > 1)
        return images

    return Own, look


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # a convolution in float32 runs packed
@pytest.mark.parametrize("name", [*INSIDE_CONVOLUTIONS, *(f"norm: {name}" for name in INSIDE_NORMS)])
def test_a_module_that_takes_another_way_inside_is_an_error(name, dtype):
    base, way = (
        (nn.BatchNorm2d, INSIDE_NORMS[name[6:]]) if name.startswith("norm: ") else (nn.Conv2d, INSIDE_CONVOLUTIONS[name])
    )
    kind, look = inside(base, way)
    changed = {"bn": kind(4)} if base is nn.BatchNorm2d else {"conv": kind(3, 4, 3)}
    net, x = Net(**{"conv": nn.Conv2d(3, 4, 3), "shape": look, **changed}).to(dtype).eval(), images(dtype=dtype)
    prepared = relume.prepare(net, x)
    assert prepared.preparation.folded == {"bn": "conv"}
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    assert_alike(net, prepared, x, tolerance, methods=ALL[:3])
    with pytest.raises(errors.GraphError, match="takes another way through the network"):
        relume.explain(prepared, x + 5, 1, ["gradient"])
    assert_alike(net, relume.prepare(net, x + 5), x + 5, tolerance, methods=ALL[:3])


class Careful(nn.BatchNorm2d):
    """Converts what it is given to what it is already, and takes more than it needs."""

    def forward(self, x, scale=1):
        y = super().forward(x.to(x.dtype))
        return F.relu(y) * scale


def test_a_batch_norm_that_takes_more_and_converts_nothing_is_folded():
    net, x = Net(lambda n, y, _: n.bn(y, 3), bn=Careful(4)).double().eval(), images()
    prepared = relume.prepare(net, x)
    assert prepared.preparation.folded == {"bn": "conv"}
    for each in (x, x + 5):
        assert_alike(net, prepared, each, methods=ALL[:3])


@pytest.mark.parametrize("late", [True, False])
def test_a_branch_that_trains_is_right_or_an_error(late):
    class Training(Net):
        def forward(self, x):
            if x.mean() > 1 and not late:
                self.bn.train()
            return super().forward(x)

    def way(n, y, x):
        return (n.bn.train() if x.mean() > 1 and late else n.bn)(y)

    net, x = Training(way).double().eval(), images()
    prepared = relume.prepare(net, x)
    if late:
        with pytest.raises(errors.GraphError, match="takes another way"):
            relume.explain(prepared, x + 5, 1, ["gradient"])
    else:
        assert_alike(net, prepared, x + 5, methods=ALL[:3])


WRITES = {
    "statistics": lambda net: net.bn.running_mean.add_(1),
    "a buffer, another": lambda net: setattr(net.bn, "running_var", net.bn.running_var * 2),
    "eps": lambda net: setattr(net.bn, "eps", 1.0),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("late", [True, False])
def test_a_branch_that_writes_is_right_or_an_error(late, name):
    class Writing(Net):
        def forward(self, x):
            if x.mean() > 1 and not late:
                WRITES[name](self)
            return super().forward(x)

    def way(n, y, x):
        if x.mean() > 1 and late:
            WRITES[name](n)
        return n.bn(y)

    net, x = Writing(way).double().eval(), images()
    prepared = relume.prepare(net, x)
    for _ in range(2):
        if late:
            with pytest.raises(errors.GraphError, match="takes another way"):
                relume.explain(prepared, x + 5, 1, ["gradient"])
        else:
            assert_alike(net, prepared, x + 5, methods=ALL[:3])
        assert_alike(net, prepared, x, methods=ALL[:3])


def test_a_folded_batch_norm_without_statistics_is_an_error():
    net, x = Net().double().eval(), images()
    prepared = relume.prepare(net, x)
    prepared.bn.running_mean = None
    with pytest.raises(errors.ModelError, match="has lost its statistics; call relume.prepare again"):
        relume.explain(prepared, x, 1, ["gradient"])


def test_an_input_named_in_the_call_is_folded():
    class Named(Net):
        def forward(self, x):
            return self.head(F.relu(self.bn(self.conv(input=x))).flatten(2).mean(2))

    net, x = Named().double().eval(), images()
    prepared = relume.prepare(net, x)
    assert prepared.preparation.folded == {"bn": "conv"}
    assert_alike(net, prepared, x, methods=ALL[:3])


def write_mean(net):
    net.bn.running_mean.add_(1)


def new_mean(net):
    net.bn.running_mean = torch.ones_like(net.bn.running_mean)


def new_weight(net):
    net.bn.weight = nn.Parameter(net.bn.weight * 3)


def another_eps(net):
    net.bn.eps = 2.0


@pytest.mark.parametrize("change", [write_mean, new_mean, new_weight, another_eps, lambda net: net.conv.weight.neg_()])
def test_what_is_written_in_the_prepared_network_is_folded_again(change):
    net, x = Net().double().eval(), images()
    prepared = relume.prepare(net, x)
    prepared.conv.weight = nn.Parameter(prepared.conv.weight.clone(), requires_grad=False)  # no longer that of net
    plain = copy.deepcopy(net)
    with torch.no_grad():
        for each in (plain, prepared):
            change(each)
    assert_alike(plain, prepared, x, methods=ALL[:3])
    torch.testing.assert_close(prepared(x), plain(x))
    assert_alike(plain, copy.deepcopy(prepared), x, methods=ALL[:3])


def test_a_copy_folds_nothing_again_and_is_the_same_to_the_last_bit():
    net, x = Small().eval(), images(dtype=torch.float32)
    prepared = relume.prepare(net, x, dtype=torch.bfloat16)
    other = copy.deepcopy(prepared)
    for a, b in zip(*(relume.explain(n, x, 1, ALL, "body").maps.values() for n in (prepared, other)), strict=True):
        assert torch.equal(a, b)
    assert vars(other.conv1)["_relume_fold"].weight is vars(prepared.conv1)["_relume_fold"].weight


# --- Names that the network has itself ----------------------------------------------------------------------------------------


class Named(Small):
    """Uses the names that a preparation might want to use."""

    def __init__(self):
        super().__init__()
        self.preparation, self.packed, self.merged = nn.Conv2d(3, 3, 1), 2.0, True
        self.mark, self.of = nn.Parameter(torch.tensor(3.0)), [0.5]
        for module in (self.conv1, self.conv2, self.bn1, self.bn2):
            module.merged, module.packed, module.mark, module.of = True, "mine", "mine", "mine"

    def forward(self, x):
        mine = (
            {m.mark for m in (self.conv1, self.bn1)}
            | {m.packed for m in (self.conv1,)}
            | {m.of for m in (self.conv1, self.bn1)}
        )
        assert mine == {"mine"}
        return super().forward(self.preparation(x) * self.packed * self.of[0]) * self.mark


def test_a_network_may_have_any_name_of_its_own():
    net, x = Named().double().eval(), images()
    prepared = relume.prepare(net, x)
    assert isinstance(prepared.preparation, nn.Conv2d)
    made = preparation_of(prepared)
    assert made is not None
    assert made.folded == {"bn1": "conv1", "bn2": "conv2"}
    assert_alike(net, prepared, x, layer="bn2")
    # in the unprepared network a convolution that says it is merged is a layer as any other
    assert relume.explain(net, x, 1, ["gradcam"], "conv2").layer == "conv2"


class Adapted(nn.Module):
    """A convolution with an adapter in it, as peft and loralib make them: merged into its weight or not."""

    def __init__(self):
        super().__init__()
        self.base_layer, self.merged = nn.Conv2d(6, 8, 3), True

    def forward(self, x):
        return self.base_layer(x)


def test_an_adapter_that_is_merged_is_a_layer_still():
    net, x = Small().eval(), images(dtype=torch.float32)
    net.body = Adapted()
    merged = relume.explain(net, x, 1, ["gradcam"])
    net.body.merged = False
    assert relume.explain(net, x, 1, ["gradcam"]).layer == merged.layer == "body"
    assert relume.explain(relume.prepare(net, x), x, 1, ["gradcam"]).layer == "body"


def test_a_merged_layer_of_peft_is_a_layer_still():
    peft = pytest.importorskip("peft")
    net, x = Small().eval(), images(dtype=torch.float32)
    tuned = peft.get_peft_model(net, peft.LoraConfig(target_modules=["body.0"], r=2)).eval()
    layers = [relume.explain(tuned, x, 1, ["gradcam"]).layer]
    tuned.base_model.merge_adapter()
    assert any(getattr(module, "merged", False) is True for module in tuned.modules())
    layers.append(relume.explain(tuned, x, 1, ["gradcam"]).layer)
    assert layers[0] == layers[1]


# --- Forms of a network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["DataParallel", "compiled", "compiled inside", "symbolic", "training", "exported"])
def test_forms(form):
    plain, x = Small().double().eval(), images()
    net = copy.deepcopy(plain)
    if form == "DataParallel":
        net = nn.DataParallel(net)
    elif form == "compiled":
        net = torch.compile(net, backend="eager")
    elif form == "compiled inside":
        net.body = torch.compile(net.body, backend="eager")
    elif form == "symbolic":
        net = torch.fx.symbolic_trace(net)
    elif form == "training":
        net.train()
    else:
        net = torch.export.export(net, (x,)).module()
    before = snapshot(net)
    prepared = relume.prepare(net, x)
    assert_unchanged(before, snapshot(net))
    assert len(prepared.preparation.folded) == (0 if form == "exported" else 2)
    layer = None if form in ("exported", "symbolic") else "body"
    expected = relume.explain(plain, x, 1, ALL, "body")
    got = relume.explain(prepared, x, 1, ALL, layer)
    for method in ALL:
        torch.testing.assert_close(got[method], expected[method], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_under_no_grad_and_inference_mode(around):
    net, x = Small().eval(), images(dtype=torch.float32)
    expected = relume.explain(net, x, 1, ["guided_backprop"])["guided_backprop"]
    with around():
        prepared = relume.prepare(net, x)
        inside = relume.explain(prepared, x, 1, ["guided_backprop"])["guided_backprop"]
        prepared(x)
        there = Small().eval()
        relume.prepare(there, x)
    for got in (inside, relume.explain(prepared, x, 1, ["guided_backprop"])["guided_backprop"]):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)
    on_it = relume.prepare(there, x)  # whose weights were made there
    assert_alike(there, on_it, x, 1e-4, layer="body")


def test_refusals():
    x = images(dtype=torch.float32)
    prepared = relume.prepare(Small(), x)
    for again in (prepared, nn.DataParallel(prepared)):
        with pytest.raises(errors.InputError, match="prepared already"):
            relume.prepare(again, x)
    with pytest.raises(errors.InputError, match=r"takes a torch\.nn\.Module"):
        relume.prepare(lambda x: x, x)
    with pytest.raises(errors.InputError, match="floating-point dtype"):
        relume.prepare(Small(), x, dtype=torch.int8)
    with pytest.raises(errors.LayerError, match=r"'conv1' has no output of its own.*prepare the network with fold=False"):
        relume.explain(prepared, x, 1, ["gradcam"], "conv1")


def test_what_does_not_compute_the_same_is_refused():
    class Offset(Small):
        """One class, whose gradient has the same ranks whatever is added to it."""

        def forward(self, x):
            return super().forward(x) + 10 + 10 * (self.conv1.weight.dtype == torch.float16)

    x = images(dtype=torch.float32)
    with pytest.raises(errors.ModelError, match=r"outputs differ by [01]\.\de"):
        relume.prepare(Offset(1).eval(), x, dtype=torch.float16)
    with pytest.raises(errors.ModelError, match="outputs differ by nan"):
        relume.prepare(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval(), x * 1e5, dtype=torch.float16
        )


def test_a_network_in_float32_is_held_to_float32_where_float64_is_asked_for():
    net, x = Net().eval(), images(dtype=torch.float32)
    prepared = relume.prepare(net, x, dtype=torch.float64)
    assert prepared.preparation.dtype == torch.float64
    assert 1e-9 < prepared.preparation.difference < 1e-5  # the rounding of the plain network's own outputs
    exact = relume.explain(copy.deepcopy(net).double(), x.double(), 1, ["gradient"], evidence=None)["gradient"]
    made = relume.explain(prepared, x, 1, ["gradient"], evidence=None)["gradient"]
    assert (made - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_equal_values_are_not_ranked(dtype):
    """A gradient that is the same everywhere has no ranks, and one that is so but for rounding has those of the rounding."""
    constant = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, 1, bias=False))
    nn.init.ones_(constant[2].weight)
    assert relume.prepare(constant, torch.ones(1, 3, 8, 8), dtype=dtype).preparation.agreement == 1
    nearly = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, padding_mode="circular"), nn.AvgPool2d(12), nn.Flatten(), nn.Linear(32, 4)
    )
    made = relume.prepare(nearly, torch.randn(1, 3, 12, 12), dtype=dtype).preparation
    assert made.difference < 0.05


def test_nothing_is_converted_unasked():
    class Mixed(Small):
        def __init__(self):
            super().__init__()
            self.head.double()

        def forward(self, x):
            return self.head(self.body(self.relu(self.bn1(self.conv1(x)))).mean((2, 3)).double())

    net, x = Mixed().eval(), images(dtype=torch.float32)
    prepared = relume.prepare(net, x)
    assert prepared(x).dtype == torch.float64
    assert {p.dtype for p in prepared.parameters()} == {torch.float32, torch.float64}
    assert_alike(net, prepared, x, 1e-4, layer="body")
