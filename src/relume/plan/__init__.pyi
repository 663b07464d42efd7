from .preparing import prepare

__all__ = ["prepare"]
