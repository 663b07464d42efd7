"""Networks of timm, ``timm:NAME``: its own builder and weights, its data configuration, its ImageNet labels."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from relume.errors import ModelError
from relume.models.libraries import import_library
from relume.models.opened import Opened
from relume.models.sources import ModelRequest
from relume.pictures.preprocessing import INTERPOLATIONS, Preprocessing
from relume.targets.activation import Activation

__all__ = ["open_timm", "timm_preprocessing"]


def open_timm(request: ModelRequest) -> Opened:
    """Build the classification network that timm lists under the request's name.

    The name may have the tag of its weights: ``resnet18`` or ``resnet18.a1_in1k``.

    Raises:
        ModelError: there is no such network, its weights cannot be downloaded, or weights or arguments do not fit.
    """
    timm, name, args = import_library("timm"), request.name, request.args
    config = _pretrained_config(timm, name)
    classes, pretrained = args.get("num_classes", config.get("num_classes")), request.weights is None
    if pretrained and classes != config.get("num_classes"):
        # timm would put a layer of random weights at the end without a warning
        raise ModelError(
            f"timm's weights for {name!r} are of {config.get('num_classes')} classes, not {classes}; bring others by --weights"
        )
    try:
        model = _pretrained(timm, request, config) if pretrained else timm.create_model(name, pretrained=False, **args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if not args or isinstance(error, ModelError):
            raise
        raise ModelError(f"timm cannot build {name!r} with the arguments {args}: {error}") from error
    preprocessing = timm_preprocessing(timm.data.resolve_model_data_config(model), request.spec)
    activation: Activation = "softmax" if classes else "none"  # with num_classes=0 it returns features
    return Opened(request.spec, model.eval(), preprocessing, _labels(timm, model), activation=activation)


def _pretrained_config(timm: Any, name: str) -> Mapping[str, Any]:
    """Return what timm knows of the weights of ``name``.

    Raises:
        ModelError: it knows no such network, or no such weights of it.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3)
        raise ModelError(
            f"timm has no network {name!r}; "
            + (f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists what it has")
        )
    try:
        config: Mapping[str, Any] = timm.get_pretrained_cfg(name).to_dict()
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(name.partition(".")[0] + ".*")]
        raise ModelError(f"timm has no weights {name!r}; their tags are {', '.join(tags) or 'none'}") from error
    return config


def _pretrained(timm: Any, request: ModelRequest, config: Mapping[str, Any]) -> nn.Module:
    """Build the network with timm's own weights, which it downloads."""
    name, hub, url = request.name, config.get("hf_hub_id"), config.get("url") or ""
    if not (hub or url):
        raise ModelError(f"timm has no pretrained weights for {name!r}; bring some by --weights")
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **request.args)
    except OSError as error:
        file = f"model.safetensors of https://huggingface.co/{hub}" if hub else url.rpartition("/")[2]
        reason = str(error).partition(".")[0].partition("\n")[0]
        raise ModelError(
            f"the pretrained weights of {name!r} could not be downloaded ({reason}); bring {file} and pass it with --weights"
        ) from error
    return model


def timm_preprocessing(config: Mapping[str, Any], name: str) -> Preprocessing:
    """Read a data configuration of timm as preprocessing.

    Raises:
        ModelError: it prepares pictures in a way that :class:`Preprocessing` cannot express.
    """
    channels, height, width = config["input_size"]
    mode, interpolation = config["crop_mode"], config["interpolation"]
    if channels != 3 or mode not in ("center", "squash") or interpolation not in INTERPOLATIONS:
        raise ModelError(
            f"{name} wants pictures of {channels} channels, crop mode {mode!r} and interpolation {interpolation!r}; "
            "relume prepares 3 channels, by 'center' or 'squash'"
        )
    scaled = math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"])
    if mode == "center" and height != width:
        raise ModelError(f"{name} wants {height}×{width} pixels from the middle of a picture; relume cuts squares there")
    return Preprocessing(
        resize=scaled if mode == "squash" else scaled[0],
        crop=height if height == width else (height, width),
        interpolation=interpolation,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _labels(timm: Any, model: nn.Module) -> tuple[str, ...] | None:
    """Return the class names of the ImageNet with as many classes as the network, by timm's own choice; None without one."""
    subset = timm.data.infer_imagenet_subset(model)
    if subset is None:
        return None
    # WordNet's lemmas, which write blanks as underscores
    return tuple(label.replace("_", " ") for label in timm.data.ImageNetInfo(subset).label_descriptions())
