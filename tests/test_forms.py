"""Forms of a network beside the table: what is refused and why, nodes as layers, devices."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume.errors import GraphError, HiddenRegionError, LayerError, ModelError
from relume.targets import Channel

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
