from .disconnected import Disconnected
from .grid_pointing import Game, calibrate
from .mosaics import Mosaic, Wall, assembled
from .report import COLUMNS, Evaluation
from .run import evaluate
from .samples import Loader, Sample, sample_of
from .sources import SOURCES, Samples, Source, open_samples

__all__ = [
    "COLUMNS",
    "SOURCES",
    "Disconnected",
    "Evaluation",
    "Game",
    "Loader",
    "Mosaic",
    "Sample",
    "Samples",
    "Source",
    "Wall",
    "assembled",
    "calibrate",
    "evaluate",
    "open_samples",
    "sample_of",
]
