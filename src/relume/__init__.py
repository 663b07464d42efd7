"""relume: guided backpropagation and Guided Grad-CAM for any PyTorch vision network, right and with its evidence.

Importing this package loads nothing heavy; a name loads its module, and with it torch, when it is first used. The names are
in ``__init__.pyi``.

``explain``, ``compare``, ``audit``, ``evaluate``, ``prepare``, ``run``, ``calibrate``, ``export``, ``coverage`` and ``share``
are functions of this package. No package or module directly inside it may have one of these names: Python puts a submodule that
is imported in the place of an attribute of its name, so that importing ``relume.audit`` would take the function away. That is
why the rooms have nouns for names.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
