"""Wrappers: torch's own are opened, hooks and all; what merely looks like one runs as it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume.engine.replica import replicate
from relume.engine.wrappers import unwrap
from relume.errors import ModelError
from tests.helpers.networks import Small, assert_unchanged, snapshot
from tests.reference import twin

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
]


class Doubling(nn.Module):
    """A class of the user's that keeps a network in ``_orig_mod`` and does more than call it."""

    def __init__(self, inner):
        super().__init__()
        self._orig_mod = inner

    def forward(self, x):
        return torch.tanh(self._orig_mod(2 * x))


class Parallel(nn.DataParallel):
    def forward(self, x):
        return torch.tanh(self.module(2 * x))


class Stem(nn.Module):
    """A network with its first part in some wrapper."""

    def __init__(self, wrap):
        super().__init__()
        self.stem = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))


def compiled(net):
    return torch.compile(net, backend="eager")


def guided(net, x):
    return relume.explain(net, x, 1, ["guided_backprop"])["guided_backprop"]


@pytest.mark.parametrize("kind", [Doubling, Parallel])
@pytest.mark.parametrize("where", ["whole", "part", "compiled"])
def test_a_forward_of_ones_own_runs(kind, where):
    net = {"whole": lambda: kind(Small()), "part": lambda: Stem(kind), "compiled": lambda: compiled(kind(Small()))}[where]()
    net, x = net.double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    plain = unwrap(net)
    assert type(plain) is (Stem if where == "part" else kind)
    expected, _, _ = twin.attribution(plain, x, [1, 1], twin.guided)
    torch.testing.assert_close(guided(net, x), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [Doubling, Parallel])
def test_layers_of_such_a_class_have_the_names_that_they_have_there(kind):
    net, x = Stem(kind).double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    name = next(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    assert name in ("stem._orig_mod.0", "stem.module.0")
    by_name, by_module = (relume.explain(net, x, 1, ["gradcam"], layer) for layer in (name, net.get_submodule(name)))
    assert by_name.layer == by_module.layer == name
    leaf = (2 * x).requires_grad_()
    activation = net.get_submodule(name)(leaf)
    scores = net.head(torch.tanh(F.relu(activation)).mean((2, 3)))
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), activation)
    torch.testing.assert_close(by_name["gradcam"], twin.grad_cam(activation.detach(), gradient), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [Doubling, Parallel])
def test_such_a_class_prepared_is_followed(kind):
    net, x = Stem(kind).eval(), torch.randn(1, 3, 8, 8)
    made = relume.prepare(net, x)
    before = guided(net, x)
    torch.testing.assert_close(guided(made, x), before, rtol=1e-4, atol=1e-7)
    torch.nn.init.normal_(net.get_submodule("stem").get_submodule("_orig_mod" if kind is Doubling else "module")[0].weight)
    after = guided(net, x)
    assert not torch.allclose(after, before, rtol=1e-2)
    torch.testing.assert_close(guided(made, x), after, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "wrap", [compiled, nn.DataParallel, lambda net: nn.DataParallel(compiled(net)), lambda net: compiled(nn.DataParallel(net))]
)
def test_plain_wrappers_are_opened_and_names_stay(wrap):
    net, x = Small().eval(), torch.randn(2, 3, 8, 8)
    wrapped = wrap(net)
    assert unwrap(wrapped) is net
    e = relume.explain(wrapped, x, 1, ["gradcam"], "body.0")
    assert (e.layer, list(dict(replicate(wrapped).named_modules()))) == ("body.0", list(dict(net.named_modules())))
    torch.testing.assert_close(e["gradcam"], relume.explain(net, x, 1, ["gradcam"], "body.0")["gradcam"])


def hooks_on(module, said):
    """Every kind of forward hook: they double what goes in, add to what comes out, and say in which order."""

    def before(_module, args):
        said.append("before")
        return (2 * args[0],)

    def before_with_keywords(_module, args, kwargs):
        said.append("before with keywords")
        return (args[0] + 1, *args[1:]), kwargs

    def after(_module, _args, output):
        said.append("after")
        return torch.tanh(output)

    def after_with_keywords(_module, _args, _kwargs, output):
        said.append("after with keywords")
        return output * 3

    module.register_forward_pre_hook(before)
    module.register_forward_pre_hook(before_with_keywords, with_kwargs=True)
    module.register_forward_hook(after)
    module.register_forward_hook(after_with_keywords, with_kwargs=True)
    module.register_forward_hook(lambda *_: said.append("always"), always_call=True)
    return module


ORDER = ["before", "before with keywords", "after", "after with keywords", "always"]


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel, lambda net: nn.DataParallel(compiled(net))])
@pytest.mark.parametrize("part", [False, True])
def test_hooks_of_a_wrapper_run(wrap, part):
    """Also beside hooks of what is inside: the wrapper's come before and after."""
    said, inside = [], []

    def hooked(net):
        net.register_forward_pre_hook(lambda _m, args: (inside.append("before"), (args[0] + 0.5,))[1])
        net.register_forward_hook(lambda _m, _a, output: (inside.append("after"), output.sin())[1])
        return hooks_on(wrap(net), said)

    torch.manual_seed(3)
    net, x = (Stem(hooked) if part else hooked(Small())).double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    plain = {"part": Stem(lambda net: net), "whole": Small()}["part" if part else "whole"].double().eval()
    plain.load_state_dict({k.replace("module.", "").replace("_orig_mod.", ""): v for k, v in net.state_dict().items()})

    def around(inner):
        return lambda y: torch.tanh(inner(2 * y + 1 + 0.5).sin()) * 3

    function = (lambda y: plain.head(around(plain.stem)(y).mean((2, 3)))) if part else around(plain)
    expected, scores, _ = twin.attribution(function, x, [1, 1], twin.guided)
    before = snapshot(net)
    e = relume.explain(net, x, 1, ["guided_backprop"], evidence=None)
    torch.testing.assert_close(e.scores, scores, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(e["guided_backprop"], expected, rtol=1e-12, atol=1e-15)
    assert (said, inside) == (ORDER, ["before", "after"])
    assert_unchanged(before, snapshot(net))


def test_hooks_that_cannot_go_with_the_network_are_refused():
    class Twice(Stem):
        def __init__(self):
            super().__init__(lambda net: net)
            self.fast = compiled(self.stem)

    net, x = Twice(), torch.randn(1, 3, 8, 8)
    assert guided(net, x).any()
    net.fast.register_forward_hook(lambda *_: None)
    says = "the OptimizedModule around Sequential has forward hooks, which cannot go with what is inside; register them on"
    with pytest.raises(ModelError, match=says):
        guided(net, x)
    scripted = torch.jit.trace(Small().eval(), x)
    wrapped = nn.DataParallel(scripted)
    wrapped.register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError, match="the DataParallel around .* has forward hooks"):
        guided(wrapped, x)


def test_an_attribute_of_the_users_marks_nothing():
    """What relume marks its own with are classes of its own."""

    class Marked(torch.autograd.Function):
        guides, rectifies = True, False

        @staticmethod
        def forward(ctx, x):
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Net(Stem):
        def forward(self, x):
            return super().forward(Marked.apply(x))

    rows = {row.kind: row.why for row in relume.coverage(Net(lambda net: net), torch.randn(1, 3, 8, 8)).rows}
    assert rows["Marked"] == "a custom autograd.Function, whose formula the graph does not show"
