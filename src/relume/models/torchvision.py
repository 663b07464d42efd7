"""Networks of torchvision: its own builders, its own weights and their preprocessing."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from relume.errors import ModelError
from relume.models.checkpoints import read_checkpoint
from relume.models.opened import Opened
from relume.pictures.preprocessing import IMAGENET, Preprocessing

__all__ = ["import_library", "import_torchvision", "open_classifier"]

PORTED = (
    "the network undoes the pictures' normalisation, as torchvision's own weights expect; "
    """if yours were trained without that, give --model-args '{"transform_input": false}'"""
)

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


def import_library(name: str) -> Any:
    """The library ``name``, which relume can do without and which imports torchvision.

    Raises:
        ModelError: it or torchvision is not installed, or does not import.
    """
    lacking = [library for library in (name, "torchvision") if library not in sys.modules and find_spec(library) is None]
    if lacking:
        raise ModelError(f"{lacking[0]} is not installed; run: pip install 'relume[{name}]'")
    import_torchvision()
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        raise ModelError(f"{name} does not import beside torch {torch.__version__}: {error}") from error


def open_classifier(name: str, weights: Path | None, args: Mapping[str, Any] | None = None) -> Opened:
    """Build the classification network ``name`` with its own pretrained weights, or with those in a file.

    Args:
        name: as torchvision lists it.
        weights: a checkpoint; without one, torchvision's own.
        args: keyword arguments of torchvision's builder, such as ``num_classes``.

    Raises:
        ModelError: no such network, no way to download its weights, or weights or arguments that do not fit.
    """
    models: Any = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ModelError(
            f"torchvision has no classification network {name!r}; "
            + (f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(known)}")
        )
    args = dict(args or {})
    preset = getattr(models.get_model_weights(name), "DEFAULT", None)
    checkpoint = None if weights is None else read_checkpoint(weights)  # a wrong path should not cost seconds of building
    notes: tuple[str, ...] = ()
    try:
        if checkpoint is None:
            model = _pretrained(models, name, preset, args)
        else:
            # These two draw initial weights slowly, with a warning, unless told not to; and torchvision's own weights for them
            # expect the normalisation undone inside the network, which it turns on only when it downloads them itself.
            ported = {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
            model = models.get_model(name, weights=None, **(ported | args))
    except (TypeError, ValueError) as error:
        if not args or isinstance(error, ModelError):
            raise
        raise ModelError(f"torchvision cannot build {name!r} with the arguments {args}: {error}") from error
    if checkpoint is not None:
        notes = checkpoint.load_into(model, name)
        if getattr(model, "transform_input", False) and "transform_input" not in args:
            notes += (PORTED,)
    labels = preset.meta.get("categories") if preset is not None else None
    if labels and args.get("num_classes", len(labels)) != len(labels):
        labels = None  # it names other classes than these
    named = tuple(labels) if labels else None
    return Opened(f"torchvision:{name}", model.eval(), _preprocessing(preset), named, activation="softmax", notes=notes)


def _pretrained(models: Any, name: str, preset: Any, args: Mapping[str, Any]) -> nn.Module:
    """With torchvision's own weights, which it downloads."""
    classes = len(preset.meta["categories"]) if preset is not None else None
    if classes is not None and args.get("num_classes", classes) != classes:
        raise ModelError(
            f"torchvision's weights for {name!r} are of {classes} classes, not {args['num_classes']}; bring others by --weights"
        )
    try:
        model: nn.Module = models.get_model(name, weights=preset, **args)
    except (URLError, OSError, RuntimeError) as error:
        url = getattr(preset, "url", "")
        raise ModelError(
            f"the pretrained weights of {name!r} could not be downloaded ({getattr(error, 'reason', error)}); "
            f"bring {url.rpartition('/')[2] or 'a checkpoint'} and pass it with --weights"
        ) from error
    return model


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
