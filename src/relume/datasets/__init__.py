"""One pipeline over many pictures: a source is listed in a manifest, its items become rows, and rows are kept in parts."""

from importlib.util import find_spec

import lazy_loader

if find_spec("pyarrow") is None:
    raise ImportError("runs over data sets need pyarrow, which is not installed; run: pip install 'relume[run]'")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
