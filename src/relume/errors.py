"""Every error that relume raises on purpose.

    RelumeError
    ├── InputError (also ValueError)      an argument does not fit
    │   ├── TargetError                   the class or score to explain
    │   ├── LayerError                    the layer that Grad-CAM reads
    │   ├── ImageError                    a picture that cannot be read or used
    │   └── UnreachableError              a place of files, such as object storage, does not answer
    ├── ModelError (also ValueError)      a network that cannot be opened, or weights that do not fit it
    ├── GraphError (also RuntimeError)    the autograd graph cannot be explained as asked
    │   ├── NoRectifierError              no rectifier ran: the rule would change nothing
    │   ├── HiddenRegionError             part of the graph hides its operations
    │   └── HookError                     a rectifier's hook did not run exactly once
    ├── NonFiniteError (also ValueError)  NaN or infinity in the input, the weights or the map
    └── OutputError (also OSError)        results could not be written; nothing was

A message states the fact that was wrong, what was seen, and the next step.
"""

__all__ = [
    "GraphError",
    "HiddenRegionError",
    "HookError",
    "ImageError",
    "InputError",
    "LayerError",
    "ModelError",
    "NoRectifierError",
    "NonFiniteError",
    "OutputError",
    "RelumeError",
    "TargetError",
    "UnreachableError",
]

#: How the notes begin by which errors that the user's own code raised are told from all others.
RAISED_BY_NETWORK, RAISED_BY_FACTORY = "(raised by the network", "(raised by the code of"


class RelumeError(Exception):
    """The root: catch it to catch everything that relume raises on purpose.

    Example:
        >>> import torch, relume
        >>> try:
        ...     relume.explain(torch.nn.Flatten(), torch.rand(1, 3, 2, 2), 99, ["gradient"])
        ... except relume.errors.RelumeError as error:
        ...     print(type(error).__name__, error, sep=": ")
        TargetError: class 99 is out of range: the network has 12 classes, 0 to 11
    """


class InputError(RelumeError, ValueError):
    """An argument does not fit."""


class TargetError(InputError):
    """The target is of the wrong type, length or range."""


class LayerError(InputError):
    """The target layer is unknown, did not run, or has no map to read."""


class ImageError(InputError):
    """A picture is missing, unreadable or unusable."""


class UnreachableError(InputError):
    """A place of files does not answer, or lets nobody in: whatever is asked of it next would fail as well."""


class ModelError(RelumeError, ValueError):
    """A network cannot be opened, or weights do not fit it."""


class GraphError(RelumeError, RuntimeError):
    """The autograd graph of this run cannot be explained as asked."""


class NoRectifierError(GraphError):
    """No rectifier ran between score and input, so the map would be a plain gradient under another name."""


class HiddenRegionError(GraphError):
    """Part of the graph hides its operations, so rectifiers inside it would silently stay unguided."""


class HookError(GraphError):
    """A rectifier's hook did not run exactly once: the map would be wrong and is withheld."""


class NonFiniteError(RelumeError, ValueError):
    """NaN or infinity in the input, the weights, the scores or the map."""


class OutputError(RelumeError, OSError):
    """Results could not be written; nothing was left half-written."""
