"""The network as the search asks it: probabilities, and the layer one stage before the target layer."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import relume
from relume.datasets.shortcuts.network import Network, stage_before
from relume.models.opened import Opened
from relume.pictures.preprocessing import IMAGENET


def blocks(*widths):
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class Sequence(nn.Module):
    """A network whose stages are numbered in one sequence, as VGG's are."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*blocks(3, 8, 8), nn.MaxPool2d(2), *blocks(8, 8, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Alike(nn.Module):
    """A network of blocks that all have the same form, as a transformer's have."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(7))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x.mean((2, 3)))


def network(model, activation="softmax"):
    return Network(Opened("one", model.eval(), IMAGENET, activation=activation), (32, 32))


@pytest.mark.parametrize(
    ("model", "layer", "before"),
    [(Sequence(), "features.8", "features.3"), (Alike(), "blocks.6", "blocks.2"), (Sequence(), "features.0", "features.0")],
)
def test_the_stage_before_is_another_form_or_halfway(model, layer, before):
    picture = np.zeros((32, 32, 3), np.uint8)
    assert stage_before(network(model), picture, layer) == before


def test_the_demo_network_is_read_before_its_last_stage():
    demo = relume.open_model("demo", "cpu")
    asked = Network(demo, (128, 128), "layer2")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype(np.uint8)
    assert stage_before(asked, pictures[0], "layer3.1") == "layer2"
    probabilities, is_exclusive, activations = asked.look(pictures)
    images = torch.stack([demo.input_of(relume.pictures.as_photo(_image(picture)))[1] for picture in pictures])
    with torch.no_grad():
        expected = demo.model(images).sigmoid()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert not is_exclusive
    assert activations.shape == (2, 64, 16, 16)


def test_smaller_pictures_are_enlarged_to_the_input():
    assert network(Sequence()).input_of(np.zeros((16, 16, 3), np.uint8)).shape == (3, 32, 32)


def _image(picture):
    from PIL import Image

    return Image.fromarray(picture)
