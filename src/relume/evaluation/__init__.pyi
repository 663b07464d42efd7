from .report import COLUMNS, Evaluation
from .run import evaluate
from .samples import Loader, Sample, sample_of
from .sources import SOURCES, Samples, Source, open_samples

__all__ = [
    "COLUMNS",
    "SOURCES",
    "Evaluation",
    "Loader",
    "Sample",
    "Samples",
    "Source",
    "evaluate",
    "open_samples",
    "sample_of",
]
