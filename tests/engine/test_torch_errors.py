"""Errors of torch that have a sentence of relume's, and weights that are written to while they are explained."""

import functools
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import relume
from relume.engine.trace import Trace
from relume.errors import GraphError, HiddenRegionError, LayerError, ModelError

WRITTEN = "weights of the network were written to while it was explained, by the optimiser of another thread perhaps"


class Net(nn.Module):
    def __init__(self, body=lambda net, x: net.features(x).mean((2, 3))):
        super().__init__()
        self.conv, self.more, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.body = lambda x: body(self, x)

    def features(self, x):
        return F.relu(self.more(F.relu(self.conv(x))))

    def forward(self, x):
        return self.head(self.body(x))


def policy(_ctx, operation, *_args, **_kwargs):
    saved = operation is torch.ops.aten.convolution.default
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE


def selectively(net, x):
    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    return checkpoint(net.features, x, use_reentrant=False, context_fn=contexts).mean((2, 3))


def test_selective_checkpointing_takes_one_pass():
    net, x = Net(selectively), torch.randn(1, 3, 8, 8)
    plain = Net()
    plain.load_state_dict(net.state_dict())
    for method in ("gradient", "guided_backprop"):
        got = relume.explain(net, x, 1, [method])[method]
        torch.testing.assert_close(got, relume.explain(plain, x, 1, [method])[method])
    says = "selective checkpointing allows one backward pass.*ask for one method at a time, with evidence=None"
    with pytest.raises(HiddenRegionError, match=says):
        relume.explain(net, x, 1, ["gradient", "guided_backprop"], evidence=None)
    with pytest.raises(HiddenRegionError, match=says):
        relume.explain(net, x, 1, ["gradient"], evidence="full")


def flattened(net, x):
    return net.features(x).view(len(x), 4, -1).mean(2).view(len(x), -1)


def in_one(net, x):
    return net.features(x).view(len(x), -1)[:, :4]


def test_a_view_of_what_has_its_channels_last():
    x = torch.randn(2, 3, 8, 8)
    last = x.contiguous(memory_format=torch.channels_last)
    net = Net(in_one)
    assert relume.explain(net, x, 1, ["guided_backprop"])["guided_backprop"].any()
    for fails in (lambda: relume.explain(net, last, 1), lambda: relume.prepare(net, x)):
        with pytest.raises(ModelError, match=r"calls .view\(\) on a tensor .*reshape.*channels_last=False"):
            fails()
    prepared = relume.prepare(net, x, channels_last=False)
    torch.testing.assert_close(relume.explain(prepared, x, 1)["guided_backprop"], relume.explain(net, x, 1)["guided_backprop"])
    assert relume.prepare(Net(flattened), x).preparation.channels_last  # what can be viewed is


def test_a_value_that_the_network_overwrites():
    def overwrite(net, x):
        y = net.features(x).exp()
        z = y.sin()
        y.add_(1)
        return z.mean((2, 3))

    with pytest.raises(GraphError, match=r"overwrites in place a value that its gradient needs \(\[torch.FloatTensor \[1, 4"):
        relume.explain(Net(overwrite), torch.randn(1, 3, 8, 8), 1)


# --- Weights that are written to ---------------------------------------------------------------------------------------------


def step(net):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def in_another_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_a_step_between_forward_and_backward_pass():
    net = Net()

    def target(scores):
        in_another_thread(lambda: step(net))
        return scores[:, 0]

    with pytest.raises(ModelError, match=f"{WRITTEN}.*explain a copy.deepcopy"):
        relume.explain(net, torch.randn(1, 3, 8, 8), target, ["guided_backprop"])


@pytest.mark.parametrize("where", ["chunks", "copies"])
def test_a_step_between_two_forward_passes(where):
    """No gradient fails then, and the map would be one of two networks."""
    net, runs = Net(), []

    def count(_module, _args):
        runs.append(1)

    class Stepping(relume.Smooth):
        def copies(self, images):
            for copy in super().copies(images):
                in_another_thread(lambda: step(net))
                yield copy

    net.conv.register_forward_pre_hook(count)
    x = torch.randn(2, 3, 8, 8)
    if where == "copies":
        with pytest.raises(ModelError, match=WRITTEN):
            relume.explain(net, x, 1, [Stepping("gradient", 2, batch_size=2)])
        assert len(runs) == 1
        return

    trace_grad = Trace.grad

    def grad_and_step(self, *args, **kwargs):
        found = trace_grad(self, *args, **kwargs)
        in_another_thread(lambda: step(net))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trace, "grad", grad_and_step)
        with pytest.raises(ModelError, match=WRITTEN):
            relume.explain(net, x, 1, ["gradient"], batch_size=1)
    assert len(runs) == 1


def test_a_step_within_a_forward_pass():
    def body(net, x):
        y = net.features(x)
        in_another_thread(lambda: step(original()))
        return y.mean((2, 3))

    net = Net(body)
    original = iter([net]).__next__  # which is not followed
    with pytest.raises(ModelError, match=WRITTEN):
        relume.explain(net, torch.randn(1, 3, 8, 8), 1, ["gradient"])


def test_a_network_that_writes_to_its_own_weights_may():
    def body(net, x):
        y = net.features(x)
        with torch.no_grad():
            net.head.weight.clamp_(-0.1, 0.1)
        return y.mean((2, 3))

    net, x = Net(body), torch.randn(3, 3, 8, 8)
    chunked = relume.explain(net, x, 1, ["guided_backprop"], batch_size=1)["guided_backprop"]
    assert float(net.head.weight.detach().abs().max()) < 0.1001
    torch.testing.assert_close(chunked, relume.explain(net, x, 1, ["guided_backprop"])["guided_backprop"])


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    def forward(self, x):
        return checkpoint(self.f, x, use_reentrant=True).mean((2, 3))


@pytest.mark.parametrize("layer", [None, "f.0"])
def test_layers_without_a_gradient_are_told_from_those_without_a_map(layer):
    with pytest.raises(LayerError, match="gradient: it ran inside reentrant checkpointing, which") as said:
        relume.explain(Reentrant().eval(), torch.randn(1, 3, 8, 8), 2, layer=layer)
    assert "'f.0'" in str(said.value)
    assert "not a map" not in str(said.value)
