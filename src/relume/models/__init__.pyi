from .opened import Opened, open_model

__all__ = ["Opened", "open_model"]
