"""A small world with ground truth: scenes drawn from a seed, and a network trained on them that comes with the package."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
