"""A batch explained some images at a time gives what it gives all at once; where memory runs out, it is halved, and said."""

import dataclasses
import gc
import json
import os
import subprocess
import sys
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume import Augmented, Smooth, errors, models
from relume.engine.out_of_memory import out_of_memory
from relume.engine.trace import Trace
from relume.methods import Copy, Wrapper
from relume.targets import Channel, Class, Contrast, Neuron, Segmentation
from tests.helpers.networks import Small, TwoInputs, assert_unchanged, snapshot

ALL = list(relume.METHODS)
ASKED = [*ALL, Smooth("guided_gradcam", 3, batch_size=4), Smooth("gradient", 2), Augmented("gradcam", scales=(1.5,))]


@pytest.fixture
def net():
    return Small(classes=6).double().eval()


@pytest.fixture
def x():
    return torch.randn(5, 3, 8, 8, dtype=torch.float64)


def assert_same(got, expected):
    """Every fact of the explanations, all but how many images ran at once."""
    assert list(got.maps) == list(expected.maps)
    for key in got.maps:
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(got[key], expected[key], rtol=1e-9, atol=1e-12 * scale)
    for fact in ("images", "target", "score", "scores", "versus"):
        one, other = getattr(got, fact), getattr(expected, fact)
        assert one is other is None or torch.allclose(one, other, rtol=1e-12, atol=1e-14), fact
    for fact in ("coverage", "layer", "model", "description"):
        assert getattr(got, fact) == getattr(expected, fact)
    assert (got.evidence is None) is (expected.evidence is None)
    if got.evidence is not None:
        assert got.evidence.runner_up == expected.evidence.runner_up
        for one, other in zip(got.evidence.kinds.values(), expected.evidence.kinds.values(), strict=True):
            assert list(one) == list(other)
            for key in one:
                assert one[key] == pytest.approx(other[key], abs=1e-3, nan_ok=True)  # equal values may change ranks


# --- As asked ------------------------------------------------------------------------------------------------------------

TARGETS = {
    "predicted": None,
    "a class": 2,
    "a class each": [4, 0, 2, 5, 1],
    "a tensor": torch.tensor([4, 0, 2, 5, 1]),
    "a scalar tensor": torch.tensor(3),
    "frozen": Class(torch.tensor([4, 0, 2, 5, 1])),
    "a callable": lambda out: out[:, 1] - out[:, 2],
    "a contrast": Contrast(None, lambda out: out.mean(1)),
    "a contrast each": Contrast([4, 0, 2, 5, 1], torch.tensor([1, 1, 1, 1, 2])),
    "a channel": Channel("conv2", 3),
    "a neuron": Neuron("conv2", 3, (1, 2)),
    "the highest neuron": Neuron("conv2", 3),
    "neurons that are decided": Neuron("conv2", 3, places=torch.tensor([0, 9, 3, 7, 60])),
}


@pytest.mark.parametrize("name", TARGETS)
def test_parts_equal_the_whole(net, x, name):
    target = TARGETS[name]
    asked = ["gradient", "guided_backprop", Smooth("deconvnet", 3)] if isinstance(target, Channel | Neuron) else ASKED
    whole = relume.explain(net, x, target, asked, "body")
    for size in (1, 2):
        parts = relume.explain(net, x, target, asked, "body", batch_size=size)
        assert_same(parts, whole)
        assert parts.batch_size == size
        assert f"explained {size} at a time" in str(parts)
    assert whole.batch_size is None
    assert "at a time" not in str(whole)


def test_several_targets_and_what_every_part_holds(net, x):
    before = snapshot(net.train())
    targets = [None, [4, 0, 2, 5, 1], Contrast(None, lambda out: out[:, 0] * 0 + 1), Channel("conv2", 0)]
    whole = relume.compare(net, x, targets, ["gradient", "guided_backprop"], evidence="full")
    parts = relume.compare(net, x, targets, ["gradient", "guided_backprop"], batch_size=2, evidence="full")
    assert len(parts) == 4
    for one, other in zip(parts, whole, strict=True):
        assert_same(one, other)
    assert len({e.images.data_ptr() for e in parts}) == 1
    with pytest.raises(errors.InputError, match="one at least"):
        relume.compare(net, x, [], ["gradient"], batch_size=2)
    assert_unchanged(before, snapshot(net))
    assert_same(parts[1][2:4], whole[1][2:4])
    assert parts[0].evidence.runner_up is not None
    e = parts[0]
    assert e.evidence.edges["gradient"][3] == pytest.approx(
        relume.explain(net, x[3:4], None, ["gradient"]).evidence.edges["gradient"][0]
    )


def test_a_batch_no_larger_than_batch_size_runs_at_once(net, x):
    for size in (5, 8):
        e = relume.explain(net, x, 1, ["gradient"], batch_size=size)
        assert e.batch_size is None


@pytest.mark.parametrize("shape", ["one for all", "one each"])
def test_masks_are_cut_with_their_images(shape):
    net, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).double(),
        torch.randn(5, 3, 6, 6).double(),
    )
    mask = torch.rand(5, 6, 6) > 0.5 if shape == "one each" else torch.rand(6, 6) > 0.5
    whole = relume.explain(net, x, Segmentation(1, mask), ["guided_backprop"])
    assert_same(relume.explain(net, x, Segmentation(1, mask), ["guided_backprop"], batch_size=2), whole)
    with pytest.raises(errors.TargetError, match="2 regions were given for 5 samples"):
        relume.explain(net, x, Segmentation(1, torch.ones(2, 6, 6)), ["guided_backprop"], batch_size=2)


def test_other_inputs_are_cut_where_they_have_a_row_for_each_image():
    net = TwoInputs().double()
    image, other = torch.randn(2, 3, 3, 6, 6, dtype=torch.float64)
    kind = torch.tensor([1, 4, 0])
    for inputs in ((image, kind), {"kind": kind, "image": image, "other": other, "scale": 2.0}):
        for wrt in (None, "other") if isinstance(inputs, dict) else (None, 0):
            whole = relume.explain(net, inputs, [0, 2, 1], ["guided_backprop", Smooth("gradient", 2)], wrt=wrt)
            parts = relume.explain(net, inputs, [0, 2, 1], ["guided_backprop", Smooth("gradient", 2)], wrt=wrt, batch_size=2)
            assert_same(parts, whole)


def test_what_belongs_to_all_images_is_handed_on():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, x, weights, rows, name):
            assert (len(weights), name) == (7, "all")
            assert len(rows["each"][0]) == len(x)
            return self.head(F.relu(x).mean((2, 3)) * rows["each"][0][:, None] + weights.mean())

    inputs = (torch.randn(4, 3, 5, 5), torch.randn(7), {"each": [torch.randn(4)]}, "all")
    net = Mixed()
    assert_same(relume.explain(net, inputs, 1, ["gradient"], batch_size=3), relume.explain(net, inputs, 1, ["gradient"]))


def test_a_generator_of_ones_own_draws_as_for_the_whole(net, x):
    def asked(generator):
        return [Smooth("gradient", 3, generator=generator), Smooth("deconvnet", 2, 0.3, generator=generator)]

    one, other = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    whole = relume.explain(net, x, 1, asked(one))
    assert_same(relume.explain(net, x, 1, asked(other), batch_size=2), whole)
    assert torch.equal(one.get_state(), other.get_state())


@dataclasses.dataclass(frozen=True)
class Noisy(Wrapper):
    generator: torch.Generator | None = None

    @property
    def maps(self):
        return (self.derived("noisy", "noisy {}"),)

    def copies(self, images):
        yield Copy(images + torch.rand((), generator=self.generator))

    def reduce(self, moments):
        return [moments[0].mean]


class Declared(Noisy):
    @property
    def generators(self):
        return (self.generator,)


@pytest.mark.parametrize(("kind", "draws"), [(Noisy, 3), (Declared, 1)])
def test_only_generators_that_a_wrapper_names_begin_anew_with_each_part(net, x, kind, draws):
    """An attribute that happens to be called so is the caller's own business."""
    generator, same = (torch.Generator().manual_seed(7) for _ in range(2))
    relume.explain(net, x, 1, [kind("gradient", generator=generator)], batch_size=2)
    torch.rand(draws, generator=same)
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=same))


def test_no_more_than_batch_size_runs_at_once_copies_included(net, x):
    ran = []
    net.register_forward_pre_hook(lambda _, args: ran.append(len(args[0])))
    relume.explain(net, x, 1, [Smooth("gradient", 5, batch_size=8)], batch_size=4)
    assert ran == [4] + 5 * [4] + [1] + [4, 1]
    ran.clear()
    e = relume.explain(net, x[:1], 1, [Smooth("gradient", 5, batch_size=8)], batch_size=2)
    assert ran == [1, 2, 2, 1]
    assert e.batch_size == 2


def test_the_layer_chosen_with_the_first_part_is_read_in_every_other(net, x, monkeypatch):
    asked, run = [], Trace.run.__func__
    monkeypatch.setattr(
        Trace,
        "run",
        classmethod(lambda cls, model, inputs, reading: asked.append(reading.layers) or run(cls, model, inputs, reading)),
    )
    e = relume.explain(net, x, 1, ["gradcam"], batch_size=2)
    assert asked == [None, [e.layer], [e.layer]]


def test_coverage_is_that_of_all_parts(net, x):
    assert relume.coverage(net, x, batch_size=2) == relume.coverage(net, x)

    def uneven(x):
        y = F.relu(x)
        return (F.gelu(y) if len(x) == 1 else F.relu(y)).flatten(1)

    rows = {row.kind: row.count for row in relume.coverage(uneven, x, 1, batch_size=2).rows}
    assert rows == {"relu": 2, "gelu": 1}


def test_a_runner_up_without_a_map_leaves_no_comparison_for_any_image():
    """As for all images at once; here its gradient overflows for a black image."""

    def network(x):
        mean = x.mean((1, 2, 3))
        steep = torch.where(mean == 0, 1e30, 1.0)
        return torch.stack([mean + 9, mean * steep * steep], 1)

    x = torch.rand(3, 3, 6, 6)
    x[2] = 0
    whole = relume.explain(network, x, 0, ["gradient"], evidence="full")
    assert (whole.evidence.runner_up, whole.evidence.classes) == (None, {})
    assert relume.explain(network, x[:2], 0, ["gradient"], evidence="full").evidence.runner_up == (1, 1)
    assert_same(relume.explain(network, x, 0, ["gradient"], batch_size=2, evidence="full"), whole)


def test_every_door_takes_a_batch_size(net, x):
    for kind in (relume.Gradient, relume.GuidedBackpropagation, relume.GradCAM, relume.GuidedGradCAM):
        attribution = kind(net, "body") if "CAM" in kind.__name__ else kind(net)
        torch.testing.assert_close(
            attribution.attribute(x, [4, 0, 2, 5, 1], batch_size=2), attribution.attribute(x, [4, 0, 2, 5, 1])
        )
    opened = models.open_model("demo")
    photos = [relume.demo.draw_scene(seed).picture for seed in range(3)]
    whole, parts = opened.explain(photos), opened.explain(photos, batch_size=2)
    torch.testing.assert_close(parts["gradcam"], whole["gradcam"], rtol=1e-3, atol=1e-5)
    assert parts.batch_size == 2
    assert parts.provenance["model"] == "demo"


@pytest.mark.parametrize("size", [0, -1, True, 2.5, "4"])
def test_batch_size_is_a_number_of_images(net, x, size):
    with pytest.raises(errors.InputError, match=f"how many images run at once, one at least, or None for all; got {size!r}"):
        relume.explain(net, x, 1, batch_size=size)


def test_targets_for_another_number_of_images(net, x):
    for target in ([1, 2], [1, 2, 3, 4, 5, 0], torch.tensor([1, 2]), [1]):
        with pytest.raises(errors.TargetError, match=f"{len(target)} targets were given for 5 samples"):
            relume.explain(net, x, target, batch_size=2)
    with pytest.raises(errors.TargetError, match="got 'cat'"):
        relume.explain(net, x, "cat", batch_size=2)
    with pytest.raises(errors.TargetError, match="class 1 of image 0 is contrasted with itself") as caught:
        relume.explain(net, x, Contrast([4, 0, 2, 1, 1], 1), ["gradient"], batch_size=3)
    assert caught.value.__notes__ == ["(images are counted from image 3: they were explained 3 at a time)"]


def test_inputs_that_are_none_say_so_with_a_batch_size_too(net):
    for inputs in ("dog.jpg", torch.zeros(2, 3, dtype=torch.int64), torch.zeros(0, 3, 8, 8)):
        with pytest.raises(errors.InputError) as whole:
            relume.explain(net, inputs, 1)
        with pytest.raises(errors.InputError) as parts:
            relume.explain(net, inputs, 1, batch_size=2)
        assert str(parts.value) == str(whole.value)


# --- Where memory runs out -----------------------------------------------------------------------------------------------

CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
ERRORS = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "machine": lambda: RuntimeError(CPU),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    "python": MemoryError,
}


class Limited(nn.Module):
    """``Small`` with room for so many images: where more of them run ``when``, memory runs out."""

    def __init__(self, room, when="forward", error=ERRORS["device"]):
        super().__init__()
        self.net, self.room, self.when, self.error = Small(classes=6).double(), room, when, error

    def forward(self, x):
        RAN.append(len(x))
        y = self.net(x)
        if len(x) > self.room and self.when == "forward":
            raise self.error()
        return Backward.apply(y, self) if self.when == "backward" else y


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, limited):
        ctx.limited = limited
        return y * 1

    @staticmethod
    def backward(ctx, g):
        if len(g) > ctx.limited.room:
            raise ctx.limited.error()
        return g, None


RAN = []


@pytest.fixture(autouse=True)
def _none_ran():
    RAN.clear()


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_a_batch_that_does_not_fit_is_halved_and_said(x, when, kind):
    net = Limited(1, when, ERRORS[kind]).eval()
    asked = ([4, 0, 2, 5, 1], ["guided_backprop", "gradcam"], "net.body")
    with pytest.warns(UserWarning, match="ran out") as caught:
        e = relume.explain(net, x, *asked)
    what = "memory of the device" if kind == "device" else "memory"
    assert [str(warning.message) for warning in caught] == [
        f"{what} ran out on 5 images at once, and they were explained 1 at a time; give batch_size=1 to begin with that"
    ]
    assert caught[0].filename == __file__
    assert RAN == [5, 2, 1, 1, 1, 1, 1]
    assert e.batch_size == 1
    net.room = 99
    assert_same(e, relume.explain(net, x, *asked))


def test_what_fitted_is_kept_when_a_later_part_does_not(x):
    net = Limited(3).eval()
    net.error = lambda: torch.OutOfMemoryError("CUDA out of memory")
    net.register_forward_hook(lambda *_: limit(net))

    def limit(net):
        if RAN == [5, 2, 2]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.warns(UserWarning, match="explained 1 at a time"):
        e = relume.explain(net, x, 1, ["gradient"])
    assert RAN == [5, 2, 2, 1, 1, 1]
    net.room = 99
    assert_same(e, relume.explain(net, x, 1, ["gradient"]))


def test_copies_are_halved_too_and_their_noise_stays(x):
    def asked():
        return [Smooth("gradient", 3, generator=torch.Generator().manual_seed(3))]

    net, said = Limited(2).eval(), "ran out on 8 images at once, and they were explained 2 at a time"
    with pytest.warns(UserWarning, match=said):
        e = relume.explain(net, x, 1, asked())
    assert RAN == [5, 4, 2, 2, 2, 2, 2, 2, 2, 2, 1, 2, 1]
    RAN.clear()
    with pytest.warns(UserWarning, match=said):
        relume.explain(net, x[:1], 1, asked())
    assert RAN == [1, 3, 1, 3, 1, 2, 1]
    net.room = 99
    assert_same(e, relume.explain(net, x, 1, asked()))


def test_memory_that_a_larger_copy_lacks_is_no_fault_of_its_size(x):
    def picky(images):
        if images.shape[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.relu().flatten(2).mean(2)

    with pytest.raises(torch.OutOfMemoryError):
        relume.explain(picky, x[:1], 1, [Augmented("gradient", scales=(2,))])


def test_it_is_recorded_where_results_are_kept(x, tmp_path):
    with pytest.warns(UserWarning, match="ran out"):
        e = relume.explain(Limited(2).eval(), x, 1, ["gradient"])
    assert "Limited, explained 2 at a time\n" in str(e)
    e.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "explanation.json").read_text())["batch_size"] == 2
    assert relume.Explanation.load(tmp_path / "out").batch_size == 2


def test_coverage_is_halved_too(x):
    net = Limited(2).eval()
    with pytest.warns(UserWarning, match="explained 2 at a time") as caught:
        found = relume.coverage(net, x)
    assert len(caught) == 1
    assert found == relume.coverage(net, x[:1])


def test_one_image_that_does_not_fit_is_the_original_error(x):
    given = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    net = Limited(0, error=lambda: given).eval()
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate") as caught:
        relume.explain(net, x, 1, ["gradient"])
    assert caught.value is given
    assert caught.value.__notes__[-1].startswith("(relume explained one image alone when memory ran out; give a smaller image")
    assert RAN == [5, 2, 1]


def test_a_batch_size_that_does_not_fit_is_the_original_error(x):
    with pytest.raises(torch.OutOfMemoryError) as caught:
        relume.explain(Limited(2).eval(), x, 1, ["gradient"], batch_size=4)
    assert "explained 4 images at once when memory ran out; give a smaller batch_size than 4" in caught.value.__notes__[-1]
    assert RAN == [4]


@pytest.mark.parametrize("target", [lambda out: out[:, 1], Contrast(1, lambda out: out[:, 2])])
def test_a_callable_may_count_on_all_images_so_it_is_asked_for(x, target):
    net = Limited(2).eval()
    with pytest.raises(torch.OutOfMemoryError) as caught:
        relume.explain(net, x, target, ["gradient"])
    assert "a callable target may count on all of its images; give batch_size=2 if yours" in caught.value.__notes__[-1]
    assert RAN == [5]
    parts = relume.explain(net, x, target, ["gradient"], batch_size=2)
    net.room = 99
    assert_same(parts, relume.explain(net, x, target, ["gradient"]))


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch: memory format"), ValueError("memory"), KeyError("x"), errors.ModelError("no")]
)
def test_nothing_else_is_caught(x, error):
    def raise_it():
        raise error

    with pytest.raises(type(error)) as caught:
        relume.explain(Limited(0, error=raise_it).eval(), x, 1, ["gradient"])
    assert caught.value is error
    assert RAN == [5]
    assert not out_of_memory(error)


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize("tangled", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_the_graph_that_did_not_fit_is_gone_before_the_next(x, tangled, when, held):
    """Also where the network refers to itself, and where somebody keeps the error, and with it the frames that it passed."""
    graphs, alive = [], []

    class Marker:
        pass

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            alive.append(sum(graph() is not None for graph in graphs))
            ctx.marker = Marker()
            graphs.append(weakref.ref(ctx.marker))
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g

    class Marking(Limited):
        def forward(self, x):
            self.seen = Marked.apply(x)  # the replica holds the graph, and itself where it is tangled
            return super().forward(self.seen)

    errors_kept = []

    def error():
        errors_kept.extend([ERRORS["machine"]()] * held)
        return errors_kept[-1] if held else ERRORS["machine"]()

    net = Marking(1, when, error).eval()
    if tangled:
        net.again = lambda: net
    gc.disable()  # only what is asked for is collected
    try:
        with pytest.warns(UserWarning, match="ran out"):
            relume.explain(net, x[:4], 1, ["gradient"], evidence=None)
    finally:
        gc.enable()
    assert RAN[:3] == [4, 2, 1]
    assert alive[:3] == [0, 0, 0]


REAL = """
import resource, torch, relume
torch.manual_seed(0)

def network(x):
    for _ in range(16):  # no convolution: its library says otherwise that memory ran out
        x = torch.relu(x * 1.5 - 0.1)
    return x.mean((2, 3))

x = torch.randn(64, 3, 128, 128)
expected = relume.explain(network, x, 1, ["guided_backprop"], batch_size=4)["guided_backprop"]
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 160 * 2**20, resource.RLIM_INFINITY))
e = relume.explain(network, x, 1, ["guided_backprop"])
assert torch.allclose(e["guided_backprop"], expected, rtol=1e-3, atol=1e-9)
print(e.batch_size)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_memory_that_really_runs_out():
    run = subprocess.run(
        [sys.executable, "-c", REAL],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) in {2, 4, 8, 16, 32}
    assert "UserWarning: memory ran out on 64 images at once" in run.stderr
