from .figure import Cell, Row, figure_bytes
from .kinds import KINDS, Kind, default_kind
from .photo import Photo, as_photo, load_photo
from .preprocessing import IMAGENET, Preprocessing, preprocess_image
from .recording import Recording
from .scale import Scaling

__all__ = [
    "IMAGENET",
    "KINDS",
    "Cell",
    "Kind",
    "Photo",
    "Preprocessing",
    "Recording",
    "Row",
    "Scaling",
    "as_photo",
    "default_kind",
    "figure_bytes",
    "load_photo",
    "preprocess_image",
]
