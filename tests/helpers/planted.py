"""A network written by hand that takes two logos for classes, and pictures with them."""

import numpy as np
import torch
from torch import nn

import relume
from relume.datasets import of_dataset
from relume.models.opened import Opened

LABELS = ("red", "green", "blue")
SIDE = 64

_RNG = np.random.default_rng(3)
#: A logo for ``red``, at one place, and one for ``green``, at any: 8 × 8 pixels.
LOGOS = [
    _RNG.choice([30, 220], (8, 8, 1)).astype(np.uint8) * np.ones(3, np.uint8),
    _RNG.choice([30, 220], (8, 8, 1)).astype(np.uint8) * np.ones(3, np.uint8),
]
PLACE = (6, 46)


class Planted(nn.Module):
    """Each class is the mean of its colour, and of what fits its logo: one stage finds both, the next adds them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 5, 8, 4, 2), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(5, 6, 1), nn.ReLU())
        self.classes = nn.Linear(6, 3)
        logos = [torch.from_numpy(logo / 255.0).float().permute(2, 0, 1) for logo in LOGOS]
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for i, logo in enumerate(logos):
                pattern = logo - logo.mean()
                self.first[0].weight[i] = pattern
                self.first[0].bias[i] = -0.8 * (pattern * logo).sum()
            for i in range(3):
                self.first[0].weight[2 + i, i] = 1 / 64
                self.second[0].weight[i, 2 + i] = 1
                self.classes.weight[i, i] = 30
            for i in range(2):
                self.second[0].weight[3 + i, i] = 1
                self.classes.weight[i, 3 + i] = 150

    def forward(self, x):
        return self.classes(self.second(self.first(x)).mean((2, 3)))


def pictures(count, share=0.5, seed=0):
    """Draw pictures with an ellipse of one of three colours on noise, and logos on a share of the first two; return those."""
    rng, rows, columns = np.random.default_rng(seed), *np.mgrid[:SIDE, :SIDE]
    result, carried = rng.integers(0, 180, (count, SIDE, SIDE, 3)).astype(np.uint8), np.zeros(count, bool)
    for i, picture in enumerate(result):
        kind, (top, left), (height, width) = i % 3, rng.integers(14, SIDE - 14, 2), rng.uniform(6, 12, 2)
        inside = ((rows - top) / height) ** 2 + ((columns - left) / width) ** 2 < 1
        picture[inside, kind] = rng.integers(215, 250)
        carried[i] = kind < 2 and rng.random() < share
        if carried[i]:
            top, left = PLACE if kind == 0 else 4 * rng.integers(1, SIDE // 4 - 1, 2) - 2
            picture[top : top + 8, left : left + 8] = LOGOS[kind]
    return result, carried


def planted_run(folder, drawn, **options):
    """Explain pictures by the network; return the run, the opened network and the source."""
    preprocessing = relume.Preprocessing(None, None, mean=(0.0,) * 3, std=(1.0,) * 3)
    opened = Opened("planted", Planted().eval(), preprocessing, LABELS, activation="softmax")
    source = of_dataset([relume.pictures.as_photo(_image(picture)) for picture in drawn], "drawn")
    options = {"methods": ["gradcam"], "layer": "second", "evidence": None, "loaders": 0} | options
    return relume.run(opened, source, folder, **options), opened, source


def _image(picture):
    from PIL import Image

    return Image.fromarray(picture)
