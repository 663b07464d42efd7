"""One table of methods and one of forms of a network: everything meets everything, and is right or refused with the reason."""

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

import relume
from relume.errors import GraphError, HiddenRegionError, LayerError, ModelError
from relume.models.libraries import import_torchvision
from relume.targets import Channel

METHODS = list(relume.METHODS)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:.*torch.export:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),  # that torch.compile looks at itself
]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class Net(nn.Module):
    """Convolutions, BatchNorm with statistics, ReLU in place, a skip, functional ReLUs above."""

    def __init__(self, block=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def features(self, x):
        return F.relu(x + self.body(x))

    def forward(self, x):
        x = self.features(self.stem(x))
        return self.head(F.relu(self.hidden(self.pool(x).flatten(1))))


class Checkpointed(Net):
    reentrant = False

    def features(self, x):
        return torch.utils.checkpoint.checkpoint(super().features, x, use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True


class WithFunction(Net):
    def features(self, x):
        return Doubled.apply(super().features(x)) / 2


def build(kind=Net):
    torch.manual_seed(5)
    net = kind()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.double().eval()


X = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def hooked(net):
    net.hidden.register_forward_hook(lambda _m, _a, out: out * 1.0)
    net.stem.register_full_backward_hook(lambda *_: None)
    return net


def called_five_times(net):
    scripted = torch.jit.script(net)
    for _ in range(5):
        scripted(X.clone().requires_grad_()).sum().backward()
    return scripted


def distributed(net, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(net)


def low_rank(net):
    import_torchvision()  # which it imports, and which needs help beside a CPU-only torch
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(net, peft.LoraConfig(target_modules=["hidden"], init_lora_weights=True)).eval()


def functional(net):
    weights = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return lambda x: torch.func.functional_call(net, weights, (x,))


def part_compiled(net):
    net.body = torch.compile(net.body, backend="aot_eager")
    return net


LAYERED = tuple(key for key, method in relume.METHODS.items() if method.needs_layer)

#: The methods by what they need: those of a group run the same passes, so that one call shows all of them.
GROUPS = {
    " and ".join(sorted(f"{rule.__name__} at the {place}" for place, rule in needs)): [
        key for key, method in relume.METHODS.items() if method.needs == needs
    ]
    for needs in dict.fromkeys(method.needs for method in relume.METHODS.values())
}

# form: (how it is made, what the layer "stem" is called there, methods refused and with what)
FORMS = {
    "plain": (lambda net, _: net, "stem", {}),
    "in training mode": (lambda net, _: net.train(), "stem", {}),
    "compiled": (lambda net, _: torch.compile(net, backend="aot_eager"), "stem", {}),
    "part compiled": (lambda net, _: part_compiled(net), "stem", {}),
    "data parallel": (lambda net, _: nn.DataParallel(net), "stem", {}),
    "distributed": (distributed, "stem", {}),
    "symbolically traced": (lambda net, _: torch.fx.symbolic_trace(net), "stem.2", {}),
    "exported": (lambda net, _: torch.export.export(net, (X,)).module(), "relu_", {}),
    "with user hooks": (lambda net, _: hooked(net), "stem", {}),
    "low-rank adapted": (lambda net, _: low_rank(net), "base_model.model.stem", {}),
    "checkpointed": (lambda _, __: build(Checkpointed), "stem", {}),
    "checkpointed, reentrant": (lambda _, __: build(Reentrant), "stem", dict.fromkeys(METHODS, HiddenRegionError)),
    "with a custom function": (lambda _, __: build(WithFunction), "stem", {}),
    "functional call": (lambda net, _: functional(net), None, dict.fromkeys(LAYERED, LayerError)),
    "method": (lambda net, _: net.forward, None, dict.fromkeys(LAYERED, LayerError)),
    "compiled function": (
        lambda net, _: torch.compile(net.forward, backend="aot_eager"),
        None,
        dict.fromkeys(LAYERED, LayerError) | dict.fromkeys(("deconvnet", "guided_backprop"), HiddenRegionError),
    ),
    "traced": (lambda net, _: torch.jit.trace(net, X), "stem", dict.fromkeys(LAYERED, LayerError)),
    "scripted": (lambda net, _: torch.jit.script(net), "stem", dict.fromkeys(LAYERED, LayerError)),
    "scripted, called five times": (lambda net, _: called_five_times(net), "stem", dict.fromkeys(LAYERED, LayerError)),
    "frozen": (lambda net, _: torch.jit.freeze(torch.jit.script(net)), "stem", dict.fromkeys(LAYERED, LayerError)),
}


@pytest.fixture(scope="module")
def expected():
    return relume.explain(build(), X, [1, 2], METHODS, "stem")


@pytest.fixture(scope="module", params=FORMS)
def form(request, tmp_path_factory):
    make, layer, refused = FORMS[request.param]
    model = make(build(), tmp_path_factory.mktemp("form"))
    yield model, layer, refused, request.param
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("group", GROUPS)
def test_every_method_in_every_form(form, group, expected):
    model, layer, refused, name = form
    methods = GROUPS[group]

    def explained():
        return relume.explain(model, X, [1, 2], methods, layer if methods[0] in LAYERED else None)

    if name.startswith(("scripted", "traced", "frozen")) and methods[0] in ("deconvnet", "guided_backprop"):
        # the executor may or may not have fused by then: right, or refused
        try:
            got = explained()
        except HiddenRegionError:
            return
    elif methods[0] in refused:
        with pytest.raises(refused[methods[0]]):
            explained()
        return
    else:
        got = explained()
    for method in methods:
        torch.testing.assert_close(got[method], expected[method], rtol=1e-10, atol=1e-13)


def test_a_layer_inside_torchscript_is_refused_with_the_reason():
    with pytest.raises(LayerError, match=r"layer 'stem' cannot be seen inside TorchScript \(the whole model\)"):
        relume.explain(torch.jit.trace(build(), X), X, 1, ["gradcam"], "stem")
    with pytest.raises(LayerError, match=r"those inside TorchScript \(the whole model\) cannot be seen"):
        relume.explain(torch.jit.trace(build(), X), X, 1, ["gradcam"])
    net = build()
    net.body = torch.jit.trace(net.body, net.stem(X))
    with pytest.raises(LayerError, match=r"'body.0' cannot be seen inside TorchScript \(body\).*candidates: .*stem"):
        relume.explain(net, X, 1, ["gradcam"], "body.0")


def test_nodes_of_an_exported_program_are_layers():
    """They are offered, chosen, and read as layers and as units."""
    net, program = build(), torch.export.export(build(), (X,)).module()
    chosen = relume.explain(program, X, 1, ["gradcam"])
    assert chosen.layer == "relu"  # the sum's, before pooling
    plain = net.features(net.stem(X))
    assert chosen["gradcam"].shape[1:] == plain.shape[2:]
    with pytest.raises(LayerError, match="candidates: .*relu"):
        relume.explain(program, X, 1, ["gradcam"], "linear")
    unit = relume.explain(program, X, Channel("relu_", 2), ["guided_backprop"])
    same = relume.explain(net, X, Channel("stem", 2), ["guided_backprop"])
    torch.testing.assert_close(unit["guided_backprop"], same["guided_backprop"], rtol=1e-10, atol=1e-13)


class Training(Net):
    def features(self, x):
        return F.dropout(super().features(x), 0.5, self.training)


def test_a_graph_made_in_training_mode_is_refused_where_it_matters():
    """Modules in a graph follow their mode; operations do what they did when the graph was made."""
    plain = relume.explain(build(), X, 1, ["gradient"])
    traced = relume.explain(torch.fx.symbolic_trace(build().train()), X, 1, ["gradient"])  # its BatchNorm is a module
    torch.testing.assert_close(traced["gradient"], plain["gradient"])
    for graph in (
        torch.fx.symbolic_trace(build(Training).train()),
        torch.export.export(build().train(), (X,)).module(),
    ):
        with pytest.raises(ModelError, match="as in training, whatever mode it is in; trace or export it after model.eval"):
            relume.explain(graph, X, 1, ["gradient"])
    dropping = torch.fx.symbolic_trace(build(Training))
    torch.testing.assert_close(relume.explain(dropping, X, 1, ["gradient"])["gradient"], plain["gradient"])


def test_a_custom_function_is_counted_as_not_guided():
    rows = {row.kind: row for row in relume.coverage(build(WithFunction), X, 1).rows}
    assert rows["Doubled"].guided is False
    assert "custom autograd.Function" in rows["Doubled"].why
    assert issubclass(HiddenRegionError, GraphError)


def test_images_go_where_the_model_is():
    """As far as a machine without another device can tell: to ``meta``, if the weights are there."""
    from relume.engine.inputs import feed, model_device

    assert model_device(build()) == torch.device("cpu")
    assert model_device(build().to("meta")) == torch.device("meta")
    mixed = build()
    mixed.head.to("meta")
    assert model_device(mixed) is None
    assert model_device(lambda x: x) is None
    x = torch.randn(1, 3)
    args, _, leaf = feed([x, torch.tensor([1])], None, torch.device("meta"))
    assert {t.device.type for t in (*args, leaf)} == {"meta"}
    args, _, leaf = feed([x], None, None)
    assert leaf.data_ptr() != x.data_ptr() != args[0].data_ptr()
