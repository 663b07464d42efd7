from .opened import Opened
from .sources import SOURCES, ModelRequest, Source, open_model

__all__ = ["SOURCES", "ModelRequest", "Opened", "Source", "open_model"]
