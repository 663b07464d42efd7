from .prepared import Preparing, prepare

__all__ = ["Preparing", "prepare"]
