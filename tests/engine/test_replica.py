"""The private replica: whatever a model holds on to its own modules by, the original is neither run nor changed."""

import functools
import threading
import types
import weakref
from collections import defaultdict, deque
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import relume
from relume import errors
from relume.engine.replica import replicate
from tests.helpers.networks import assert_unchanged, snapshot
from tests.reference import twin


class Tangled(nn.Module):
    """Refers to its own modules in every way but the registered one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.steps = [self.a, self.b]
        self.table = {"drop": nn.Dropout(0.9), "step": self.b}
        self.drop = self.table["drop"]
        self.method = self._finish
        self.register_buffer("calls", torch.zeros(1))
        self.seen = []

    def _finish(self, x):
        return F.relu(x).flatten(1) if not self.training else x.flatten(1) * float("nan")

    def forward(self, x):
        self.calls += 1
        self.seen.append(x)
        self.last = x
        for step in self.steps:
            x = step(x)
        return self.method(self.table["drop"](x))


def test_references_beside_the_registered_ones_lead_to_the_replica():
    net = Tangled().train()
    before = snapshot(net)
    x = torch.randn(2, 3, 4, 4)
    got = relume.GuidedBackpropagation(net).attribute(x, 1)
    assert_unchanged(before, snapshot(net))
    assert not hasattr(net, "last")
    assert net.calls == 0
    expected, _, _ = twin.attribution(net.eval(), x, [1, 1], twin.guided)
    torch.testing.assert_close(got, expected)


def test_tied_weights_stay_tied_and_wrappers_are_opened():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    replica = replicate(nn.DataParallel(net))
    assert replica[2].weight is replica[0].weight
    assert replica[0].weight.data_ptr() == net[0].weight.data_ptr()
    assert not replica[0].weight.requires_grad


def test_lazy_parameters_are_refused():
    with pytest.raises(relume.errors.ModelError, match="lazy parameters"):
        relume.GuidedBackpropagation(nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.ReLU())).attribute(torch.ones(1, 3))


class Pair(NamedTuple):
    conv: nn.Module
    bn: nn.Module


class Held(nn.Module):
    """Conv, BatchNorm, dropout; ``hold`` decides how the forward gets at them. In training mode the wrong ones would show."""

    def __init__(self, hold):
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4, 4)
        self.get = hold(self)

    def forward(self, x):
        conv, bn = self.get()
        return self.head(F.relu(self.drop(bn(conv(x)))).mean((2, 3)))


def _cycle(net):
    table = {"conv": net.conv, "bn": net.bn}
    table["self"] = table
    net.table = table
    return lambda: (net.table["self"]["self"]["conv"], table["bn"])


def _keys(net):
    net.by_module = {net.conv: "conv", net.bn: "bn"}
    return lambda: tuple(net.by_module)


def _shared(net):
    net.first = net.second = [net.conv]
    net.first.append(net.bn)
    return lambda: net.second


def _nested(net):
    def inner():
        return net.bn

    return lambda conv=net.conv: (conv, inner())


def _over_modules(net):
    conv, bn = net.conv, net.bn
    return lambda: (conv, bn)


def _weakly(net):
    ref = weakref.ref(net)
    return lambda: (ref().conv, ref().bn)


def _in_a_namedtuple(net):
    pair = Pair(net.conv, net.bn)
    return lambda: pair


def _recursive(net):
    def go(depth=3):
        return (net.conv, net.bn) if depth == 0 else go(depth - 1)

    return go


def _mutual(net):
    def ping(n=3):
        return (net.conv, net.bn) if n == 0 else pong(n - 1)

    def pong(n):
        return ping(n)

    return ping


def _keyword_default(net):
    def get(*, conv=net.conv, bn=net.bn):
        return conv, bn

    return get


def _weak_method(net):
    method = weakref.WeakMethod(net._both)
    return lambda: method().__call__()


def _builtin(net):
    net.outs = []
    net.put = net.outs.append

    def get():
        net.put((net.conv, net.bn))
        return net.outs.pop()

    return get


class Attributes(dict):
    __getattr__ = dict.__getitem__


class Helper:
    def __init__(self, net):
        self.net = net

    def __call__(self):
        return self.net.conv, self.net.bn


class Closing(Helper):
    """What happens when it goes belongs to the caller's: it is not copied."""

    def __del__(self):
        pass


class Slotted(Helper):
    __slots__ = ("conv",)

    def __call__(self):
        return self.conv, self.net.bn


def _slotted(net):
    helper = Slotted(net)
    helper.conv = net.conv
    return helper


def _namespace(net):
    net.parts = types.SimpleNamespace(conv=net.conv, bn=net.bn)
    return lambda: (net.parts.conv, net.parts.bn)


def _weak_keys(net):
    net.names = weakref.WeakKeyDictionary({net.conv: "conv", net.bn: "bn"})
    return lambda: (next(m for m in net.names if net.names[m] == "conv"), next(m for m in net.names if net.names[m] == "bn"))


def _weak_values(net):
    net.by_name = weakref.WeakValueDictionary({"conv": net.conv, "bn": net.bn})
    return lambda: (net.by_name["conv"], net.by_name["bn"])


def _weak_set(net):
    net.kept = weakref.WeakSet([net.conv, net.bn])
    return lambda: tuple(sorted(net.kept, key=lambda m: type(m).__name__)[::-1])


def _proxy(net):
    proxy = weakref.proxy(net)
    return lambda: (proxy.conv, proxy.bn)


def _cached_in_an_attribute(net):
    return functools.lru_cache(maxsize=2)(net._both)


def _attributes(net):
    net.table = Attributes(conv=net.conv, bn=net.bn)
    return lambda: (net.table.conv, net.table.bn)


HOLDS = {
    "plain object": Helper,
    "object with slots": _slotted,
    "namespace": _namespace,
    "weak keys": _weak_keys,
    "weak values": _weak_values,
    "weak set": _weak_set,
    "weak proxy": _proxy,
    "cache": _cached_in_an_attribute,
    "recursive closure": _recursive,
    "mutually recursive closures": _mutual,
    "keyword default": _keyword_default,
    "weak method": _weak_method,
    "builtin method": _builtin,
    "dict subclass": _attributes,
    "closure": lambda net: lambda: (net.conv, net.bn),
    "closure over the modules": _over_modules,
    "nested closure and default": _nested,
    "bound method": lambda net: net._both,
    "partial": lambda net: functools.partial(lambda conv, bn: (conv, bn), net.conv, bn=net.bn),
    "weak reference": _weakly,
    "namedtuple": _in_a_namedtuple,
    "cycle": _cycle,
    "keys": _keys,
    "one list under two names": _shared,
}
Held._both = lambda self: (self.conv, self.bn)


@pytest.mark.parametrize("hold", HOLDS)
def test_however_the_modules_are_held(hold):
    net = Held(HOLDS[hold]).double()
    x = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    expected, _, _ = twin.attribution(net.eval(), x, [0, 1, 2], twin.guided)
    net.train()
    before = snapshot(net)
    got = relume.GuidedBackpropagation(net).attribute(x, [0, 1, 2])
    assert_unchanged(before, snapshot(net))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "container", [set, deque, lambda items: deque(items, maxlen=2), lambda i: defaultdict(list, {0: list(i)})]
)
def test_containers(container):
    def hold(net):
        net.kept = container([net.conv, net.bn])
        return lambda: sorted(net.kept[0] if isinstance(net.kept, dict) else net.kept, key=lambda m: type(m).__name__)[::-1]

    net = Held(hold)
    before = snapshot(net.train())
    assert relume.GuidedBackpropagation(net).attribute(torch.randn(2, 3, 6, 6), 1).any()
    assert_unchanged(before, snapshot(net))


def test_an_empty_container_under_two_names_stays_one():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net.seen = net.kept = []
    net.hooks = net[1]._forward_hooks
    net[0].table, net[1].table = (shared := {}), shared
    replica = replicate(net)
    assert replica.seen is replica.kept
    assert replica.seen is not net.seen
    assert replica.hooks is replica[1]._forward_hooks
    assert replica[0].table is replica[1].table
    assert replica[0].table is not shared
    assert replica[0]._forward_hooks is not replica[1]._forward_hooks


@pytest.mark.parametrize("methods", [["guided_backprop"], ["guided_gradcam"]])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_cannot_be_followed_is_an_error_in_training_mode_and_right_in_evaluation(methods, frozen):
    net = Held(Closing).double().requires_grad_(not frozen)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    before = snapshot(net.train())
    with pytest.raises(errors.ModelError, match=r"reaches 'conv.weight' through an object.*model.eval\(\)"):
        relume.explain(net, x, 1, methods, "conv")
    assert_unchanged(before, snapshot(net))
    expected, _, _ = twin.attribution(net.eval(), x, [1, 1], twin.guided)
    torch.testing.assert_close(relume.GuidedBackpropagation(net).attribute(x, 1), expected, rtol=1e-12, atol=1e-15)


def test_lazy_buffers_are_refused_too():
    with pytest.raises(errors.ModelError, match="lazy parameters"):
        relume.GuidedBackpropagation(nn.Sequential(nn.LazyBatchNorm2d(affine=False), nn.ReLU())).attribute(
            torch.ones(1, 3, 2, 2)
        )


def test_an_immutable_container_is_left_as_it_is():
    from torch.fx.immutable_collections import immutable_dict, immutable_list

    net = Held(HOLDS["closure"])
    net.sizes, net.names = immutable_list([1, 2]), immutable_dict(a=1)
    replica = replicate(net)
    assert (replica.sizes, replica.names) == ([1, 2], {"a": 1})


def test_an_extractor_of_features_made_of_hooks():
    class Extractor(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)
            self.features = {}
            self.bn.register_forward_hook(self.save("bn"))

        def save(self, name):
            def hook(_module, _args, out):
                self.features[name] = out

            return hook

        def forward(self, x):
            self.bn(self.conv(x))
            return self.head(F.relu(self.features.pop("bn")).mean((2, 3)))

    net = Extractor().train()
    before = snapshot(net)
    assert relume.explain(net, torch.randn(2, 3, 6, 6), 1, ["guided_gradcam"], "conv")["guided_gradcam"].any()
    assert_unchanged(before, snapshot(net))
    assert net.features == {}


def test_a_model_compiled_in_place_runs_as_written():
    net = Held(HOLDS["closure"]).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    expected = relume.GuidedBackpropagation(net).attribute(x, 1)
    net.compile(backend="eager")
    before = snapshot(net.train())
    assert torch.equal(relume.GuidedBackpropagation(net).attribute(x, 1), expected)
    assert_unchanged(before, snapshot(net))


def test_modules_that_are_not_registered_keep_their_mode_and_their_statistics():
    hidden = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()

    class Hiding(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = [hidden], nn.Linear(4, 4)

        def forward(self, x):
            return self.head(F.relu(self.hidden[0](x)).mean((2, 3)))

    before = snapshot(hidden)
    got = relume.GuidedBackpropagation(Hiding()).attribute(torch.randn(2, 3, 6, 6), 1)
    assert_unchanged(before, snapshot(hidden))
    assert got.any()
    assert hidden.training


def test_tensors_that_are_no_buffers_are_copied():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = torch.zeros(())
            self.conv = nn.Conv2d(3, 2, 3)
            self.conv.weight.scale = 3.0
            self.register_buffer("late", torch.ones(1))
            self.late.kind = "late"

        def forward(self, x):
            self.count += 1
            self.register_buffer("made", torch.ones(1), persistent=False)
            assert self.late.kind == "late"
            return F.relu(self.conv(x)).flatten(1) * self.conv.weight.scale

    net = Counting()
    relume.GuidedBackpropagation(net).attribute(torch.randn(1, 3, 4, 4), 1)
    assert net.count == 0
    assert not hasattr(net, "made")
    assert not net._non_persistent_buffers_set


REAL = {
    "weight_norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
    "spectral_norm of old": lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)),
    "fx": lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))),
    "lstm": lambda: nn.Sequential(nn.Flatten(2), nn.LSTM(36, 5, 2, dropout=0.5), First(), nn.Unflatten(2, (5, 1))),
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(36, 2, 8, batch_first=True), nn.Unflatten(2, (6, 6))
    ),
}


class First(nn.Module):
    def forward(self, pair):
        return pair[0]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the old spectral norm
@pytest.mark.parametrize("name", REAL)
def test_constructions_met_in_the_wild(name):
    net = nn.Sequential(REAL[name](), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    net.eval()(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    before = snapshot(net.train())
    torch.testing.assert_close(relume.Gradient(net).attribute(x, 1), expected, rtol=1e-10, atol=1e-14)
    assert_unchanged(before, snapshot(net))


def test_another_thread_may_set_attributes_meanwhile():
    net, stop = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            i += 1
            setattr(net[0], f"attribute{i % 50}", i)
            delattr(net[0], f"attribute{i % 50}")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            assert replicate(net)[3].weight.data_ptr() == net[3].weight.data_ptr()
    finally:
        stop.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("form", ["scripted", "traced", "scripted inside", "scripted inside, in evaluation"])
def test_torchscript_is_guided_or_refused(form):
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    net, x = net.double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    expected = relume.GuidedBackpropagation(net).attribute(x, 1)
    if form == "traced":
        net = torch.jit.trace(net, x)
    elif form == "scripted":
        net = torch.jit.script(net).train()
    else:
        net[0] = torch.jit.script(net[0])
        net.train()
        net[0].train("evaluation" not in form)
    modes = [m.training for m in net.modules()]
    for _ in range(5):  # its executor optimises, and may hide operations, from some call on
        try:
            got = relume.GuidedBackpropagation(net).attribute(x, 1)
        except errors.HiddenRegionError as refusal:
            got, said = None, str(refusal)
        assert "TorchScript fused" in said if got is None else torch.allclose(got, expected, rtol=1e-12, atol=1e-15)
    assert [m.training for m in net.modules()] == modes


class CountingInScript(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros(1))
        self.seen = 0

    def forward(self, x):
        self.calls.add_(1)
        self.seen += 1
        return self.conv(x).relu().mean((2, 3)) * self.calls


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("training", [False, True])
def test_torchscript_that_writes_to_its_buffers_writes_to_its_replicas(training):
    inner = torch.jit.script(CountingInScript().train(training))
    net = nn.Sequential(inner, nn.Flatten()).train(training)
    x = torch.randn(1, 3, 6, 6)
    first, second = (relume.explain(net, x, 1, ["gradient"]) for _ in range(2))
    assert torch.equal(first.scores, second.scores)
    assert (inner.calls.item(), inner.seen) == (0, 0)
    mine = replicate(net)
    assert [w.data_ptr() for w in mine.parameters()] == [w.data_ptr() for w in net.parameters()]
    # a part of it that is held beside it is a part of the replica's
    beside = nn.ModuleList([inner, inner.conv])
    mine = replicate(beside)
    assert mine[1] is mine[0].conv
