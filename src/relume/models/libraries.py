"""Optional libraries: imported when a source needs them, with a sentence that tells what to install."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from relume.errors import ModelError

__all__ = ["import_library", "import_torchvision"]

# Schemas that torchvision's Python code registers against and that only its compiled extension defines (torchvision 0.28).
_MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library's schemas live as long as it does


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its wheel was built for CUDA and torch is CPU-only.

    There the import stops because the compiled extension, which would define the ``nms`` operator, does not load. Declaring
    the missing schemas brings back everything that does not call them: every classification network.

    Raises:
        ModelError: torchvision is not installed, or fails to import for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise ModelError("torchvision is not installed; run: pip install 'relume[torchvision]'") from error
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise ModelError(f"torchvision does not import beside torch {torch.__version__}: {error}") from error
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _MISSING_SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
    return importlib.import_module("torchvision")


def import_library(name: str) -> Any:
    """Import the optional library ``name``, which itself imports torchvision.

    Raises:
        ModelError: it or torchvision is not installed, or does not import.
    """
    missing = [library for library in (name, "torchvision") if library not in sys.modules and find_spec(library) is None]
    if missing:
        raise ModelError(f"{missing[0]} is not installed; run: pip install 'relume[{name}]'")
    import_torchvision()
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        raise ModelError(f"{name} does not import beside torch {torch.__version__}: {error}") from error
