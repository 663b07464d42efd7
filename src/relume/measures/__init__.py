"""Formulas on maps: how well they show what is there, how alike they are. No network is needed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
