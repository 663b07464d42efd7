"""Open a network from a spec string, with the preprocessing and the labels that belong to it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from relume.errors import ModelError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

    from relume.acceleration.prepared import Preparing
    from relume.engine.inputs import Output
    from relume.engine.reading import LayerLike
    from relume.explanation.comparison import Comparison
    from relume.explanation.request import Options
    from relume.explanation.result import Explanation
    from relume.methods.wrapper import MethodLike
    from relume.pictures.photo import Photo
    from relume.pictures.preprocessing import Preprocessing
    from relume.targets import TargetLike
    from relume.targets.activation import Activation

    Picture: TypeAlias = str | Path | Image | Photo
    Pictures: TypeAlias = Picture | Sequence[Picture]

__all__ = ["Opened", "open_model"]

#: By the endings of these a spec is known to be a file.
FILES = (".pth", ".pt", ".pt2", ".safetensors", ".ckpt", ".bin", ".tar")

SPECS = (
    "demo, torchvision:NAME, timm:NAME, hf:NAME-OR-FOLDER, package.module:factory, "
    "or a file: .pt (TorchScript), .pt2 (exported), .pth or .safetensors with the architecture beside it"
)

#: Said where a source knows nothing of preprocessing.
ASSUMED = "nothing in it says how pictures are prepared, so ImageNet's way is taken: resize 256, crop 224, its mean and std"


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A network ready to run: in evaluation mode, with how it wants its pictures and what it calls its classes.

    Attributes:
        name: what was opened, as results call it.
        model: the network.
        preprocessing: from picture to input.
        labels: a name for each class, where the source has them.
        activation: what its scores are, as for :func:`relume.explain`; ``auto`` where the source does not know.
        notes: what was understood on the way and must be said: where weights were found, what was executed.
        weights: the file whose weights were loaded in place of the network's own.
        output: which part of what the network returns holds the scores, as for :func:`relume.explain`.
        dtype: of its input; None: that of its parameters, if they have one, else float32.
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    activation: Activation = "auto"
    notes: tuple[str, ...] = ()
    weights: Path | None = None
    output: Output = None
    dtype: torch.dtype | None = None

    def explain(
        self,
        photos: Pictures,
        target: int | str | TargetLike = None,
        methods: Iterable[MethodLike] = ("guided_backprop", "gradcam", "guided_gradcam"),
        layer: LayerLike | Sequence[LayerLike] | None = None,
        **options: Unpack[Options],
    ) -> Explanation:
        """Explain photos: prepared as the network wants them, drawn as they are, classes by their names.

        Args:
            photos: a picture file, a PIL image or a :class:`relume.pictures.photo.Photo`, or several.
            target: as for :func:`relume.explain`, or a class by its name.
            methods: as for :func:`relume.explain`.
            layer: as for :func:`relume.explain`.
            options: as for :func:`relume.explain`; an ``activation`` of ``auto`` is that of :attr:`activation`.

        Raises:
            ImageError: a photo cannot be read or used.
            ModelError: there are more or fewer labels than classes.
            RelumeError: as :func:`relume.explain`.
        """
        return self.compare(photos, [target], methods, layer, **options)[0]

    def compare(
        self,
        photos: Pictures,
        targets: Sequence[int | str | TargetLike],
        methods: Iterable[MethodLike] = ("guided_backprop", "gradcam", "guided_gradcam"),
        layer: LayerLike | Sequence[LayerLike] | None = None,
        **options: Unpack[Options],
    ) -> Comparison:
        """Explain several targets of the same photos, which share the forward pass: arguments and errors of :meth:`explain`."""
        import torch

        from relume.explanation.comparison import Comparison, compare
        from relume.models.labels import class_index
        from relume.pictures.photo import as_photo

        several: Sequence[Picture] = photos if isinstance(photos, list | tuple) else [photos]  # type: ignore[list-item]
        framed = [self.preprocessing.frame(as_photo(photo)) for photo in several]
        images = torch.stack([self.image(self.preprocessing.view(photo.picture)) for photo in framed])
        asked = [class_index(target, self.labels) if isinstance(target, str) else target for target in targets]
        if options.get("activation", "auto") == "auto":
            options["activation"] = self.activation
        options = {"output": self.output, **options}
        explained = compare(self.model, images.to(self.device), asked, methods, layer, **options)
        facts = {**self.provenance, "rectifiers": options.get("rectifiers", "all")}
        facts |= {"file": str(photos)} if isinstance(photos, str | Path) else {}
        return Comparison(tuple(self._named(e, framed, facts) for e in explained))

    def _named(self, e: Explanation, photos: Sequence[Photo], facts: Mapping[str, Any]) -> Explanation:
        """An explanation that knows what the network is called, its classes and its photos."""
        classes = e.scores.shape[1] if e.scores.ndim == 2 else None  # a unit's network may have none
        if self.labels is not None and classes is not None and len(self.labels) != classes:
            raise ModelError(f"{len(self.labels)} labels were given for a network of {classes} classes; give one line for each")
        known = {"model": self.name, "labels": self.labels, "photos": photos}
        return dataclasses.replace(e, provenance={**e.provenance, **facts}, **known)  # type: ignore[arg-type]

    def prepared(self, photo: Picture, **options: Unpack[Preparing]) -> Opened:
        """The same with its network made fast: see :func:`relume.prepare`, which has the options and the errors.

        Args:
            photo: an example of what it will be given.
            options: as for :func:`relume.prepare`.
        """
        from relume.acceleration.prepared import prepare
        from relume.pictures.photo import as_photo

        view = self.preprocessing.view(as_photo(photo).picture)
        image = self.image(view)
        return dataclasses.replace(self, model=prepare(self.model, image[None], **options), dtype=image.dtype)

    def image(self, view: Image) -> torch.Tensor:
        """What :attr:`preprocessing` makes of a view, in the floating-point type that the network computes in.

        Args:
            view: what the network sees of a picture, by :meth:`relume.pictures.preprocessing.Preprocessing.view`.
        """
        import torch

        held = {p.dtype for p in self.model.parameters() if p.is_floating_point() and p.dtype.itemsize > 1}
        dtype = self.dtype or (held.pop() if len(held) == 1 else torch.float32)
        return self.preprocessing.tensor(view).to(dtype)

    @property
    def device(self) -> torch.device:
        """Where the network is, and its input goes; where it is spread over several devices, where its first weights are."""
        import torch

        held = chain(self.model.parameters(), self.model.buffers())
        return next((tensor.device for tensor in held), torch.device("cpu"))

    @property
    def provenance(self) -> dict[str, Any]:
        """What a result records of the network it came from, as plain data."""
        from relume.engine.preparation import preparation_of

        made = preparation_of(self.model)
        return {
            "model": self.name,
            "device": str(self.device),
            "prepared": None if made is None else str(made),
            "weights": None if self.weights is None else str(self.weights),
            "preprocessing": self.preprocessing.as_dict(),
            "output": None if self.output is None else str(self.output),
            "notes": list(self.notes),
        }


def open_model(
    spec: str | Path,
    device: str | torch.device = "auto",
    *,
    weights: str | Path | None = None,
    arch: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    activation: Activation = "auto",
) -> Opened:
    """Open the network that ``spec`` names.

    Args:
        spec: ``demo``, the network in the package; ``torchvision:NAME``, ``timm:NAME`` or ``hf:NAME-OR-FOLDER``, a
            classification network of a library; ``package.module:factory``, what a function of yours returns; or a file, a
            TorchScript archive, an exported program, or a checkpoint for ``arch``.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; or ``auto``, a GPU where there is one.
        weights: a checkpoint, ``.safetensors`` or ``.pth``; without one, the network's own.
        arch: of a checkpoint given as ``spec``, the network it belongs to: any spec that is no file.
        model_args: keyword arguments for what builds the network.
        activation: what its scores are, ``softmax``, ``sigmoid`` or ``none``; ``auto`` is what the source knows.

    Raises:
        ModelError: unknown spec or device, missing library, or weights that cannot be had or do not fit.
        InputError: there is no such activation.
    """
    from relume.models.devices import find_device
    from relume.targets.activation import check_activation

    check_activation(activation)
    find_device(device)  # a wrong word should not cost the time to open a network
    opened = _open(spec, device, weights, arch, model_args)
    return opened if activation == "auto" else dataclasses.replace(opened, activation=activation)


def _open(
    spec: str | Path,
    device: str | torch.device,
    weights: str | Path | None,
    arch: str | None,
    model_args: Mapping[str, Any] | None,
) -> Opened:
    """Open a file or a network by name."""
    from relume.models.devices import move

    spec, path = str(spec), None if weights is None else Path(weights)
    args = dict(model_args or {})
    if _is_file(spec):
        from relume.models.programs import open_program

        opened = open_program(Path(spec), device, {"weights": path, "an architecture": arch, "arguments": args})
        if opened is not None:
            return opened
        if arch is None:
            raise ModelError(
                f"{spec!r} holds weights and no network; name its architecture by --arch, such as torchvision:resnet50"
            )
        if path is not None or _is_file(arch):
            raise ModelError(
                "a checkpoint is given with its architecture, and neither with other weights nor with another file"
            )
        spec, path = arch, Path(spec)
    elif arch is not None:
        raise ModelError(
            f"an architecture is for a checkpoint, and {spec!r} is none; leave out --arch, or give the file as the model"
        )
    opened = _open_network(spec, path, args)
    return dataclasses.replace(opened, model=move(opened.model, device, opened.name), weights=path)


def _is_file(spec: str) -> bool:
    source, colon, _ = spec.partition(":")
    library = bool(colon) and source in ("torchvision", "timm", "hf")
    return not library and (spec.endswith(FILES) or Path(spec).is_file())


def _open_network(spec: str, weights: Path | None, args: dict[str, Any]) -> Opened:
    """A network by name, with its own weights or those of a checkpoint."""
    source, _, name = spec.partition(":")
    if spec == "demo":
        return _open_demo(weights, args)
    if source == "torchvision" and name:
        from relume.models.torchvision import open_classifier

        return open_classifier(name, weights, args)
    if source == "timm" and name:
        from relume.models.timm import open_image_model

        return open_image_model(name, weights, args)
    if source == "hf" and name:
        from relume.models.transformers import open_pretrained

        return open_pretrained(name, weights, args)
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*", spec):
        from relume.models.factories import open_factory

        return open_factory(spec, weights, args)
    if spec and Path(spec).is_dir():
        raise ModelError(f"the model {spec!r} is a folder; write hf:{spec} if save_pretrained wrote it, or name a file in it")
    raise ModelError(f"the model {spec!r} is of no known source; write {SPECS}")


def _open_demo(weights: Path | None, args: dict[str, Any]) -> Opened:
    from relume.demo import CLASSES, PREPROCESSING, load_network
    from relume.models.checkpoints import read_checkpoint

    if args:
        raise ModelError(f"the demo network takes no arguments; got {', '.join(args)}")
    checkpoint = None if weights is None else read_checkpoint(weights)
    opened = Opened("demo", load_network(), PREPROCESSING, CLASSES, activation="sigmoid")
    if checkpoint is None:
        return opened
    return dataclasses.replace(opened, notes=checkpoint.load_into(opened.model, "demo"))
