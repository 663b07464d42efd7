"""The keys of methods that are needed where nothing heavy may be imported, such as in the help of the command."""

from __future__ import annotations

__all__ = ["DEFAULT_METHODS"]

#: The methods that everything explains by where none is named.
DEFAULT_METHODS = ("guided_backprop", "gradcam", "guided_gradcam")
