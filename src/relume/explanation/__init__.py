"""The explanation of a batch of images: :func:`relume.explain`, :func:`relume.compare` and their results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
