"""Networks of timm: its own builder and weights, its data configuration, its ImageNet labels."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from relume.errors import ModelError
from relume.models.checkpoints import read_checkpoint
from relume.models.opened import Opened
from relume.models.torchvision import import_library
from relume.pictures.preprocessing import INTERPOLATIONS, Preprocessing
from relume.targets.activation import Activation

__all__ = ["open_image_model", "timm_preprocessing"]


def open_image_model(name: str, weights: Path | None, args: Mapping[str, Any]) -> Opened:
    """Build the classification network ``name`` with timm's pretrained weights, or with those in a file.

    Args:
        name: as timm lists it, with the tag of its weights or without: ``resnet18``, ``resnet18.a1_in1k``.
        weights: a checkpoint; without one, timm's own.
        args: keyword arguments of ``timm.create_model``, such as ``num_classes``.

    Raises:
        ModelError: no such network, no way to download its weights, or weights or arguments that do not fit.
    """
    timm = import_library("timm")
    config = _known(timm, name)
    checkpoint = None if weights is None else read_checkpoint(weights)
    classes = args.get("num_classes", config.get("num_classes"))
    if checkpoint is None and classes != config.get("num_classes"):
        # timm would put a layer of random weights at the end and say nothing
        raise ModelError(
            f"timm's weights for {name!r} are of {config.get('num_classes')} classes, not {classes}; bring others by --weights"
        )
    try:
        model = _pretrained(timm, name, args) if checkpoint is None else timm.create_model(name, pretrained=False, **args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if not args or isinstance(error, ModelError):
            raise
        raise ModelError(f"timm cannot build {name!r} with the arguments {dict(args)}: {error}") from error
    notes = () if checkpoint is None else checkpoint.load_into(model, name)
    preprocessing = timm_preprocessing(timm.data.resolve_model_data_config(model), f"timm:{name}")
    activation: Activation = "softmax" if classes else "none"  # with num_classes=0 it returns features
    return Opened(f"timm:{name}", model.eval(), preprocessing, _labels(timm, model), activation=activation, notes=notes)


def _known(timm: Any, name: str) -> Mapping[str, Any]:
    """What timm knows of the weights of ``name``.

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


def _pretrained(timm: Any, name: str, args: Mapping[str, Any]) -> nn.Module:
    """With timm's own weights, which it downloads."""
    config = timm.get_pretrained_cfg(name).to_dict()
    hub, url = config.get("hf_hub_id"), config.get("url")
    if not (hub or url):
        raise ModelError(f"timm has no pretrained weights for {name!r}; bring some by --weights")
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **args)
    except OSError as error:
        file = f"model.safetensors of https://huggingface.co/{hub}" if hub else url.rpartition("/")[2]
        reason = str(error).partition(".")[0].partition("\n")[0]
        raise ModelError(
            f"the pretrained weights of {name!r} could not be downloaded ({reason}); bring {file} and pass it with --weights"
        ) from error
    return model


def timm_preprocessing(config: Mapping[str, Any], name: str) -> Preprocessing:
    """The data configuration of timm as plain data.

    Raises:
        ModelError: it prepares pictures in a way that cannot be said so.
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
    """The names of the ImageNet that has as many classes as the network, as timm tells them apart; None if there is none."""
    subset = timm.data.infer_imagenet_subset(model)
    if subset is None:
        return None
    # WordNet's lemmas, which write blanks as underscores
    return tuple(label.replace("_", " ") for label in timm.data.ImageNetInfo(subset).label_descriptions())
