"""The networks in the package as a source: ``demo``, and ``demo:signals``, ``demo:bands`` and ``demo:volumes``."""

from __future__ import annotations

from relume.demo import CLASSES, PREPROCESSING, load_band_network, load_network, load_signal_network, load_volume_network
from relume.demo.worlds import WORLDS
from relume.errors import ModelError
from relume.models.opened import Opened
from relume.models.sources import ModelRequest

__all__ = ["open_demo"]


#: What loads the network of each world of recordings.
_LOADERS = {"signals": load_signal_network, "bands": load_band_network, "volumes": load_volume_network}


def open_demo(request: ModelRequest) -> Opened:
    """Open a network in the package.

    Raises:
        ModelError: arguments were given, or there is no such network.
    """
    if request.args:
        raise ModelError(f"the demo network takes no arguments; got {', '.join(request.args)}")
    if request.spec == "demo":
        return Opened(request.spec, load_network(), PREPROCESSING, CLASSES, activation="sigmoid")
    world = request.spec.partition(":")[2]
    if world not in _LOADERS:
        raise ModelError(f"there is no network {request.spec!r} in the package; write demo, or demo: and {', '.join(_LOADERS)}")
    return Opened(request.spec, _LOADERS[world](), PREPROCESSING, WORLDS[world].labels, activation="sigmoid")
