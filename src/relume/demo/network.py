"""The demo network: a small residual network in the ordinary style, with one score for each class of the scenes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from relume.demo.scenes import CLASSES
from relume.models.checkpoints import load_weights, read_state
from relume.pictures.preprocessing import Preprocessing

__all__ = ["PREPROCESSING", "DemoNet", "load_network"]

PREPROCESSING = Preprocessing(resize=128, crop=128, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Block(nn.Module):
    """Two 3 × 3 convolutions beside a skip: He et al. 2015, arXiv:1512.03385."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.skip = nn.Sequential()
        if stride != 1 or channels != width:
            self.skip = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(y + self.skip(x))
        return out


class DemoNet(nn.Module):
    """``(N, 3, 128, 128)`` to a score for each of :data:`~relume.demo.CLASSES`, ``(N, 12)``; its sigmoid is a probability.

    A scene may hold several classes, so each is scored on its own. The last block has 16 × 16 positions.
    """

    def __init__(self) -> None:
        """A network with random weights."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(Block(16, 32, 2), Block(32, 32))
        self.layer2 = nn.Sequential(Block(32, 64, 2), Block(64, 64))
        self.layer3 = nn.Sequential(Block(64, 96), Block(96, 96))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(96, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """The scores of a batch."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def load_network(weights: Path | None = None) -> DemoNet:
    """The demo network in evaluation mode, with the weights of the package or those of another training.

    Raises:
        ModelError: the weights cannot be read or do not fit.
    """
    path = Path(__file__).with_name("network.safetensors") if weights is None else weights
    network = DemoNet()
    load_weights(network, read_state(path), "demo", path)
    return network.eval()
