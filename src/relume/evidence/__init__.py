"""Evidence for and against a map, asked above the methods: compared with ground truth, and audited without."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
