"""Compiled passes against the ordinary road: the same maps, scores, coverage and errors, or a warning that says why not.

Everything runs on the CPU; where there is a CUDA device, it runs there too, as CUDA graphs.
"""

import copy
import os
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume import rules
from relume.errors import HiddenRegionError, InputError, LayerError, NoRectifierError, TargetError
from relume.methods.averaged import Augmented, Smooth
from relume.portable.compiled import Compiled
from relume.portable.flat_graph import flatten
from relume.portable.planned import as_it_is, inductor
from relume.targets.base import Channel, Contrast, Neuron, Segmentation
from tests.helpers.networks import ResNet20, Small, assert_unchanged, snapshot, torchvision_network

METHODS = list(relume.METHODS)


def explained_by(model, images, **options):
    return relume.explain(model, images, **{"methods": METHODS, **options})


def assert_same(found, expected, within=1e-9):
    assert found.maps.keys() == expected.maps.keys()
    for method, values in expected.maps.items():
        assert torch.linalg.vector_norm(found[method] - values) <= within * torch.linalg.vector_norm(values), method
    torch.testing.assert_close(found.score, expected.score, rtol=within, atol=within)
    assert found.coverage == expected.coverage
    assert found.layer == expected.layer
    assert found.model == expected.model


def assert_compiles(model, *questions, within=1e-9, **how):
    """Ask each question often enough to be compiled, and for other images then; the plans, and that they were used."""
    runs = []

    def counted(graph):
        run = how.get("backend", as_it_is)(graph)
        return lambda *inputs: (runs.append(graph), run(*inputs))[1]

    compiled = Compiled(model, **{**how, "backend": counted})
    for images, options in questions:
        for asked in (images, images, images.flip(-1)):
            runs.clear()
            assert_same(explained_by(compiled, asked, **options), explained_by(model, asked, **options), within)
        assert runs, "compiled, and not run"
    roads = list(compiled._roads.values())
    assert all(road.plan is not None and not road.refused for road in roads)
    return compiled


class Preactivated(nn.Module):
    """Rectifiers of many kinds, a skip from before one of them, a layer that is overwritten, and no batch normalisation."""

    def __init__(self):
        super().__init__()
        self.stem, self.slope = nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8)
        self.body = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1, groups=g) for g in (1, 2, 4, 8, 1)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.slope(self.stem(x))
        x = x + self.body[0](F.gelu(x))
        x = F.max_pool2d(x + self.body[1](F.silu(x)), 2)
        x = F.avg_pool2d(x + self.body[2](F.leaky_relu(x)), 2)
        x = F.relu6(self.body[3](x).clamp_(min=0) + x)
        x = torch.where(x > 1, x, x * 0.5)  # said to be not guided
        return self.head(self.body[4](x).relu_().mean((2, 3)))


class TwoHeads(nn.Module):
    """A mapping of outputs of several kinds, one of them made of another's layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3), nn.ReLU())
        self.one, self.other = nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, pixels):
        maps = self.features(pixels)
        pooled = maps.mean((2, 3))
        other = self.other(pooled)
        return {"logits": self.one(pooled), "more": (other, maps, other.argmax(1)), "name": "two heads", "count": 3}


class Tokens(nn.Module):
    """Patches, a class token, attention; the layer is chosen by what matters to the score."""

    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        block = {"dim_feedforward": 16, "dropout": 0.0, "batch_first": True, "activation": "gelu"}
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, **block) for _ in range(2)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).mT], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def images(*size, n=2):
    return torch.randn(n, 3, *(size or (16, 16)), dtype=torch.float64)


@pytest.mark.parametrize("network", [Small, Preactivated, ResNet20, Tokens], ids=lambda n: n.__name__)
def test_every_method_is_the_same(network):
    assert_compiles(network().double().eval(), (images(), {}))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v2"])
def test_networks_of_torchvision(name):
    assert_compiles(torchvision_network(name).double(), (images(64, 64, n=1), {}))


def test_a_network_in_training_mode_is_left_as_it_is():
    model = Small().double().train()
    before = snapshot(model)
    assert_compiles(model, (images(), {}))
    assert_unchanged(before, snapshot(model))


@pytest.mark.parametrize(
    "target",
    [3, [1, 2], torch.tensor([0, 4]), Contrast(None, 4), Neuron("body", 7), Channel("conv2", 2), lambda o: F.relu(o).sum(1)],
    ids=["class", "classes", "tensor", "contrast", "neuron", "channel", "callable with a rectifier"],
)
def test_every_kind_of_target(target):
    methods = METHODS if not isinstance(target, Channel) else ["gradient", "guided_backprop"]
    assert_compiles(Small().double(), (images(), {"target": target, "methods": methods}))


def test_parts_of_outputs_and_targets_that_return_what_they_are_given():
    model = TwoHeads().double()
    assert_compiles(model, (images(), {"target": Segmentation(1), "output": lambda o: o["more"][1]}))
    assert_compiles(model, (images(), {"target": 1}), (images(), {"target": 1, "output": lambda o: o["more"][0]}))
    assert_compiles(nn.Sequential(model, Last()), (images(), {"target": lambda scores: scores, "layer": "0.features.2"}))
    assert_compiles(model, (images(), {"target": lambda o: o["logits"].relu_().sum(1) + o["more"][0][:, 0]}))


class Last(nn.Module):
    def forward(self, outputs):
        return outputs["logits"][:, 0]


def test_layers_one_or_several_and_of_a_shape_that_must_be_told():
    model = Preactivated().double()
    assert_compiles(model, (images(), {"layer": "body.2"}), (images(), {"layer": ["body.1", model.body[3]], "fuse": "max"}))
    assert_compiles(
        Tokens().double().eval(), (images(), {"layer": "blocks.0", "reshape": lambda t: t[:, 1:].mT.unflatten(2, (4, 4))})
    )


def test_a_layer_chosen_for_one_kind_of_score_is_not_taken_for_another():
    model = Tokens().double().eval()
    compiled = assert_compiles(model, (images(), {}))
    with pytest.warns(UserWarning, match="the layer is chosen by what matters to the score; name it"):
        found = explained_by(compiled, images(), target=lambda o: o.sum(1))
    assert found.layer == "blocks.0"


def test_wrappers_options_and_forms_of_input():
    model = Small().double()
    assert_compiles(model, (images(), {"methods": [Smooth("guided_gradcam", 3), Augmented("gradient"), "gradcam"]}))
    assert_compiles(model, (images(), {"rectifiers": "relu"}))
    compiled = Compiled(TwoHeads().double())
    for asked in (images(), [images()], {"pixels": images()}):
        for _ in range(3):
            assert_same(explained_by(compiled, asked), explained_by(compiled._orig_mod, asked))
    assert sum(road.plan is not None for road in compiled._roads.values()) == 2  # a list of one is that one


def test_the_coverage_and_a_rule_of_ones_own():
    def half(grad_out, local):
        return local.pull(grad_out) * 0.5

    model = Preactivated().double()
    compiled, x = Compiled(model), images()
    for _ in range(3):
        assert relume.coverage(compiled, x) == relume.coverage(model, x)
        found = relume.Backpropagation(compiled, half).attribute(x)
        torch.testing.assert_close(found, relume.Backpropagation(model, half).attribute(x))
    assert any(road.plan is not None for road in compiled._roads.values())


def test_a_rule_made_anew_for_each_call_ends_on_the_plain_road():
    compiled, x = Compiled(Small().double()), images()
    rules_made = [lambda g, local: local.pull(g) for _ in range(12)]
    with pytest.warns(UserWarning, match="a rule made anew for each call is one, so make it once"):
        found = [relume.Backpropagation(compiled, rule).attribute(x) for rule in rules_made]
    assert all(torch.allclose(values, found[0]) for values in found)


def test_errors_are_those_of_the_plain_road():
    tanh = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)).double()
    compiled = Compiled(tanh)
    for _ in range(3):
        relume.explain(compiled, images(), methods=["gradient"])
        with pytest.raises(NoRectifierError):
            relume.explain(compiled, images(), methods=["guided_backprop"])
        with pytest.raises(TargetError, match="class 7 is out of range"):
            relume.explain(compiled, images(), 7, methods=["gradient"])
    compiled = Compiled(TwoHeads().double())
    for _ in range(3):
        relume.explain(
            compiled, images(), methods=["gradcam"], layer="other.1", target=lambda o: o["more"][0][:, 0], reshape=grid
        )
        with pytest.raises(LayerError, match="does not depend on layer 'other.1'"):
            relume.explain(compiled, images(), methods=["gradcam"], layer="other.1", target=1, reshape=grid)
    with pytest.raises(InputError, match="images are a tensor"):
        relume.explain(compiled, 3)


def grid(values):
    return values[..., None, None]


# --- What cannot be compiled ---------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """A small network with something odd done to its maps."""

    def __init__(self, odd):
        super().__init__()
        self.body, self.head, self.odd = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Linear(4, 3), odd

    def forward(self, x):
        return self.head(self.odd(self.body(x)).mean((2, 3)))


class Box:
    def __init__(self, values):
        self.values = values


class Boxed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Small()

    def forward(self, x):
        return Box(self.inner(x))


def looks(x):
    return x * 2 if x.mean() > 0.1 else x


def leaves_torch(x):
    return x * torch.from_numpy(x.detach().amax((0, 2, 3)).numpy().copy())[:, None, None]


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (looks, "what it does depends on the values in the images"),
        (lambda x: x[:, :, (x.sum((0, 1, 3)) > -1)], "what it does depends on the values in the images"),
        (leaves_torch, "compiled it gives other values"),
    ],
    ids=["a branch", "a choice of rows", "numpy"],
)
def test_what_cannot_be_compiled_runs_as_ever_and_is_said_once(odd, why):
    model = Odd(odd).double()
    compiled, x = Compiled(model), images()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for asked in (x, x, x - 1, x + 1):
            assert_same(explained_by(compiled, asked, layer="body.0"), explained_by(model, asked, layer="body.0"))
    assert [why in str(warning.message) for warning in said] == [True]


def test_random_numbers_are_drawn_anew():
    compiled, x = Compiled(Odd(F.dropout).double()), images()
    with pytest.warns(UserWarning, match="its forward pass draws random numbers"):
        maps = [explained_by(compiled, x, target=0, layer="body.0")["gradient"] for _ in range(4)]
    assert not any(torch.equal(maps[i], maps[i + 1]) for i in range(3))


# torch's own, on the way
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_regions_that_hide_what_they_do_are_refused_as_ever():
    compiled = Compiled(Odd(torch.compile(torch.relu, backend="aot_eager")).double())
    relume.explain(compiled, x := images(), methods=["gradient"])
    with pytest.warns(UserWarning, match="CompiledFunction hides part of it"):
        relume.explain(compiled, x, methods=["gradient"])
    for _ in range(2):
        with pytest.raises(HiddenRegionError, match="CompiledFunction hides part of the network"):
            relume.explain(compiled, x, methods=["guided_backprop"])


def test_outputs_and_inputs_of_other_forms_run_as_ever():
    model = Boxed().double()
    compiled, x = Compiled(model), images()
    with pytest.warns(UserWarning, match="it returns a Box, of which nothing tells how to make another"):
        found = [explained_by(compiled, asked, target=lambda o: o.values[:, 0]) for asked in (x, x + 1)]
    for one, asked in zip(found, (x, x + 1), strict=True):
        assert_same(one, explained_by(model, asked, target=lambda o: o.values[:, 0]))

    class Two(nn.Module):
        def forward(self, x, scale):
            return (x.relu() * scale).mean((2, 3))

    compiled = Compiled(Two())
    with pytest.warns(UserWarning, match="it takes several inputs"):
        found = [relume.explain(compiled, [x, scale], methods=["guided_backprop"]) for scale in (1.0, 2.0)]
    for one, scale in zip(found, (1.0, 2.0), strict=True):
        assert_same(one, relume.explain(Two(), [x, scale], methods=["guided_backprop"]))


def test_changes_of_the_network_are_seen():
    model = Small().double()
    compiled = assert_compiles(model, (images(), {}))
    with torch.no_grad():
        model.head[3].weight.mul_(2)
        model.bn1.running_mean.add_(1)
        model.conv2.weight = nn.Parameter(model.conv2.weight * 3)
    for _ in range(3):
        assert_same(explained_by(compiled, x := images()), explained_by(model, x))
    other = copy.deepcopy(compiled)
    assert not other._roads
    assert_same(explained_by(other, x), explained_by(model, x))


def test_as_many_forms_are_kept_as_are_worth_it():
    compiled = Compiled(Small().double())
    for size in range(12, 24):
        explained_by(compiled, images(size, size))
    assert len(compiled._roads) == 8


# --- What is kept, and how it runs ---------------------------------------------------------------------------------------


def test_no_input_of_a_convolution_is_kept():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU6(), nn.AvgPool2d(2), nn.Conv2d(8, 5, 1)
    ).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def joint(x, arriving):
        x = x.detach().requires_grad_()
        out = model(x)
        return [out.detach(), *torch.autograd.grad(out, x, arriving)]

    x, arriving = torch.randn(1, 3, 16, 16), torch.randn(1, 5, 6, 6)
    flat = flatten(joint, x, [[arriving]], 1, [1])
    out, *kept = flat.forward(x)
    assert flat.kept == len(kept)
    assert {tensor.dtype for tensor in kept} == {torch.bool}
    assert sum(tensor.numel() for tensor in kept) == 8 * 14 * 14 + 8 * 12 * 12  # a mask for each rectifier
    ((backward, reads),) = flat.backward
    expected_out, expected = joint(x, arriving)
    torch.testing.assert_close(out, expected_out, rtol=0, atol=0)
    torch.testing.assert_close(backward(*(kept[i] for i in reads), arriving)[0], expected)


def stand_in(run, inputs):
    """What a CUDA graph does: the same memory in, the same memory out, and written only when replayed."""
    outputs = [torch.full_like(found, 0) for found in run(*inputs)]

    def replay():
        for buffer, found in zip(outputs, run(*inputs), strict=True):
            buffer.copy_(found)

    return replay, outputs


def test_captured_graphs_and_two_traces_at_a_time():
    model = Preactivated().double()
    compiled = assert_compiles(model, (images(), {}), capture=stand_in)
    one, other = images(), images() + 1
    run = relume.engine.trace.Trace.run
    (x, y), (a, b) = [run(compiled, i) for i in (one, other)], [run(model, i) for i in (one, other)]
    for found, expected in ((y, b), (x, a), (y, b)):
        got, wanted = (t.grad(t.score(1), [t.images], rules.guided)[0] for t in (found, expected))
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("capture", [None, stand_in], ids=["plain", "captured"])
def test_threads_do_not_meet(capture):
    model = Small().double()
    compiled, wrong = Compiled(model, capture=capture), []
    asked = [images() for _ in range(4)]
    expected = [explained_by(model, x) for x in asked]

    def work(i):
        try:
            for _ in range(6):
                assert_same(explained_by(compiled, asked[i]), expected[i])
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert any(road.plan is not None for road in compiled._roads.values())


@pytest.mark.skipif(
    "ATEN_CPU_CAPABILITY" in os.environ, reason="Dynamo cannot trace how Inductor of torch 2.13 reads ATEN_CPU_CAPABILITY"
)
# torch's own, on the way
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_by_inductor():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten()).eval()
    x = torch.randn(1, 3, 8, 8)
    assert_compiles(model, (x, {"methods": ["guided_backprop"], "evidence": False}), within=1e-5, backend=inductor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("network", [Small, Preactivated], ids=lambda n: n.__name__)
def test_on_cuda(network):
    model, x = network().double().cuda().eval(), images().cuda()
    compiled = Compiled(model)
    for asked in (x, x, x.flip(-1), x + 1):
        assert_same(explained_by(compiled, asked), explained_by(model, asked), within=1e-6)
    assert all(road.plan._captured is not None for road in compiled._roads.values())
