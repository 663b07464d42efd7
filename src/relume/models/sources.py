"""Sources of networks: how each recognises a spec string, and the function that opens it.

A source is found without importing its library: its opener is named by a string, and imported when a spec asks for it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from relume.errors import InputError, ModelError
from relume.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from relume.models.opened import Opened
    from relume.pictures.preprocessing import Preprocessing
    from relume.targets.activation import Activation

__all__ = ["SOURCES", "ModelRequest", "Source", "as_opened", "find_source", "open_model", "specs"]

#: The endings by which a spec is known to name a file, whether it exists or not.
FILES = (".pth", ".pt", ".pt2", ".safetensors", ".ckpt", ".bin", ".tar")

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*")


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """The network that a source is to open.

    Attributes:
        spec: the whole spec, such as ``torchvision:resnet18``.
        name: the part after the source's name and colon, such as ``resnet18``; the whole spec where there is none.
        weights: the checkpoint whose weights :func:`open_model` loads afterwards; None if the network's own are wanted.
        args: keyword arguments for the function that builds the network.
        device: the device where it will run. :func:`open_model` moves it there, if the source has not done so.

    Example:
        >>> from relume.models import ModelRequest
        >>> ModelRequest("torchvision:resnet18", "resnet18", weights=None, args={"num_classes": 10}, device="cpu").name
        'resnet18'
    """

    spec: str
    name: str
    weights: Path | None
    args: dict[str, Any]
    device: str | torch.device


@dataclass(frozen=True, slots=True)
class Source:
    """A place where networks come from; its key in :data:`SOURCES` is the word before the colon of a spec.

    Attributes:
        spec: how a spec is written, for help and errors: ``torchvision:NAME``.
        about: what it opens, in a few words.
        opener: a function that takes a :class:`ModelRequest` and returns an :class:`~relume.models.Opened`, in evaluation
            mode, without loading the checkpoint; or its name, ``package.module:function``, imported when first needed.
        recognises: tells whether a spec is meant for this source; if None, the specs are those that begin with its key and
            a colon.
        has_weights: True if what it opens holds its weights, and takes no checkpoint.

    Example:
        >>> import torch
        >>> from relume.models import SOURCES, Opened, Source, open_model
        >>> from relume.pictures.preprocessing import IMAGENET
        >>> def open_tiny(request):
        ...     model = torch.nn.Sequential(torch.nn.Conv2d(3, int(request.name), 1), torch.nn.ReLU())
        ...     return Opened(request.spec, model.eval(), IMAGENET)
        >>> SOURCES["tiny"] = Source("tiny:CHANNELS", "a single convolution", open_tiny)
        >>> open_model("tiny:4").name
        'tiny:4'
        >>> del SOURCES["tiny"]
    """

    spec: str
    about: str
    opener: Callable[[ModelRequest], Opened] | str
    recognises: Callable[[str], bool] | None = None
    has_weights: bool = False

    def open(self, request: ModelRequest) -> Opened:
        """Open the network of ``request``.

        Raises:
            ModelError: it cannot be opened.
        """
        opener = resolve_name(self.opener) if isinstance(self.opener, str) else self.opener
        opened: Opened = opener(request)
        return opened


def _is_demo(spec: str) -> bool:
    """Tell whether ``spec`` names a network in the package."""
    return spec.partition(":")[0] == "demo"


def _is_file(spec: str) -> bool:
    """Tell whether ``spec`` names a file: by its ending, or because the file exists."""
    prefix, _, name = spec.partition(":")
    return not (name and _has_prefix(prefix)) and (spec.endswith(FILES) or Path(spec).is_file())


def _is_factory(spec: str) -> bool:
    """Tell whether ``spec`` has the form of a module and a function in it."""
    return _FACTORY.fullmatch(spec) is not None


#: Every source by its key, which is tried in this order; other packages add theirs by entry points of ``relume.sources``.
SOURCES: Registry[Source] = Registry(
    "source of networks",
    "relume.sources",
    {
        "demo": Source(
            "demo",
            "a network in the package: of drawn scenes, or demo:signals, demo:bands, demo:volumes",
            "relume.models.demo:open_demo",
            _is_demo,
        ),
        "torchvision": Source(
            "torchvision:NAME",
            "a classification network or detector of torchvision",
            "relume.models.torchvision:open_torchvision",
        ),
        "timm": Source("timm:NAME", "a classification network of timm", "relume.models.timm:open_timm"),
        "hf": Source(
            "hf:NAME-OR-FOLDER",
            "a network for image classification of the Hugging Face hub, or in a folder that save_pretrained wrote",
            "relume.models.transformers:open_transformers",
        ),
        "program": Source(
            "FILE.pt or FILE.pt2",
            "a TorchScript archive or an exported program",
            "relume.models.programs:open_program",
            _is_file,
            has_weights=True,
        ),
        "factory": Source(
            "package.module:factory",
            "the network that a function or class of yours returns",
            "relume.models.factories:open_factory",
            _is_factory,
        ),
    },
)


def _has_prefix(prefix: str) -> bool:
    """Tell whether specs that begin with ``prefix`` and a colon belong to a source of that key."""
    return prefix in SOURCES.names() and SOURCES[prefix].recognises is None


def specs() -> str:
    """Return how specs are written, between commas, for help and errors.

    Example:
        >>> from relume.models.sources import specs
        >>> specs().partition(", hf")[0]
        'demo, torchvision:NAME, timm:NAME'
    """
    return ", ".join(source.spec for source in SOURCES.values())


def find_source(spec: str) -> tuple[Source, str]:
    """Find the source that ``spec`` is meant for, and the name in it.

    Raises:
        ModelError: no source recognises it.
    """
    prefix, _, name = spec.partition(":")
    if name and _has_prefix(prefix):
        return SOURCES[prefix], name
    for source in SOURCES.values():
        if source.recognises is not None and source.recognises(spec):
            return source, spec
    if spec and Path(spec).is_dir():
        raise ModelError(f"the model {spec!r} is a folder; write hf:{spec} if save_pretrained wrote it, or name a file in it")
    raise ModelError(f"the model {spec!r} is of no known source; write {specs()}, or a checkpoint with its architecture")


def open_model(
    spec: str | Path,
    device: str | torch.device = "auto",
    *,
    weights: str | Path | None = None,
    arch: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    activation: Activation = "auto",
) -> Opened:
    """Open the network that ``spec`` names, with the preprocessing and the class names that belong to it.

    Args:
        spec: the network, as :data:`SOURCES` lists them: ``demo``, the network in the package; ``torchvision:NAME``,
            ``timm:NAME`` or ``hf:NAME-OR-FOLDER``, a classification network of a library; ``package.module:factory``, the
            network that a function of yours returns; a file with a TorchScript archive or an exported program; or a
            checkpoint, with its ``arch``.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; or ``auto``, a GPU where there is one.
        weights: a checkpoint, ``.safetensors`` or ``.pth``; if None, the network's own weights.
        arch: the network that a checkpoint given as ``spec`` belongs to: any spec that is no file.
        model_args: keyword arguments for the function that builds the network.
        activation: what its scores are: ``softmax``, ``sigmoid`` or ``none``; ``auto`` is what the source knows.

    Returns:
        The network in evaluation mode, which explains photos by :meth:`relume.models.Opened.explain`.

    Raises:
        ModelError: the spec or device is unknown, a library is missing, or weights cannot be had or do not fit.
        InputError: there is no such activation.

    Example:
        >>> import relume
        >>> opened = relume.open_model("demo", "cpu")
        >>> opened.labels[4], opened.activation
        ('cat', 'sigmoid')
        >>> opened.preprocessing.crop
        128
        >>> relume.open_model("resnet18")
        Traceback (most recent call last):
        relume.errors.ModelError: the model 'resnet18' is of no known source; write demo, torchvision:NAME, timm:NAME, ...
    """
    from relume.models.devices import find_device, move
    from relume.targets.activation import check_activation

    check_activation(activation)
    find_device(device)  # a wrong word should not cost the time to open a network
    spec, file = str(spec), None if weights is None else Path(weights)
    if _is_checkpoint(spec):
        spec, file = _architecture(spec, arch, weights), Path(spec)
    elif arch is not None:
        raise ModelError(
            f"an architecture is for a checkpoint, and {spec!r} is none; leave out --arch, or give the file as the model"
        )
    args = dict(model_args or {})
    opened = _open(spec, file, args, device)
    known = opened.activation if activation == "auto" else activation
    model = move(opened.model, device, opened.name)
    return dataclasses.replace(opened, model=model, weights=file, model_args=args, activation=known)


def as_opened(
    model: str | Path | Opened | nn.Module,
    preprocessing: Preprocessing | None = None,
    *,
    labels: Sequence[str] | None = None,
    activation: Activation = "auto",
) -> Opened:
    """Return an opened network of a spec, an opened network, or a module with its ``preprocessing``.

    ``labels`` and ``activation``, if they are given, take the place of the network's own.

    Raises:
        InputError: a module was given without its preprocessing, or something else with one.
        ModelError: the network cannot be opened.
    """
    from torch import nn

    from relume.models.opened import Opened

    if isinstance(model, nn.Module) == (preprocessing is None):
        raise InputError(
            "a module is given with its preprocessing, such as relume.Preprocessing(resize=256, crop=224), and nothing else is"
        )
    if preprocessing is not None:
        opened = Opened(type(model).__name__, cast("nn.Module", model), preprocessing)
    else:
        opened = model if isinstance(model, Opened) else open_model(cast("str | Path", model))
    return dataclasses.replace(
        opened,
        labels=opened.labels if labels is None else tuple(labels),
        activation=opened.activation if activation == "auto" else activation,
    )


def _open(spec: str, weights: Path | None, args: dict[str, Any], device: str | torch.device) -> Opened:
    """Open the network of a source, and load a checkpoint into it."""
    from relume.models.checkpoints import read_checkpoint

    source, name = find_source(spec)
    # read before the source runs: a wrong path should execute nothing, and not cost seconds of building
    checkpoint = None if weights is None or source.has_weights else read_checkpoint(weights)
    opened = source.open(ModelRequest(spec, name, weights, args, device))
    if checkpoint is None:
        return opened
    return dataclasses.replace(opened, notes=opened.notes + checkpoint.load_into(opened.model, opened.name))


def _is_checkpoint(spec: str) -> bool:
    """Tell whether ``spec`` names a file of weights without their network.

    Raises:
        ModelError: it names a file that is missing, unreadable or damaged.
    """
    from relume.models.checkpoints import archive_kind, check_file

    if not _is_file(spec):
        return False
    path = Path(spec)
    check_file(path, "file")
    if archive_kind(path) != "checkpoint":
        return False
    if path.suffix == ".pt2":
        raise ModelError(f"{spec!r} is no exported program, or is damaged; write it with torch.export.save")
    return True


def _architecture(spec: str, arch: str | None, weights: str | Path | None) -> str:
    """Return the spec of the network that the checkpoint ``spec`` belongs to.

    Raises:
        ModelError: none is given, or it is a file too, or the checkpoint comes with other weights.
    """
    if arch is None:
        raise ModelError(
            f"{spec!r} holds weights and no network; name its architecture by --arch, such as torchvision:resnet50"
        )
    if weights is not None or _is_file(arch):
        raise ModelError("a checkpoint is given with its architecture, and neither with other weights nor with another file")
    return arch
