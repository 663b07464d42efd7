from .report import COLUMNS, Evaluation
from .run import evaluate
from .samples import Sample, SampleLike, sample_of
from .sources import SOURCES, Samples, Source, open_samples

__all__ = [
    "COLUMNS",
    "SOURCES",
    "Evaluation",
    "Sample",
    "SampleLike",
    "Samples",
    "Source",
    "evaluate",
    "open_samples",
    "sample_of",
]
