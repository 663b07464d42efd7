"""Networks of the Hugging Face hub or of a folder in its format, ``hf:NAME-OR-FOLDER``, by the library transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from relume.errors import ModelError
from relume.models.libraries import import_library
from relume.models.opened import Opened
from relume.models.sources import ModelRequest
from relume.models.timm import timm_preprocessing
from relume.pictures.preprocessing import Interpolation, Preprocessing
from relume.targets.activation import Activation

__all__ = ["open_transformers", "processor_preprocessing"]

#: Pillow's numbers for its interpolations, which processors write down.
RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

#: The activation of networks for other problems than one class among several.
ACTIVATIONS: dict[str, Activation] = {"multi_label_classification": "sigmoid", "regression": "none"}

Size: TypeAlias = int | tuple[int, int]

#: How far a processor's own pixels may be from relume's, on average and of 255: it may resize by other arithmetic.
TOLERANCE = 1.0


def open_transformers(request: ModelRequest) -> Opened:
    """Open a network for image classification with its own weights, or the architecture of its configuration without them.

    The request's arguments are entries of the network's configuration, such as ``num_labels``.

    Raises:
        ModelError: transformers is missing, nothing of that name can be had, or something in it does not fit.
    """
    transformers, name = import_library("transformers"), request.name
    remote = {"trust_remote_code": False}  # a network on the hub may come with code of its own
    with _quiet(transformers, bars=not Path(name).is_dir()):
        try:
            config, unused = transformers.AutoConfig.from_pretrained(name, return_unused_kwargs=True, **remote, **request.args)
            processor = transformers.AutoImageProcessor.from_pretrained(name, **remote)
            model, lacking = _model(
                transformers.AutoModelForImageClassification, name, config, pretrained=request.weights is None
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise _unavailable(name, error) from error
    if unused := set(unused) - remote.keys():
        raise ModelError(f"the configuration of {name!r} has no {', '.join(map(repr, sorted(unused)))}; leave that out")
    if lacking:
        raise ModelError(
            f"the weights of {name!r} lack {', '.join(lacking[:3])}{', …' if len(lacking) > 3 else ''}, or hold them in "
            "another shape; name a network that was trained to classify, or bring weights by --weights"
        )
    preprocessing = processor_preprocessing(processor, name)
    if getattr(processor, "do_flip_channel_order", False):
        # the network turns the channels round, so that pictures and maps stay in RGB
        model.register_forward_pre_hook(_flip_channels)
    return Opened(
        request.spec,
        model.float().eval(),  # some are stored in half precision
        preprocessing,
        _labels(config),
        activation=ACTIVATIONS.get(config.problem_type, "softmax"),
    )


def _flip_channels(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Turn RGB into BGR."""
    return inputs[0].flip(1), *inputs[1:]


def _model(auto: Any, name: str, config: Any, *, pretrained: bool) -> tuple[Any, list[str]]:
    """Return the network, and the names of the weights that are random because there were none: their maps mean nothing."""
    if not pretrained:
        return auto.from_config(config, trust_remote_code=False), []
    model, report = auto.from_pretrained(
        name, config=config, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True
    )
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return model, sorted([*report["missing_keys"], *mismatched])


@contextmanager
def _quiet(transformers: Any, *, bars: bool) -> Iterator[None]:
    """Silence transformers' reports of loading, since an error tells what is wrong; show ``bars`` for downloads."""
    logging = transformers.utils.logging
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown and not bars:
            logging.enable_progress_bar()


def _unavailable(name: str, error: Exception) -> ModelError:
    """Return the error that tells what to do where ``name`` cannot be opened."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
    if Path(name).is_dir():
        return ModelError(
            f"the folder {name!r} cannot be opened as a network for image classification: {reason}; it needs config.json, "
            "model.safetensors and preprocessor_config.json, as save_pretrained writes them"
        )
    if name.startswith((".", "/", "~")):
        return ModelError(f"there is no folder {name!r}; check the path")
    return ModelError(
        f"{name!r} is no folder here, and could not be had from the hub ({reason}); bring its config.json, "
        "model.safetensors and preprocessor_config.json in a folder, and give that"
    )


def _labels(config: Any) -> tuple[str, ...] | None:
    """Return the class names, None if they are only LABEL_0, LABEL_1, …, which a configuration without names writes."""
    names = [str(config.id2label.get(index, "")) for index in range(config.num_labels)]
    return None if names == [f"LABEL_{index}" for index in range(len(names))] else tuple(names)


# --- Preprocessing -------------------------------------------------------------------------------------------------------


def processor_preprocessing(processor: Any, name: str) -> Preprocessing:
    """Read an image processor's configuration as preprocessing, and compare that with what the processor does.

    The order BGR of channels is no part of it: pictures stay in RGB.

    Raises:
        ModelError: it does something that :class:`Preprocessing` cannot express.
    """
    config = processor.to_dict()
    wrapped = config.get("data_config")  # a network of timm in transformers' clothes
    preprocessing = timm_preprocessing(wrapped, f"hf:{name}") if wrapped else _read(config, name)
    _compare(processor, preprocessing, name)
    return preprocessing


def _read(config: Mapping[str, Any], name: str) -> Preprocessing:
    """Read the configuration of one of transformers' own processors."""
    resize, crop = _sizes(config)
    if resize is None or crop is None or config.get("do_pad"):
        entries = {key: config.get(key) for key in ("size", "crop_size", "do_resize", "do_pad")}
        listed = ", ".join(f"{key} {value}" for key, value in entries.items() if value is not None)
        raise ModelError(
            f"hf:{name} prepares pictures in a way that relume does not ({listed}); it resizes, and crops to one size"
        )
    # the processor computes (pixel · rescale - shift - mean) / std, and relume (pixel / 255 - mean) / std
    scale = 255 * (config.get("rescale_factor") or 1 / 255) if config.get("do_rescale") else 255.0
    shift = 1.0 if config.get("rescale_offset") else 0.0
    normalize = config.get("do_normalize")
    mean = config["image_mean"] if normalize else (0.0,) * 3
    std = config["image_std"] if normalize else (1.0,) * 3
    if config.get("include_top"):  # EfficientNet divides twice
        std = [value * again for value, again in zip(std, config["image_std"], strict=True)]
    return Preprocessing(
        resize=resize,
        crop=crop,
        interpolation=RESAMPLE[int(config["resample"])] if config.get("resample") is not None else "bilinear",
        mean=tuple(float(value + shift) / scale for value in mean),
        std=tuple(float(value) / scale for value in std),
        offset="floor",
    )


def _sizes(config: Mapping[str, Any]) -> tuple[Size | None, Size | None]:
    """Return the sizes to resize and to crop to, None where there is no fixed size."""
    size = dict(config.get("size") or {})
    edge, both = size.get("shortest_edge"), _both(size)
    cropped = _both(config.get("crop_size") or {}) if config.get("do_center_crop") else both
    if not config.get("do_resize") or size.get("longest_edge"):
        return None, None
    kind = str(config.get("image_processor_type")).removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor")
    if kind == "ConvNext" and edge:
        # below 384 it crops, from there on it takes the whole picture whatever its proportions
        return (int(edge / config["crop_pct"]), edge) if edge < 384 else ((edge, edge), edge)
    if kind == "PoolFormer" and config.get("crop_pct") and (shorter := edge or (both and min(both))):
        return int(shorter / config["crop_pct"]), cropped
    if kind == "Levit" and edge:
        return int(256 / 224 * edge), cropped
    return edge or both, cropped[0] if cropped and cropped[0] == cropped[1] else cropped


def _both(size: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width, None if one of them is missing."""
    height, width = size.get("height"), size.get("width")
    return (int(height), int(width)) if height and width else None


def _compare(processor: Any, preprocessing: Preprocessing, name: str) -> None:
    """Prepare one drawn picture by the processor and by ``preprocessing``.

    Raises:
        ModelError: the processor gives another shape, or other pixels than resizing by other arithmetic can explain.
    """
    y, x = np.mgrid[0:90, 0:120]
    waves = [128 + 100 * np.sin(x / 9), 128 + 100 * np.cos(y / 7), 128 + 100 * np.sin((x + y) / 11)]
    picture = Image.fromarray(np.stack(waves, -1).astype(np.uint8))
    ours = preprocessing.tensor(preprocessing.view(picture))
    try:
        theirs: Any = processor(picture, return_tensors="pt").get("pixel_values")
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the image processor of hf:{name} fails on a picture: {error}") from error
    if isinstance(theirs, torch.Tensor) and theirs.shape == (1, *ours.shape):
        if getattr(processor, "do_flip_channel_order", False):
            theirs = theirs.flip(1)
        std = torch.tensor(preprocessing.std)[:, None, None]
        if float(((theirs[0] - ours) * std).abs().mean()) * 255 <= TOLERANCE:
            return
    raise ModelError(
        f"the image processor of hf:{name}, a {type(processor).__name__}, does more than its configuration tells relume; "
        "open the network in Python and prepare its input with the processor"
    )
