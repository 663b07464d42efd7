"""Targets: the scores that can be explained, a kind a file."""

from relume.targets.base import Target, TargetLike
from relume.targets.box import Box
from relume.targets.channel import Channel
from relume.targets.classes import Class
from relume.targets.contrast import Contrast
from relume.targets.conversion import as_target
from relume.targets.neuron import Neuron
from relume.targets.segmentation import Segmentation

__all__ = ["Box", "Channel", "Class", "Contrast", "Neuron", "Segmentation", "Target", "TargetLike", "as_target"]
