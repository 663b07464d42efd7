"""Formulas on maps, without a network: measures against ground truth, similarities of two maps, baselines, statistics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
