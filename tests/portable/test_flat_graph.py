"""One flat graph against the eager passes: the same scores, maps and gradients, or an error that says why not."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import relume
from relume import rules
from relume.errors import GraphError, HiddenRegionError, NoRectifierError
from relume.portable.flat_graph import Run, flat_graph
from tests.helpers.networks import ResNet20, Small, assert_unchanged, snapshot, torchvision_network


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
        return self.head(self.body[4](x).relu_().mean((2, 3)))


class Odd(nn.Module):
    """A small network with something odd done to its maps."""

    def __init__(self, odd):
        super().__init__()
        self.body, self.head, self.odd = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Linear(4, 3), odd

    def forward(self, x):
        return self.head(self.odd(self.body(x)).mean((2, 3)))


def images(count=2, size=16):
    return torch.rand(count, 3, size, size, dtype=torch.float64)


def explained_by(model, layer):
    """Make the maps of a class as tensors alone, the class of each image being an input."""

    def explained(x, classes):
        run = Run(model, x, [layer])
        scores = run.outputs.gather(1, classes[:, None])[:, 0]
        (plain, at_layer), (guided, _) = run.pull(scores), run.pull(scores, rules.guided)
        heat = (at_layer.mean((2, 3), keepdim=True) * run.layers[0]).sum(1).relu()
        return run.outputs, plain, guided, heat

    return explained


def assert_flat_graph_is_eager(model, layer, within=1e-9):
    before, x, classes = snapshot(model), images(size=32), torch.tensor([1, 2])
    graph = flat_graph(explained_by(model, layer), x, classes)
    assert not [node for node in graph.graph.nodes if node.op == "call_module"]
    for other, others in ((x, classes), (x.flip(-1), classes.flip(0))):
        scores, *maps = graph(other, others)
        e = relume.explain(model, other, others, ["gradient", "guided_backprop", "gradcam"], layer)
        torch.testing.assert_close(scores, e.scores, rtol=within, atol=within)
        for values, expected in zip(maps, e.maps.values(), strict=True):
            assert torch.linalg.vector_norm(values - expected) <= within * torch.linalg.vector_norm(expected)
    assert_unchanged(before, snapshot(model))


@pytest.mark.parametrize(
    ("network", "layer"), [(Small, "body"), (Preactivated, "body.3"), pytest.param(ResNet20, "layer2", marks=pytest.mark.slow)]
)
def test_it_is_the_explanation(network, layer):
    assert_flat_graph_is_eager(network().double().eval(), layer)


@pytest.mark.slow
def test_a_network_of_torchvision():
    assert_flat_graph_is_eager(torchvision_network("shufflenet_v2_x0_5").double().eval(), "stage3")


def looks(x):
    return x * 2 if x.mean() > 0.1 else x


def leaves_torch(x):
    return x * torch.from_numpy(x.detach().amax((0, 2, 3)).numpy().copy())[:, None, None]


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (looks, "what it does depends on the values in the images"),
        (lambda x: x[:, :, (x.sum((0, 1, 3)) > -1)], "what it does depends on the values in the images"),
        (leaves_torch, "recorded, it gives other values"),
        (F.dropout, "its forward pass draws random numbers"),
    ],
    ids=["a branch", "a choice of rows", "numpy", "dropout"],
)
def test_what_is_not_the_same_for_every_input_is_refused(odd, why):
    model = Odd(odd).double().eval()
    with pytest.raises(GraphError, match=why):
        flat_graph(explained_by(model, "body.0"), images(), torch.tensor([0, 1]))


# torch's own, on the way
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_what_an_explanation_refuses_is_refused():
    hidden = Run(Odd(functools.partial(checkpoint, torch.relu, use_reentrant=True)).double(), images())
    with pytest.raises(HiddenRegionError, match="CheckpointFunction hides part of the network"):
        hidden.pull(hidden.outputs[:, 0], rules.guided)
    tanh = Run(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten()).double(), images())
    with pytest.raises(NoRectifierError):
        tanh.pull(tanh.outputs[:, 0], rules.guided)
    with pytest.raises(GraphError, match="do not depend on the images"):
        tanh.pull(torch.ones(2, dtype=torch.float64, requires_grad=True) * 2)
