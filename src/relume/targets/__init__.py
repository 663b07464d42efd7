"""What is explained: the kinds of targets."""

from relume.targets.base import Box, Channel, ClassTarget, Contrast, Neuron, Segmentation, Target, TargetLike, Unit

__all__ = ["Box", "Channel", "ClassTarget", "Contrast", "Neuron", "Segmentation", "Target", "TargetLike", "Unit"]
