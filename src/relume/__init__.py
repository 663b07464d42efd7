"""relume: guided backpropagation and Guided Grad-CAM for any PyTorch vision network, right and with its evidence.

Importing this package loads nothing heavy; a name loads its module, and with it torch, when it is first used. The names are
in ``__init__.pyi``.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
