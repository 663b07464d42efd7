"""The demo network as a source: ``demo``."""

from __future__ import annotations

from relume.demo import CLASSES, PREPROCESSING, load_network
from relume.errors import ModelError
from relume.models.opened import Opened
from relume.models.sources import ModelRequest

__all__ = ["open_demo"]


def open_demo(request: ModelRequest) -> Opened:
    """Open the network in the package.

    Raises:
        ModelError: arguments were given.
    """
    if request.args:
        raise ModelError(f"the demo network takes no arguments; got {', '.join(request.args)}")
    return Opened(request.spec, load_network(), PREPROCESSING, CLASSES, activation="sigmoid")
