"""State that a module holds in other things than tensors: a forward pass of the replica leaves the caller's alone."""

import array
import collections
import dataclasses
import functools
import gc
import io
import random
import types
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume.engine.replica import replicate


@dataclasses.dataclass
class State:
    calls: int = 0
    seen: list = dataclasses.field(default_factory=list)
    array: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))


@dataclasses.dataclass(slots=True)
class Slots:
    calls: int = 0


class Plain:
    def __init__(self):
        self.calls, self.inner = 0, State()


def _written_dataclass(state):
    state.calls += 1
    state.seen.append(state.calls)
    state.array += 1


def _written_plain(held):
    held.calls += 1
    held.inner.seen.append(1)


def _written_array(array):
    array += 1


def _counted(held):
    held.calls += 1


def _objects():
    held = np.empty(2, dtype=object)
    held[0], held[1] = [0], {}
    return held


class Listed(list):
    def __init__(self):
        self.calls, self.more = 0, []


def _listed(held):
    held.append(1)
    held.more.append(1)


def _hung():
    weight = nn.Parameter(torch.zeros(1))
    weight.seen = []
    return weight


def _first(held):
    held[0] += 1


def _keyed(held):
    held["a"] += 1


HELD = {
    "bytes": (lambda: bytearray(2), _first, bytes),
    "array of Python": (lambda: array.array("i", [0]), _first, list),
    "user dict": (lambda: collections.UserDict(a=0), _keyed, dict),
    "user list": (lambda: collections.UserList([0]), _first, list),
    "chain map": (lambda: collections.ChainMap({"a": 0}, {"b": 1}), _keyed, dict),
    "mapping proxy": (lambda: types.MappingProxyType({"a": [0]}), lambda m: m["a"].append(1), lambda m: list(m["a"])),
    "text in memory": (io.StringIO, lambda s: s.write("a"), lambda s: (s.getvalue(), s.tell())),
    "bytes in memory": (lambda: io.BytesIO(b"abc"), lambda s: s.read(1), lambda s: (s.getvalue(), s.tell())),
    "array of objects": (_objects, lambda a: a[0].append(1), lambda a: list(a[0])),
    "attribute of a list": (Listed, _listed, lambda held: (list(held), list(held.more))),
    "attribute of a weight": (_hung, lambda weight: weight.seen.append(1), lambda weight: list(weight.seen)),
    "array": (lambda: np.zeros(3), _written_array, lambda a: a.tolist()),
    "array in a list": (lambda: [np.zeros(3)], lambda a: _written_array(a[0]), lambda a: a[0].tolist()),
    "array view": (lambda: np.zeros((3, 3))[::2], _written_array, lambda a: a.tolist()),
    "dataclass": (State, _written_dataclass, lambda s: (s.calls, list(s.seen), s.array.tolist())),
    "dataclass with slots": (Slots, _counted, lambda s: s.calls),
    "plain object": (Plain, _written_plain, lambda p: (p.calls, list(p.inner.seen))),
    "namespace": (lambda: types.SimpleNamespace(calls=0), _counted, lambda s: s.calls),
    "random": (lambda: random.Random(3), lambda r: r.random(), lambda r: r.getstate()),
    "random of numpy": (
        lambda: np.random.default_rng(3),
        lambda r: r.random(),
        lambda r: repr(r.bit_generator.state),
    ),
    "random of old numpy": (lambda: np.random.RandomState(3), lambda r: r.rand(), lambda r: repr(r.get_state())),
    "random of torch": (
        lambda: torch.Generator().manual_seed(3),
        lambda g: torch.rand(1, generator=g),
        lambda g: g.get_state().tolist(),
    ),
}


class Writing(nn.Module):
    def __init__(self, held, write):
        super().__init__()
        self.conv, self.held, self.again = nn.Conv2d(3, 2, 3), held, held
        self.write = write

    def forward(self, x):
        before = repr(self.held)
        self.write(self.held)
        assert self.again is self.held
        assert not isinstance(self.held, np.ndarray) or repr(self.held) != before  # its own is written to
        return F.relu(self.conv(x)).flatten(1)


@pytest.mark.parametrize("name", HELD)
def test_what_a_forward_pass_writes_to_is_the_replicas(name):
    make, write, read = HELD[name]
    net = Writing(held := make(), write)
    before = read(held)
    first = relume.explain(net, torch.randn(2, 3, 4, 4), 1, ["guided_backprop", "gradient"])
    assert first["guided_backprop"].any()
    assert read(held) == before
    assert net.held is held


def test_random_states_draw_the_same_for_every_explanation():
    class Noisy(Writing):
        def forward(self, x):
            return F.relu(self.conv(x) + self.held.random()).flatten(1)

    net, x = Noisy(random.Random(5), None), torch.randn(1, 3, 4, 4)
    assert torch.equal(relume.explain(net, x, 1, ["gradient"]).scores, relume.explain(net, x, 1, ["gradient"]).scores)
    assert net.held.random() == random.Random(5).random()


def test_a_read_only_array_is_shared():
    net = Writing(np.zeros(3), None)
    net.held.flags.writeable = False
    net.system = random.SystemRandom()
    assert replicate(net).held is net.held
    assert replicate(net).system is net.system


def test_an_object_of_another_package_and_one_with_its_own_end_are_shared():
    closed = []

    class Closing(Plain):
        def __del__(self):
            closed.append(1)

    net = Writing(Closing(), _counted)
    net.pool = foreign = dataclasses.make_dataclass("Foreign", ["x"])(1)
    type(foreign).__module__ = "somewhere.else"
    replica = replicate(net)
    assert replica.held is net.held
    assert replica.pool is foreign
    del replica
    gc.collect()
    assert closed == []


# --- Slots -------------------------------------------------------------------------------------------------------------------


class Slotted(nn.Module):
    __slots__ = ("__hidden", "body", "never", "scale")

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.scale, self.__hidden = [2.0], 3.0
        self.body = "a word"

    def forward(self, x):
        self.scale.append(1.0)
        return F.relu(self.conv(x)).flatten(1) * self.scale[0] * self.__hidden


def test_modules_with_slots():
    net, x = Slotted().double(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    net.scale[:] = [2.0]
    torch.testing.assert_close(relume.Gradient(net).attribute(x, 1), expected, rtol=1e-12, atol=0)
    assert net.scale == [2.0]
    assert not hasattr(replicate(net), "never")


# --- Caches ------------------------------------------------------------------------------------------------------------------


class Cached(nn.Module):
    computed = 0

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.helper = CachedHelper()

    @functools.lru_cache  # noqa: B019 - that it keeps what it is called on is what is tested
    def grid(self, size):
        type(self).computed += 1
        return self.conv.weight.new_full((size,), 2.0)

    @functools.cache  # noqa: B019
    def plain(self):
        return 3.0

    @functools.cached_property
    def factor(self):
        return torch.ones(())

    def forward(self, x):
        y = F.relu(self.conv(x)).flatten(1)
        assert self.grid(1) is self.grid(1)
        return y * self.grid(y.shape[1]) * self.plain() * self.factor * self.helper.factor(2)


class CachedHelper:
    def __init__(self):
        self.state = 1.0

    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033
    def factor(self, size):
        return size * self.state


@pytest.mark.parametrize("collect", [False, True])
def test_no_replica_outlives_its_call(collect, monkeypatch):
    made = []

    def replicate_and_note(model):
        replica = replicate(model)
        made.append(weakref.ref(replica))
        return replica

    monkeypatch.setattr("relume.engine.trace.replicate", replicate_and_note)
    net, x = Cached(), torch.randn(1, 3, 4, 4)
    for method in (Cached.grid, Cached.plain, CachedHelper.factor):
        method.cache_clear()
    Cached.computed = 0
    gc.disable()
    try:
        for _ in range(3):
            maps = relume.explain(net, x, 1, ["gradient", "guided_backprop"])
        if collect:
            gc.collect()
        assert len(made) == 3
        assert [ref() for ref in made] == [None] * 3
    finally:
        gc.enable()
    for method in (Cached.grid, Cached.plain, CachedHelper.factor):
        assert method.cache_info().currsize == 0
    assert Cached.computed == 3 * 2  # two sizes, each once in a replica
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(leaf)[0, 1], leaf)
    torch.testing.assert_close(maps["gradient"], expected)


# --- What cannot be copied ---------------------------------------------------------------------------------------------------


class Finalized(State):
    def __del__(self):
        pass


def test_a_write_to_what_cannot_be_copied_is_said():
    net = Writing(Finalized(), _counted)
    x = torch.randn(1, 3, 4, 4)
    with pytest.warns(
        UserWarning, match="wrote 'calls' of a Finalized that the network holds; relume cannot copy such an object"
    ):
        relume.explain(net, x, 1, ["gradient"])
    assert net.held.calls == 1
    relume.explain(Writing(Finalized(), len_of_seen), x, 1, ["gradient"])  # warnings are errors here


def _written_before_it_fails(held):
    held.calls += 1
    raise KeyError("of the network")


def test_a_write_is_said_where_the_network_then_fails():
    net = Writing(Finalized(), _written_before_it_fails)
    with pytest.warns(UserWarning, match="wrote 'calls' of a Finalized"), pytest.raises(KeyError, match="of the network"):
        relume.explain(net, torch.randn(1, 3, 4, 4), 1, ["gradient"])


def len_of_seen(held):
    return len(held.seen)


# --- Memory that several share -----------------------------------------------------------------------------------------------


class Shared(nn.Module):
    """Writes to its memory, and reads what was written from a view of it."""

    def __init__(self, share):
        super().__init__()
        self.conv, self.share = nn.Conv2d(3, 4, 3), share
        self.register_buffer("memory", torch.ones(3, 4))
        self.array = np.ones((3, 4))
        self.slot = SHARING[share](self)

    def forward(self, x):
        (self.array if "arrays" in self.share else self.memory)[1, 2] = 5.0
        held = np.asarray(self.slot) if isinstance(self.slot, np.ndarray) else self.slot
        return self.conv(x).relu().mean((2, 3)) * float(held.reshape(-1)[0])


SHARING = {
    "a view": lambda net: net.memory[1:, 2],
    "transposed": lambda net: net.memory.t()[2:, 1:],
    "a detached copy of the name": lambda net: net.memory.detach()[1, 2],
    "an array over a tensor": lambda net: net.memory.numpy()[1:, 2],
    "arrays": lambda net: net.array[1:, 2],
    "arrays, backwards": lambda net: net.array.T[2::-1, 1],
    "arrays, by other bytes": lambda net: net.array.view(np.int64)[1:, 2].view(np.float64),
}


@pytest.mark.parametrize("share", SHARING)
def test_what_shares_memory_shares_it_in_the_replica(share):
    net, x = Shared(share).eval(), torch.randn(1, 3, 6, 6)
    got = relume.explain(net, x, 1, ["gradient"]).scores
    assert net.memory.eq(1).all()
    assert (net.array == 1).all()
    torch.testing.assert_close(got, net(x).detach())
    replica = replicate(net)
    assert (replica.slot.shape, replica.slot.dtype) == (net.slot.shape, net.slot.dtype)
    strides = (lambda a: a.strides) if isinstance(net.slot, np.ndarray) else (lambda t: t.stride())
    assert strides(replica.slot) == strides(net.slot)
