"""One pipeline over many pictures: a source is listed in a manifest, its items become rows, and rows are kept in parts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
