"""The networks of the demo world: one score for each class of its scenes, its signals, its bands, its volumes."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from relume.demo.bands import BANDS, SHOWN_IN
from relume.demo.scenes import CLASSES
from relume.demo.signals import SIGNAL_CLASSES
from relume.demo.volumes import VOLUME_CLASSES
from relume.errors import ModelError
from relume.pictures.preprocessing import Preprocessing

__all__ = [
    "PREPROCESSING",
    "DemoNet",
    "RecordingNet",
    "band_network",
    "load_band_network",
    "load_network",
    "load_signal_network",
    "load_volume_network",
    "signal_network",
    "volume_network",
]

Net = TypeVar("Net", bound=nn.Module)

PREPROCESSING = Preprocessing(resize=128, crop=128, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


#: The channels and the stride of each convolution of a :class:`RecordingNet`.
WIDTHS = ((8, 2), (16, 1), (20, 2), (20, 1))


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


class RecordingNet(nn.Module):
    """A small network for signals, bands or volumes: ``(N, channels, *spatial)`` to a score for each class, ``(N, classes)``.

    Four convolutions, each with BatchNorm and ReLU, the mean over all places, and a linear layer. The sigmoid of a score is a
    probability.

    Example:
        >>> import torch
        >>> from relume.demo import RecordingNet
        >>> RecordingNet(axes=3, channels=1, classes=3, kernel=3)(torch.zeros(2, 1, 24, 32, 40)).shape
        torch.Size([2, 3])
    """

    def __init__(self, axes: int, channels: int, classes: int, kernel: int) -> None:
        """Make a network with random weights for ``axes`` spatial axes, with convolutions of ``kernel`` places an axis."""
        super().__init__()
        convolution: type[nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        norm: type[nn.Module] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        layers: list[nn.Module] = []
        for width, stride in WIDTHS:
            layers += [convolution(channels, width, kernel, stride, kernel // 2, bias=False), norm(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores."""
        scores: Tensor = self.fc(self.features(x).flatten(2).mean(2))
        return scores


def signal_network() -> RecordingNet:
    """Make the network of signals with random weights."""
    return RecordingNet(1, 1, len(SIGNAL_CLASSES), kernel=9)


def band_network() -> RecordingNet:
    """Make the network of bands with random weights."""
    return RecordingNet(2, len(BANDS), len(SHOWN_IN), kernel=3)


def volume_network() -> RecordingNet:
    """Make the network of volumes with random weights."""
    return RecordingNet(3, 1, len(VOLUME_CLASSES), kernel=3)


def _loaded(network: Net, name: str, weights: Path | None) -> Net:
    path = Path(__file__).with_name(f"{name}.safetensors") if weights is None else weights
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{str(path)!r} holds no weights of the network of {name}; train them by relume.demo.train") from error
    return network.eval()


def load_network(weights: Path | None = None) -> DemoNet:
    """Make the demo network in evaluation mode, with the weights of the package or those of another training.

    Args:
        weights: what ``python -m relume.demo.train`` wrote, ``scenes.safetensors``; None for those of the package.

    Raises:
        ModelError: the weights cannot be read or do not fit.

    Example:
        >>> from relume.demo import CLASSES, PREPROCESSING, draw_scene, load_network
        >>> image = PREPROCESSING.tensor(draw_scene(7, ["fish"]).picture)
        >>> CLASSES[int(load_network()(image[None]).argmax())]
        'fish'
    """
    return _loaded(DemoNet(), "scenes", weights)


def load_signal_network(weights: Path | None = None) -> RecordingNet:
    """Make the network of :func:`relume.demo.draw_signal` in evaluation mode: ``(N, 1, L)`` to three scores.

    Args:
        weights: what ``python -m relume.demo.train signals`` wrote; None for those of the package.

    Raises:
        ModelError: the weights cannot be read or do not fit.

    Example:
        >>> import torch
        >>> from relume.demo import SIGNAL_CLASSES, draw_signal, load_signal_network
        >>> signal = torch.from_numpy(draw_signal(7, ["saw"]).values)
        >>> SIGNAL_CLASSES[int(load_signal_network()(signal[None]).argmax())]
        'saw'
    """
    return _loaded(signal_network(), "signals", weights)


def load_band_network(weights: Path | None = None) -> RecordingNet:
    """Make the network of :func:`relume.demo.draw_bands` in evaluation mode: ``(N, 5, H, W)`` to three scores.

    Args:
        weights: what ``python -m relume.demo.train bands`` wrote; None for those of the package.

    Raises:
        ModelError: the weights cannot be read or do not fit.

    Example:
        The magnitude of gradient × input, summed over each band, names the band that shows the leaves:

        >>> import relume, torch
        >>> from relume.demo import BANDS, draw_bands, load_band_network
        >>> scene = draw_bands(7, ["clay", "leaves"])
        >>> images = torch.from_numpy(scene.values)[None]
        >>> e = relume.explain(load_band_network(), images, scene.labels.index("leaves"), ["gradient_x_input"])
        >>> BANDS[int(e["gradient_x_input"].abs().sum((0, 2, 3)).argmax())]
        'near infrared'
    """
    return _loaded(band_network(), "bands", weights)


def load_volume_network(weights: Path | None = None) -> RecordingNet:
    """Make the network of :func:`relume.demo.draw_volume` in evaluation mode: ``(N, 1, D, H, W)`` to three scores.

    Args:
        weights: what ``python -m relume.demo.train volumes`` wrote; None for those of the package.

    Raises:
        ModelError: the weights cannot be read or do not fit.

    Example:
        >>> import torch
        >>> from relume.demo import VOLUME_CLASSES, draw_volume, load_volume_network
        >>> volume = torch.from_numpy(draw_volume(7, ["tube"]).values)
        >>> VOLUME_CLASSES[int(load_volume_network()(volume[None]).argmax())]
        'tube'
    """
    return _loaded(volume_network(), "volumes", weights)
