"""The worlds: the kinds of drawn scenes, and how a network learns each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relume.demo.bands import SHOWN_IN, draw_bands
from relume.demo.network import PREPROCESSING, DemoNet, band_network, signal_network, volume_network
from relume.demo.scenes import CLASSES, draw_scene
from relume.demo.signals import SIGNAL_CLASSES, draw_signal
from relume.demo.truth import RecordedScene, SceneTruth
from relume.demo.volumes import VOLUME_CLASSES, draw_volume

__all__ = ["WORLDS", "World"]


@dataclass(frozen=True, slots=True)
class World:
    """A kind of drawn scene, and how a network learns it.

    Attributes:
        labels: the classes, in the order of the network's scores.
        example: draws a seed: the network's input ``(C, *spatial)``, and the truth.
        network: makes a network of random weights.
        steps: the number of training steps.
        batch: the number of scenes of a step.
        card: the words of the model card for network and scene.
    """

    labels: tuple[str, ...]
    example: Callable[[int], tuple[Tensor, SceneTruth]]
    network: Callable[[], nn.Module]
    steps: int
    batch: int
    card: tuple[str, str]


def _picture(seed: int) -> tuple[Tensor, SceneTruth]:
    scene = draw_scene(seed)
    return PREPROCESSING.tensor(scene.picture), scene


def _recording(draw: Callable[[int], RecordedScene], seed: int) -> tuple[Tensor, SceneTruth]:
    scene = draw(seed)
    return torch.from_numpy(scene.values), scene


def _demo_network() -> DemoNet:
    return DemoNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


#: The worlds by name, which is also that of the weights and of the card.
WORLDS = {
    "scenes": World(CLASSES, _picture, _demo_network, 1_200, 64, ("residual network", "scene of 128 × 128 pixels")),
    "signals": World(
        SIGNAL_CLASSES, functools.partial(_recording, draw_signal), signal_network, 600, 32, ("network", "signal of 512 places")
    ),
    "bands": World(
        tuple(SHOWN_IN),
        functools.partial(_recording, draw_bands),
        band_network,
        600,
        32,
        ("network", "picture of 5 bands and 64 × 64 pixels"),
    ),
    "volumes": World(
        VOLUME_CLASSES,
        functools.partial(_recording, draw_volume),
        volume_network,
        900,
        16,
        ("network", "volume of 24 × 32 × 40 voxels"),
    ),
}
