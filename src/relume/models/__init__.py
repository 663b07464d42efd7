"""Open a network from a spec string, with the preprocessing and the labels that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relume.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from relume.image import Preprocessing

__all__ = ["Opened", "open_model"]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A network ready to run: in evaluation mode, with how it wants its pictures and what it calls its classes."""

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None


def open_model(spec: str, weights: str | Path | None = None) -> Opened:
    """Open the network that ``spec`` names.

    Args:
        spec: ``torchvision:NAME``, a classification network of torchvision.
        weights: a checkpoint, ``.safetensors`` or ``.pth``; without one, the library downloads its pretrained weights.

    Raises:
        ModelError: unknown spec, missing library, or weights that cannot be had or do not fit.
    """
    source, _, name = spec.partition(":")
    if source != "torchvision" or not name:
        raise ModelError(f"the model {spec!r} is of no known source; write torchvision:NAME, such as torchvision:resnet50")
    from relume.models import vision

    return vision.open_classifier(name, None if weights is None else Path(weights))
