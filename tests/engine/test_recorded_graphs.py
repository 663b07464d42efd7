"""Graphs recorded in training mode are refused by what they do, however it was written; others run."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume.engine.recorded_graphs import training_node
from relume.errors import ModelError
from relume.models.libraries import import_torchvision

SAYS = "as in training, whatever mode it is in; trace or export it after model.eval"
aten = torch.ops.aten


class Net(nn.Module):
    """A map of four channels, what is tried, a linear head; statistics and states for what needs them."""

    def __init__(self, body):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))
        self.body = body

    def forward(self, x):
        return self.head(self.body(self, F.relu(self.conv(x))).flatten(2).mean(2))


def attention(net, x, dropout):
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=dropout).transpose(1, 2)


def multi_head(net, x, training):
    tokens, weight = x.flatten(2).permute(2, 0, 1), torch.eye(4)
    made = F.multi_head_attention_forward(
        tokens,
        tokens,
        tokens,
        4,
        2,
        weight.repeat(3, 1),
        None,
        None,
        None,
        False,
        0.5,
        weight,
        None,
        training,
        need_weights=False,
    )
    return made[0].permute(1, 2, 0)


def drop_path(net, x):
    keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.5)
    return x * keep


TORCHSCRIPT = ("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
TRAINING = {  # as written when it trains; False where the tracer cannot follow what is written
    "F.dropout": lambda net, x: F.dropout(x, 0.5, net.training),
    "F.dropout, in place": lambda net, x: F.dropout(x, 0.5, net.training, inplace=True),
    "F.dropout, its default": lambda net, x: F.dropout(x),
    "F.dropout1d": lambda net, x: F.dropout1d(x.flatten(2), 0.5, net.training),
    "F.dropout2d": lambda net, x: F.dropout2d(x, 0.5, net.training),
    "F.dropout3d": lambda net, x: F.dropout3d(x[:, :, None], 0.5, net.training),
    "F.alpha_dropout": lambda net, x: F.alpha_dropout(x, 0.5, net.training),
    "F.feature_alpha_dropout": lambda net, x: F.feature_alpha_dropout(x, 0.5, net.training),
    "torch.dropout": lambda net, x: torch.dropout(x, 0.5, net.training),
    "torch.dropout, by name": lambda net, x: torch.dropout(x, p=0.5, train=net.training),
    "torch.dropout_": lambda net, x: torch.dropout_(x, 0.5, net.training),
    "torch.alpha_dropout": lambda net, x: torch.alpha_dropout(x, 0.5, net.training),
    "torch.alpha_dropout_": lambda net, x: torch.alpha_dropout_(x, 0.5, net.training),
    "torch.feature_dropout": lambda net, x: torch.feature_dropout(x, 0.5, net.training),
    "torch.feature_dropout_": lambda net, x: torch.feature_dropout_(x, 0.5, net.training),
    "torch.feature_alpha_dropout": lambda net, x: torch.feature_alpha_dropout(x, 0.5, net.training),
    "torch.feature_alpha_dropout_": lambda net, x: torch.feature_alpha_dropout_(x, 0.5, net.training),
    "torch.native_dropout": lambda net, x: torch.native_dropout(x, 0.5, net.training)[0],
    "attention": lambda net, x: attention(net, x, 0.5 if net.training else 0.0),
    "attention of heads": lambda net, x: multi_head(net, x, net.training),
    "F.rrelu": lambda net, x: F.rrelu(x, training=net.training),
    "torch.rrelu": lambda net, x: torch.rrelu(x, 0.1, 0.3, net.training),
    "F.batch_norm": lambda net, x: F.batch_norm(x, net.mean, net.var, None, None, net.training),
    "torch.batch_norm": lambda net, x: torch.batch_norm(x, None, None, net.mean, net.var, net.training, 0.1, 1e-5, False),
    "torch.native_batch_norm": lambda net, x: torch.native_batch_norm(
        x, None, None, net.mean, net.var, net.training, 0.1, 1e-5
    )[0],
    "F.instance_norm": lambda net, x: F.instance_norm(x, net.mean, net.var, use_input_stats=net.training),
    "torch.instance_norm": lambda net, x: torch.instance_norm(x, None, None, net.mean, net.var, net.training, 0.1, 1e-5, False),
    "bernoulli": lambda net, x: x * torch.bernoulli(torch.full_like(x, 0.5)) if net.training else x,
    "bernoulli_": lambda net, x: drop_path(net, x) if net.training else x,
    "rand_like": lambda net, x: x * torch.rand_like(x) if net.training else x,
    "randn_like": lambda net, x: x + torch.randn_like(x) if net.training else x,
    "rand": lambda net, x: x * torch.rand(x.shape) if net.training else x,
    "randint_like": lambda net, x: x * torch.randint_like(x, 2) if net.training else x,
    "normal_": lambda net, x: x + torch.zeros_like(x).normal_(0, 1) if net.training else x,
    "uniform_": lambda net, x: x + torch.zeros_like(x).uniform_() if net.training else x,
    "exponential_": lambda net, x: x + torch.zeros_like(x).exponential_() if net.training else x,
    "normal": lambda net, x: x + torch.normal(torch.zeros_like(x), torch.ones_like(x)) if net.training else x,
    "poisson": lambda net, x: x + torch.poisson(torch.ones_like(x)) if net.training else x,
    "F.gumbel_softmax": lambda net, x: F.gumbel_softmax(x, dim=1) if net.training else x,
    "stochastic depth": lambda net, x: import_torchvision().ops.stochastic_depth(x, 0.5, "row", net.training),
}


@pytest.mark.parametrize("how", ["traced", "exported", "traced by torch.jit"])
@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.filterwarnings("ignore:.*torch.export:UserWarning", "ignore::FutureWarning", "ignore:.*dropout:UserWarning")
@pytest.mark.filterwarnings(*TORCHSCRIPT)
def test_every_spelling_is_refused_as_in_training_and_runs_as_in_evaluation(name, how):
    x = torch.randn(2, 3, 6, 6)

    def record(net):
        if how == "traced by torch.jit":
            return torch.jit.trace(net, x, check_trace=False)
        return torch.fx.symbolic_trace(net) if how == "traced" else torch.export.export(net, (x,)).module()

    net = Net(TRAINING[name])
    with pytest.raises(ModelError, match=SAYS):
        relume.explain(record(net.train()), x, 1, ["gradient"])
    if name != "F.dropout, its default":  # which is as in training whatever the mode
        got = relume.explain(record(net.eval()), x, 1, ["gradient"])["gradient"]
        torch.testing.assert_close(got, relume.explain(net, x, 1, ["gradient"])["gradient"])


@pytest.mark.filterwarnings(*TORCHSCRIPT)
def test_torchscript_inside_an_ordinary_network():
    """Traced, it is refused by what it does; scripted, it has a mode, and so have its branches."""
    x = torch.randn(2, 3, 6, 6)
    dropping = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout()).train()
    with pytest.raises(ModelError, match=SAYS):
        relume.explain(nn.Sequential(torch.jit.trace(dropping, x, check_trace=False), nn.Flatten()), x, 1, ["gradient"])
    layer = nn.GRU(6, 6, 2, dropout=0.5).train()
    with pytest.raises(ModelError, match=SAYS):
        net = Recurrent(torch.jit.trace(layer, torch.rand(6, 6, 6), check_trace=False))
        relume.explain(net, x, 1, ["gradient"])
    scripted = torch.jit.script(nn.Sequential(dropping, Branching()).train())
    got = relume.explain(nn.Sequential(scripted, nn.Flatten()), x, 1, ["gradient"])["gradient"]
    wanted = relume.explain(nn.Sequential(dropping.eval(), nn.Flatten()), x, 1, ["gradient"])["gradient"]
    torch.testing.assert_close(got, wanted)


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x[:, 0])[0].flatten(1)


class Branching(nn.Module):
    def forward(self, x):
        if self.training:
            return x * torch.rand_like(x)
        return x


def recorded(operation, *args, **kwargs):
    graph = torch.fx.Graph()
    args = [graph.placeholder(str(i)) if arg is ... else arg for i, arg in enumerate(args)]
    graph.output(graph.call_function(operation, tuple(args), kwargs))
    return training_node(graph)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning", "ignore::FutureWarning")
def test_recurrent_networks_are_told_by_mode_and_rate():
    for layer in (nn.LSTM(4, 4, 2, dropout=0.5), nn.GRU(4, 4, 2, dropout=0.5), nn.RNN(4, 4, 2, dropout=0.5)):
        net = Net(lambda _, x, layer=layer: layer(x.flatten(2).permute(2, 0, 1))[0].permute(1, 2, 0))
        net.layer, x = layer, torch.randn(2, 3, 6, 6)
        with pytest.raises(ModelError, match=SAYS):
            relume.explain(torch.export.export(net.train(), (x,)).module(), x, 1, ["gradient"])
        got = relume.explain(torch.export.export(net.eval(), (x,)).module(), x, 1, ["gradient"])["gradient"]
        torch.testing.assert_close(got, relume.explain(net, x, 1, ["gradient"])["gradient"])
    # of two signatures, one of packed sequences, the flags stand in different places
    for operation in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu):
        assert recorded(operation, ..., [...], [...], True, 2, 0.5, True, False, False)
        assert recorded(operation, ..., ..., [...], [...], True, 2, 0.5, True, False)
        for rate, mode in ((0.0, True), (0.5, False)):
            assert not recorded(operation, ..., [...], [...], True, 2, rate, mode, False, False)
            assert not recorded(operation, ..., ..., [...], [...], True, 2, rate, mode, False)


def test_what_only_looks_like_training():
    """Nothing is dropped at a rate of zero, and a norm without statistics takes those of the batch in evaluation too."""
    assert not recorded(F.dropout, ..., 0.0, True)
    assert not recorded(aten.dropout.default, ..., 0.0, True)
    assert not recorded(F.batch_norm, ..., None, None, training=True)
    assert not recorded(aten.batch_norm.default, ..., None, None, None, None, True, 0.1, 1e-5, False)
    assert not recorded(F.instance_norm, ...)
    assert not recorded(aten.instance_norm.default, ..., None, None, None, None, True, 0.1, 1e-5, False)
    assert not recorded(aten._native_batch_norm_legit.no_stats, ..., None, None, True, 0.1, 1e-5)
    assert not recorded(F.scaled_dot_product_attention, ..., ..., ...)
    assert not recorded(torch.norm, ..., 2)
    assert not recorded(F.normalize, ..., 2)
    assert recorded(aten._batch_norm_with_update.default, ..., None, None, ..., ..., 0.1, 1e-5)
    assert recorded(aten.native_dropout.default, ..., 0.5, None)
    assert recorded(aten.dropout, ..., 0.5, True)
    assert not recorded(aten.dropout, ..., 0.5, False)


def test_a_batchnorm_without_statistics_may_be_exported():
    net, x = Net(lambda net, x: net.norm(x)), torch.randn(2, 3, 6, 6)
    net.norm = nn.BatchNorm2d(4, track_running_stats=False)
    program = torch.export.export(net.eval(), (x,)).module()
    torch.testing.assert_close(
        relume.explain(program, x, 1, ["gradient"])["gradient"], relume.explain(net, x, 1, ["gradient"])["gradient"]
    )


def drawing():
    """Every operation of torch that draws from a generator or has a mode, but those that only a backward pass runs."""
    for full in torch._C._dispatch_get_all_op_names():
        name, _, overload = full.removeprefix("aten::").partition(".")
        if not full.startswith("aten::") or "backward" in name or "out" in overload or name.endswith("_out"):
            continue
        packet = getattr(aten, name, None)
        operation = getattr(packet, overload or "default", None)
        if isinstance(operation, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in operation.tags:
            yield operation


def test_every_operation_that_draws_is_known():
    """With arguments as in training: whatever torch adds is met as well."""
    operations = list(drawing())
    assert len(operations) > 60
    for operation in operations:
        given = {}
        for argument in operation._schema.arguments:
            if argument.name in ("train", "training"):
                given[argument.name] = True
            elif argument.name in ("p", "dropout", "dropout_p"):
                given[argument.name] = 0.5
        assert recorded(operation, **given), operation
