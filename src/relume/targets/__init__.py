"""Targets: the scores that can be explained, a kind a file."""

from relume.targets.base import Target, TargetLike
from relume.targets.binary import Binary
from relume.targets.channel import Channel
from relume.targets.classes import Class
from relume.targets.contrast import Contrast
from relume.targets.conversion import as_target
from relume.targets.detection import Detection
from relume.targets.embedding import Embedding
from relume.targets.nearest import Nearest
from relume.targets.neuron import Neuron
from relume.targets.probability import Probability
from relume.targets.regression import Regression
from relume.targets.segmentation import Segmentation

__all__ = [
    "Binary",
    "Channel",
    "Class",
    "Contrast",
    "Detection",
    "Embedding",
    "Nearest",
    "Neuron",
    "Probability",
    "Regression",
    "Segmentation",
    "Target",
    "TargetLike",
    "as_target",
]
