"""The demo network: a small residual network with one score for each class of the scenes."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relume.demo.scenes import CLASSES
from relume.errors import ModelError
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
        """Map ``(N, channels, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(y + self.skip(x))
        return out


class DemoNet(nn.Module):
    """The network: images ``(N, 3, 128, 128)`` to a score for each of :data:`relume.demo.CLASSES`, ``(N, 12)``.

    A scene may hold several classes, so each is scored on its own, and the sigmoid of a score is a probability. The last block
    has 16 × 16 positions.

    Example:
        >>> import torch
        >>> from relume.demo import DemoNet
        >>> DemoNet()(torch.zeros(1, 3, 128, 128)).shape
        torch.Size([1, 12])
    """

    def __init__(self) -> None:
        """Make a network with random weights."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(Block(16, 32, 2), Block(32, 32))
        self.layer2 = nn.Sequential(Block(32, 64, 2), Block(64, 64))
        self.layer3 = nn.Sequential(Block(64, 96), Block(96, 96))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(96, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of images."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def load_network(weights: Path | None = None) -> DemoNet:
    """Make the demo network in evaluation mode, with the weights of the package or those of another training.

    Args:
        weights: what ``python -m relume.demo.train`` wrote, ``network.safetensors``; None for those of the package.

    Raises:
        ModelError: the weights cannot be read or do not fit.

    Example:
        >>> from relume.demo import CLASSES, PREPROCESSING, draw_scene, load_network
        >>> image = PREPROCESSING.tensor(draw_scene(7, ["fish"]).picture)
        >>> CLASSES[int(load_network()(image[None]).argmax())]
        'fish'
    """
    path = Path(__file__).with_name("network.safetensors") if weights is None else weights
    network = DemoNet()
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{str(path)!r} holds no weights of the demo network; train them by relume.demo.train") from error
    return network.eval()
