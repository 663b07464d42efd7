from .figure import Cell, Row, figure_bytes
from .formats.base import Format
from .formats.table import FORMATS, format_of, grid_of, read
from .kinds import KINDS, Kind, default_kind
from .photo import Photo, as_photo, load_photo
from .preprocessing import IMAGENET, Preprocessing, preprocess_image
from .recording import Recording, placed
from .scale import Scaling

__all__ = [
    "FORMATS",
    "IMAGENET",
    "KINDS",
    "Cell",
    "Format",
    "Kind",
    "Photo",
    "Preprocessing",
    "Recording",
    "Row",
    "Scaling",
    "as_photo",
    "default_kind",
    "figure_bytes",
    "format_of",
    "grid_of",
    "load_photo",
    "placed",
    "preprocess_image",
    "read",
]
