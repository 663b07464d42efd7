from .bands import BANDS, SHOWN_IN, draw_bands
from .network import (
    PREPROCESSING,
    DemoNet,
    RecordingNet,
    load_band_network,
    load_network,
    load_signal_network,
    load_volume_network,
)
from .scenes import CLASSES, Scene, draw_scene
from .signals import SIGNAL_CLASSES, draw_signal
from .truth import RecordedScene, Thing
from .volumes import VOLUME_CLASSES, draw_volume

__all__ = [
    "BANDS",
    "CLASSES",
    "PREPROCESSING",
    "SHOWN_IN",
    "SIGNAL_CLASSES",
    "VOLUME_CLASSES",
    "DemoNet",
    "RecordedScene",
    "RecordingNet",
    "Scene",
    "Thing",
    "draw_bands",
    "draw_scene",
    "draw_signal",
    "draw_volume",
    "load_band_network",
    "load_network",
    "load_signal_network",
    "load_volume_network",
]
