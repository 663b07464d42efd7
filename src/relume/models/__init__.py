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
    """A network ready to run: in evaluation mode, with how it wants its pictures and what it calls its classes.

    ``multilabel`` says that each class is a yes or no of its own.
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    multilabel: bool = False


def open_model(spec: str, weights: str | Path | None = None) -> Opened:
    """Open the network that ``spec`` names.

    Args:
        spec: ``demo``, the network in the package; or ``torchvision:NAME``, a classification network of torchvision.
        weights: a checkpoint, ``.safetensors`` or ``.pth``; without one, the network's own.

    Raises:
        ModelError: unknown spec, missing library, or weights that cannot be had or do not fit.
    """
    path = None if weights is None else Path(weights)
    source, _, name = spec.partition(":")
    if spec == "demo":
        from relume.demo.network import open_network

        return open_network(path)
    if source == "torchvision" and name:
        from relume.models.vision import open_classifier

        return open_classifier(name, path)
    raise ModelError(f"the model {spec!r} is of no known source; write demo, or torchvision:NAME, such as torchvision:resnet50")
