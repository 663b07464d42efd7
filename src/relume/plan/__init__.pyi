from .preparing import Preparing, prepare

__all__ = ["Preparing", "prepare"]
