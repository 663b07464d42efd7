from .localisation import MEASURES, Measure, Truth, measure
from .similarity import SIMILARITIES, Maps, Similarity
from .statistics import Estimate, estimate

__all__ = ["MEASURES", "SIMILARITIES", "Estimate", "Maps", "Measure", "Similarity", "Truth", "estimate", "measure"]
