"""Networks opened from a spec string, with the preprocessing and the labels that belong to them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
