"""Networks of torchvision, ``torchvision:NAME``: its own builders, its own weights and their preprocessing."""

from __future__ import annotations

import difflib
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from relume.errors import ModelError
from relume.models.libraries import import_torchvision
from relume.models.opened import Opened
from relume.models.sources import ModelRequest
from relume.pictures.preprocessing import IMAGENET, Preprocessing

__all__ = ["open_torchvision"]

#: Detectors resize and normalise images themselves.
UNCHANGED = Preprocessing(None, None, mean=(0, 0, 0), std=(1, 1, 1))

PORTED = (
    "the network undoes the pictures' normalisation, as torchvision's own weights expect; "
    """if yours were trained without that, give --model-args '{"transform_input": false}'"""
)


def open_torchvision(request: ModelRequest) -> Opened:
    """Build the classification network or the detector that torchvision lists under the request's name.

    Raises:
        ModelError: there is no such network, its weights cannot be downloaded, weights or arguments do not fit, or operators
            that a detector needs are missing.
    """
    models: Any = import_torchvision().models
    name, args = request.name, request.args
    detectors = models.list_models(module=models.detection)
    known = [*models.list_models(module=models), *detectors]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ModelError(
            f"torchvision has no classification network or detector {name!r}; "
            + (f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(known)}")
        )
    if name in detectors and not hasattr(torch.ops.torchvision, "roi_align"):
        raise ModelError(
            f"{name!r} needs torchvision's own operators, and its wheel was built for another torch than {torch.__version__}; "
            "install both from the same index"
        )
    preset = getattr(models.get_model_weights(name), "DEFAULT", None)
    notes: tuple[str, ...] = ()
    try:
        if request.weights is None:
            model = _pretrained(models, request, preset)
        else:
            # These two draw initial weights slowly, with a warning, unless told not to; and torchvision's own weights for them
            # expect the normalisation undone inside the network, which it turns on only when it downloads them itself.
            ported = {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
            without = {"weights_backbone": None} if name in detectors else {}
            model = models.get_model(name, weights=None, **(ported | without | args))
            notes = (PORTED,) if ported and "transform_input" not in args else ()
    except (TypeError, ValueError) as error:
        if not args or isinstance(error, ModelError):
            raise
        raise ModelError(f"torchvision cannot build {name!r} with the arguments {args}: {error}") from error
    labels = preset.meta.get("categories") if preset is not None else None
    if labels and args.get("num_classes", len(labels)) != len(labels):
        labels = None  # the network has other classes than these
    named = tuple(labels) if labels else None
    if name in detectors:  # whose scores are probabilities already
        return Opened(request.spec, model.eval(), UNCHANGED, named, activation="none")
    return Opened(request.spec, model.eval(), _preprocessing(preset), named, activation="softmax", notes=notes)


def _pretrained(models: Any, request: ModelRequest, preset: Any) -> nn.Module:
    """Build the network with torchvision's own weights, which it downloads."""
    name, args = request.name, request.args
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
    """Return how the weights' own transforms prepare a picture, as plain data."""
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
