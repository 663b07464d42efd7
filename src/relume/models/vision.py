"""Networks of torchvision: its own builders, its own weights and their preprocessing."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch

from relume.errors import ModelError
from relume.image import IMAGENET, Preprocessing
from relume.models import Opened
from relume.models.weights import load_weights, read_state

__all__ = ["import_torchvision", "open_classifier"]

# Schemas that torchvision's Python code registers against and that only its compiled extension defines.
_MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library's schemas live as long as it does


def import_torchvision() -> ModuleType:
    """``import torchvision``, also where its wheel was built for CUDA and torch is CPU-only.

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


def open_classifier(name: str, weights: Path | None) -> Opened:
    """Build the classification network ``name`` with its own pretrained weights, or with those in a file.

    Raises:
        ModelError: no such network, no way to download its weights, or weights that do not fit.
    """
    models: Any = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ModelError(
            f"torchvision has no classification network {name!r}; "
            + (f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(known)}")
        )
    pretrained = models.get_model_weights(name)
    preset = getattr(pretrained, "DEFAULT", None)
    if weights is not None:
        state = read_state(weights)  # before the network is built: a wrong path should not cost seconds
        # These two draw initial weights slowly, with a warning, unless told not to; and torchvision's own weights for them
        # expect the normalisation undone inside the network, which it turns on only when it downloads them itself.
        ported = {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
        model = models.get_model(name, weights=None, **ported)
        load_weights(model, state, name, weights)
    else:
        try:
            model = models.get_model(name, weights=preset)
        except (URLError, OSError, RuntimeError) as error:
            url = getattr(preset, "url", "")
            raise ModelError(
                f"the pretrained weights of {name!r} could not be downloaded ({getattr(error, 'reason', error)}); "
                f"bring {url.rpartition('/')[2] or 'a checkpoint'} and pass it with --weights"
            ) from error
    labels = preset.meta.get("categories") if preset is not None else None
    return Opened(f"torchvision:{name}", model.eval(), _preprocessing(preset), tuple(labels) if labels else None)


def _preprocessing(preset: Any) -> Preprocessing:
    if preset is None:
        return IMAGENET
    transform = preset.transforms()
    return Preprocessing(
        resize=transform.resize_size[0],
        crop=transform.crop_size[0],
        interpolation=transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )
