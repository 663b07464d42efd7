"""The table: every target and method of every form of a network, by the number of axes; each map is that of its twin."""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed
import torch.utils.checkpoint
from torch import nn

import relume
from relume import rules
from relume.errors import GraphError, HiddenRegionError, LayerError
from relume.methods import Gradients
from relume.models.libraries import import_torchvision
from relume.portable.flat_graph import Run, flat_graph
from relume.targets import (
    Binary,
    Channel,
    Contrast,
    Detection,
    Embedding,
    Nearest,
    Neuron,
    Probability,
    Regression,
    Segmentation,
    as_target,
)
from tests.helpers.heads import Mean, headed, images
from tests.reference import targets as written
from tests.reference import twin

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:.*torch.export:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),  # that torch.compile looks at itself
]

METHODS = list(relume.METHODS)
LAYERED = [key for key, method in relume.METHODS.items() if method.needs_layer]
GUIDED = [key for key, method in relume.METHODS.items() if any(rule is not rules.gradient for _, rule in method.needs)]
AXES = (1, 2, 3, "tokens")

# --- Targets: each with its score written out --------------------------------------------------------------------------------

REFERENCE = torch.tensor([0.3, -1.0, 0.5, 0.2, 0.9], dtype=torch.float64)
BOX = (2.0, 1.0, 4.5, 5.0)


def of_image(score):
    """The scores of a network's outputs, from the score of image ``i``."""
    return lambda net, x: torch.stack([score(outputs, i) for outputs in [net(x)] for i in range(len(x))])


def of_boxes(kind, score, *args):
    return of_image(lambda outputs, i: score(*written.read(outputs, i, kind), *args))


def of_body(score):
    """The scores of a unit, from the maps of ``body``, in which tokens lie where their patches were."""
    return lambda net, x: score(on_grid(net.body(net.stem(x))))


def on_grid(values):
    """Tokens ``(N, 17, channels)`` of 4 × 4 patches and a class token as a map; all else as it is."""
    return (
        torch.stack([values[:, 1 + 4 * i : 5 + 4 * i] for i in range(4)], 1).movedim(3, 1)
        if values.ndim == 3 and values.shape[1] == 17
        else values
    )


def predicted(y, i):
    return int(y[i].argmax())


# head: {name: (the target, its scores)}
TARGETS = {
    "classes": {
        "class": (2, of_image(lambda y, i: y[i, 2])),
        "class each": ([1, 0, 3], of_image(lambda y, i: y[i, (1, 0, 3)[i]])),
        "predicted": (None, of_image(lambda y, i: y[i, predicted(y, i)])),
        "callable": (lambda y: y[:, 1] * y[:, 2], of_image(lambda y, i: y[i, 1] * y[i, 2])),
        "probability": (Probability(2, activation="softmax"), of_image(lambda y, i: written.softmax(y[i], 2))),
        "predicted probability": (
            Probability(activation="sigmoid"),
            of_image(lambda y, i: 1 / (1 + (-y[i, predicted(y, i)]).exp())),
        ),
        "several": (Contrast(1, [0, 3], 0.5), of_image(lambda y, i: written.contrast(y[i], 1, [0, 3], 0.5))),
        "nearest": (
            Contrast(None, Nearest(2), gamma=0.6),
            of_image(lambda y, i: written.contrast(y[i], c := predicted(y, i), written.nearest(y[i], c, 2), 0.6)),
        ),
        "channel": (Channel("body", 2), of_body(lambda maps: maps[:, 2].flatten(1).mean(1))),
        "channels": (Channel("body", slice(1, 4)), of_body(lambda maps: maps[:, 1:4].flatten(1).mean(1))),
        "highest": (Neuron("body", 3), of_body(lambda maps: maps[:, 3].flatten(1).amax(1))),
    },
    "one": {
        "yes": (Binary(True), of_image(lambda y, i: y[i, 0])),
        "no": (Binary(False), of_image(lambda y, i: -y[i, 0])),
        "down": (Regression("down"), of_image(lambda y, i: -y[i, 0])),
        "towards": (Regression(0.5), of_image(lambda y, i: -((y[i, 0] - 0.5) ** 2))),
    },
    "embedding": {
        "cosine": (Embedding(REFERENCE), of_image(lambda y, i: written.cosine(y[i], REFERENCE))),
        "dot": (Embedding(REFERENCE, "dot"), of_image(lambda y, i: (y[i] * REFERENCE).sum())),
        "a reference each": (
            Embedding(torch.stack([REFERENCE, -REFERENCE, REFERENCE.flip(0)])),
            of_image(lambda y, i: written.cosine(y[i], [REFERENCE, -REFERENCE, REFERENCE.flip(0)][i])),
        ),
    },
    "pixels": {"predicted pixels": (Segmentation(1), of_image(lambda y, i: written.pixels_of(y[i], 1)))},
    **{
        kind: {
            "best": (Detection(1), of_boxes(kind, written.best_of_class, 1)),
            "box": (Detection(1, box=BOX), of_boxes(kind, written.best_overlap, 1, BOX)),
            "sum": (Detection(1, reduce="sum"), of_boxes(kind, written.sum_of_class, 1)),
        }
        for kind in ("yolo5", "yolo8", "detr", "listed")
    },
}


@functools.cache
def expected(head, axes):
    """The twin's scores ``(N,)`` and maps of each target, in float64."""
    net, x = headed(head, axes), images(axes)
    results = {}
    for name, (_, scores) in TARGETS[head].items():

        def column(y, scores=scores):
            return scores(net, y)[:, None]

        results[name] = column(x)[:, 0].detach(), twin.every_map(column, net.stem, x, [0] * len(x), on_grid)
    return results


# --- Forms -------------------------------------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    """A part of a network, computed again in the backward pass."""

    def __init__(self, part, *, reentrant=False):
        super().__init__()
        self.part, self.reentrant = part, reentrant

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.part, x, use_reentrant=self.reentrant)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class Halved(nn.Module):
    """A part of a network, with a function that the graph does not show after it."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return Doubled.apply(self.part(x)) / 2


def with_body(change):
    """A form in which the body is another module."""

    def make(net, _x, _folder):
        net.body = change(net.body)
        return net

    return make


def hooked(net, _x, _folder):
    net.end.register_forward_hook(lambda _m, _a, out: out * 1.0)
    net.stem.register_full_backward_hook(lambda *_: None)
    return net


def distributed(net, _x, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(net)


def low_rank(net, _x, _folder):
    import_torchvision()  # which it imports, and which needs help beside a CPU-only torch
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(net, peft.LoraConfig(target_modules=["end"], init_lora_weights=True)).eval()


def compiled_function(net, _x, _folder):
    torch._dynamo.reset()  # which compiles a function anew only so many times
    return torch.compile(net.forward, backend="aot_eager")


def functional(net, _x, _folder):
    weights = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return lambda x: torch.func.functional_call(net, weights, (x,))


def frozen(net, _x, _folder):
    return net.requires_grad_(requires_grad=False)


def called_five_times(net, x, _folder):
    scripted = torch.jit.script(net)
    for _ in range(5):
        scripted(x.clone().requires_grad_()).sum().backward()
    return scripted


@dataclass(frozen=True)
class Form:
    """A form of a network.

    ``make`` makes it, of network, images and a folder. ``layers`` gives the names of "stem" and "body" in it by the number of
    axes; None where no layer can be read. ``hides`` says whether rules are refused: "never", "always", or "maybe" where torch
    may have fused operations by then; or "everything" is. ``within`` is the relative error allowed. ``few`` are the forms that
    take long to make: they have the classes of each number of axes, and every head of pictures.
    """

    make: Callable[..., Any]
    layers: Mapping[Any, tuple[str, str]] | None = field(default_factory=lambda: dict.fromkeys(AXES, ("stem", "body")))
    hides: str = "never"
    within: float = 1e-9
    few: bool = False
    heads: tuple[str, ...] = tuple(TARGETS)


#: The names that "stem" and "body" have in a graph, by the number of axes.
IN_GRAPH = dict.fromkeys((1, 2, 3), ("stem.2", "body")) | {"tokens": ("add", "add_2")}
IN_EXPORT = {axes: ("relu_", f"conv{axes}d_1") for axes in (1, 2, 3)} | {"tokens": ("add", "add_2")}
SCRIPTABLE = ("classes", "one", "embedding", "pixels")

FORMS = {
    "plain": Form(lambda net, *_: net),
    "in training mode": Form(lambda net, *_: net.train()),
    "without gradients of weights": Form(frozen),
    "compiled": Form(lambda net, *_: torch.compile(net, backend="aot_eager")),
    "part compiled": Form(with_body(lambda body: torch.compile(body, backend="aot_eager"))),
    "data parallel": Form(lambda net, *_: nn.DataParallel(net)),
    "distributed": Form(distributed),
    "symbolically traced": Form(
        lambda net, *_: torch.fx.symbolic_trace(net), IN_GRAPH, heads=tuple(TARGETS.keys() - {"listed"})
    ),
    "exported": Form(lambda net, x, _: torch.export.export(net, (x,)).module(), IN_EXPORT, few=True),
    "with user hooks": Form(hooked),
    "low-rank adapted": Form(low_rank, dict.fromkeys(AXES, ("base_model.model.stem", "base_model.model.body")), few=True),
    "checkpointed": Form(with_body(Checkpointed)),
    "checkpointed, reentrant": Form(with_body(lambda body: Checkpointed(body, reentrant=True)), hides="everything"),
    "with a custom function": Form(with_body(Halved)),
    "functional call": Form(functional, None),
    "method": Form(lambda net, *_: net.forward, None),
    "compiled function": Form(compiled_function, None, hides="always", heads=("classes", "pixels", "yolo8"), few=True),
    "traced": Form(
        lambda net, x, _: torch.jit.trace(net, x, strict=False, check_trace=False),
        None,
        hides="maybe",
        heads=tuple(TARGETS.keys() - {"listed"}),
    ),
    "scripted": Form(lambda net, *_: torch.jit.script(net), None, hides="maybe", heads=SCRIPTABLE, few=True),
    "scripted, called five times": Form(called_five_times, None, hides="maybe", heads=SCRIPTABLE, few=True),
    "frozen": Form(lambda net, *_: torch.jit.freeze(torch.jit.script(net)), None, hides="maybe", heads=SCRIPTABLE, few=True),
    "prepared": Form(lambda net, x, _: relume.prepare(net, x)),
    "prepared, lean": Form(lambda net, x, _: relume.prepare(net, x, lean=True)),
    "single precision": Form(lambda net, *_: net.float(), within=0.05, few=True),
}


def has_row(name, head, axes):
    form = FORMS[name]
    if head not in form.heads or (form.few and head != "classes" and axes != 2):
        return False
    return axes in (2, "tokens") or head in ("classes", "one", "embedding") or (head == "pixels" and axes == 3)


ROWS = [(name, head, axes) for name in FORMS for head in TARGETS for axes in AXES if has_row(name, head, axes)]


def target_in(target, body):
    """The target of a form in which the layer "body" is called otherwise."""
    return target.placed(body) if body and getattr(target, "layer", None) is not None else target


@pytest.fixture
def passes(monkeypatch):
    """Counts forward passes, and backward passes of scores: how tokens lie in an image is asked of the patches alone."""
    forward, backward, counted = relume.engine.trace.returned, relume.engine.trace.gradients, {"forward": 0, "backward": 0}

    def returned(*args):
        counted["forward"] += 1
        return forward(*args)

    def gradients(*args, **kwargs):
        counted["backward"] += 1
        return backward(*args, **kwargs)

    monkeypatch.setattr(relume.engine.trace, "returned", returned)
    monkeypatch.setattr(relume.engine.trace, "gradients", gradients)
    yield counted
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("name", "head", "axes"), ROWS)
def test_every_target_and_method_is_its_twin_or_refused(name, head, axes, tmp_path, passes):
    """In one call: one forward pass, and one backward pass for each rule and target."""
    form, x = FORMS[name], images(axes)
    dtype = torch.float32 if form.within > 1e-6 else torch.float64
    model, results = form.make(headed(head, axes), x, tmp_path), dict(expected(head, axes))
    stem, body = form.layers[axes] if form.layers else (None, None)
    methods = [key for key in METHODS if form.layers or key not in LAYERED]
    targets = {key: target_in(target, body) for key, (target, _) in TARGETS[head].items()}
    if not form.layers:
        units = [target for target in targets.values() if getattr(target, "layer", None) is not None]
        for target, method in ((next(iter(targets.values())), "gradcam"), *((unit, "gradient") for unit in units[:1])):
            with pytest.raises(LayerError):
                relume.explain(model, x, target, [method], "stem" if method == "gradcam" else None)
        targets = {key: target for key, target in targets.items() if target not in units}
    passes.update(forward=0, backward=0)
    try:
        explained = relume.compare(model, x.to(dtype), targets.values(), methods, stem, evidence=None)
        assert form.hides in ("never", "maybe")
    except HiddenRegionError:
        assert form.hides != "never"
        if form.hides == "everything":
            return
        methods = [key for key in methods if key not in GUIDED]
        passes.update(forward=0, backward=0)
        explained = relume.compare(model, x.to(dtype), targets.values(), methods, stem, evidence=None)
    kinds = {rule for key in methods for _, rule in relume.METHODS[key].needs}
    assert passes == {"forward": 1, "backward": len(kinds) * len(targets)}
    for key, e in zip(targets, explained, strict=True):
        score, maps = results[key]
        assert_close(e.score, score, form.within, key)
        for method in methods:
            assert_close(e[method], maps[method], form.within, f"{key}, {method}")


def assert_close(got, wanted, within, what):
    """To a share of the highest magnitude, which is not zero."""
    assert wanted.any(), what
    assert got.shape == wanted.shape, what
    assert (got - wanted).abs().max() <= within * wanted.abs().max(), what


@pytest.mark.parametrize(("head", "axes"), [("classes", 1), ("classes", "tokens"), ("yolo8", 2), ("pixels", 3)])
def test_a_flat_graph_of_every_method_is_its_twin(head, axes):
    """A layer of tokens is refused, since how they lie in the image is found from values; the other methods have none."""
    net, x = headed(head, axes), images(axes)
    key, (target, _) = next(iter(TARGETS[head].items()))
    target = as_target(target).known(x.shape[2:], "none").frozen(net(x), len(x))

    def explained(x, methods, named):
        run, inputs, layers = Run(net, x, named), {}, {}
        score = target.scores(run.outputs)
        for rule in (rules.gradient, rules.deconvnet, rules.guided):
            inputs[rule], *layers[rule] = run.pull(score, rule)
        gradients = Gradients(inputs, layers, run.layers, "mean", x)
        return score, *(relume.METHODS[method].compute(gradients) for method in methods)

    methods = METHODS
    if axes == "tokens":
        with pytest.raises(GraphError, match="depends on the values in the images"):
            flat_graph(lambda y: explained(y, ["gradient"], ["stem"]), x)
        methods = [method for method in METHODS if method not in LAYERED]
    score, maps = expected(head, axes)[key]
    named = [] if axes == "tokens" else ["stem"]
    got, *flat = flat_graph(lambda y: explained(y, methods, named), x)(x)
    assert_close(got, score, 1e-9, key)
    for method, values in zip(methods, flat, strict=True):
        assert_close(values, maps[method], 1e-9, method)


def most_bytes(run):
    """The most bytes of tensors that torch held at once while ``run`` ran, beyond those from before."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        run()
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(changes))


def test_every_method_and_several_targets_hold_one_graph():
    """Beside it only their maps, and what one formula makes of them."""
    net, x = (
        nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(12))),
        torch.rand(1, 3, 64, 64),
    )
    whole = nn.Sequential(net, nn.Flatten(2), Mean(1), nn.Linear(3, 4)).eval()

    def bytes_of(methods, targets):
        return most_bytes(lambda: relume.compare(whole, x, targets, methods, "0.5", evidence=None))

    one, every, several = (bytes_of(*asked) for asked in ((["guided_gradcam"], [1]), (METHODS, [1]), (METHODS, [1, 2, 3])))
    image = x.numel() * x.itemsize
    assert one <= every < one + 16 * image
    assert several - every < 2 * 16 * image
