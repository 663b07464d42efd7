"""Options of the network, written once for all commands, and how it is opened."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.text import Text

from relume.cli.common import err
from relume.errors import InputError, ModelError
from relume.models.sources import specs

if TYPE_CHECKING:
    from relume.acceleration.prepared import Preparing
    from relume.models.opened import Opened
    from relume.targets.activation import Activation

__all__ = ["DEVICE", "Network"]

DEVICE = typer.Option(metavar="DEVICE", help="Where it runs: cpu, cuda, cuda:NUMBER or mps; auto takes a GPU if there is one.")

DEMO = (
    "no --model was given, so this is the demo network, which knows drawings of twelve things and nothing of photographs; "
    "for those, name another: --model torchvision:resnet50"
)

_DTYPES = ("bfloat16", "float16", "float64")
_PREPROCESSING = ("resize", "crop", "interpolation", "mean", "std", "spacing", "window", "bands")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The options of the network."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SPEC",
            help=f"The network: {specs()}; or a checkpoint, with --arch. [default: demo]",
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Its weights, .safetensors or .pth. [default: the network's own]",
        ),
    ] = None
    arch: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Network that a checkpoint given as the model belongs to: torchvision:resnet50."),
    ] = None
    model_args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="""Arguments for the function that builds the network: '{"num_classes": 10}'."""),
    ] = None
    device: Annotated[str, DEVICE] = "auto"
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Grad-CAM's target layer. [default: chosen; the output says why]"),
    ] = None
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Key, name or index of the scores in what the network returns. [default: the only part that can be]",
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Class names, one a line. [default: the network's own]"),
    ] = None
    activation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="How scores become probabilities: softmax, if one class is true; sigmoid, if each may be; none. "
            "[default: as known of the network]",
        ),
    ] = "auto"
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS", help="Shorter side of the resized picture, or one for each axis. [default: the network's own]"
        ),
    ] = None
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS", help="Side of the part cut from the middle, or one for each axis. [default: the network's own]"
        ),
    ] = None
    interpolation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="nearest, bilinear, bicubic, lanczos, box or hamming. [default: the network's own]"),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help="Mean subtracted from each channel, of a photo from 0 to 1. [default: the network's own]"
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help="Standard deviation that each channel is divided by then. [default: the network's own]"
        ),
    ] = None
    spacing: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Distance of neighbours to which recordings are resampled: 1,1,1 (mm)."),
    ] = None
    window: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Values of a recording that become 0 and 1, for CT: -150,250."),
    ] = None
    bands: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Channels that the network takes, in its order, counted from 0. [default: all]"),
    ] = None
    shown: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Channels of bands drawn as red, green and blue, or one in grey."),
    ] = None
    letterbox: Annotated[
        bool,
        typer.Option("--letterbox", help="Fit all of a picture into the crop, between bars, whatever --resize says."),
    ] = False
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Make the network faster first: BatchNorm folded, convolutions packed."),
    ] = False
    lean: Annotated[bool, typer.Option("--lean", help="Prepare the network so that it keeps the least memory.")] = False
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="Prepare the network to compute in bfloat16, float16 or float64.")
    ] = None

    def open(self, *, photos: bool = True, example: Path | None = None, prepared: bool = True) -> Opened:
        """Open the network with its labels, and check that ``layer`` exists; the demo network if no ``model`` is given.

        The device and the notes of opening are printed on stderr; before them, if the command is about ``photos`` and no
        network was named, that this is the demo network. If the network is prepared, it is tried on a recording given as
        ``example``, and on a drawn scene otherwise; unless ``prepared`` is False.
        """
        from relume.engine.layers import layer_name
        from relume.models.labels import read_labels
        from relume.models.sources import open_model

        if self.model is None and photos:
            err.print(Text(DEMO, style="bold yellow"))
        names = read_labels(self.labels) if self.labels else None
        changes = {key: _value(key, text) for key in _PREPROCESSING if (text := getattr(self, key)) is not None}
        if self.letterbox:
            changes["letterbox"] = True
        opened = open_model(
            "demo" if self.model is None else self.model,
            self.device,
            weights=self.weights,
            arch=self.arch,
            model_args=_arguments(self.model_args),
            activation=cast("Activation", self.activation),
        )
        opened = dataclasses.replace(
            opened,
            labels=names or opened.labels,
            output=self.scores,
            preprocessing=dataclasses.replace(opened.preprocessing, **changes),
            recordings=dataclasses.replace(opened.recordings, **changes),
            shown=() if self.shown is None else _value("shown", self.shown),
        )
        if self.layer is not None:
            layer_name(opened.model, self.layer)
        for note in (f"{opened.name} on {opened.device}", *opened.notes):
            err.print(Text(note, style="dim"))
        return opened if self.preparing is None or not prepared else self._prepared(opened, self.preparing, example)

    @property
    def preparing(self) -> Preparing | None:
        """The options of :func:`relume.prepare`; None if the network is not to be prepared.

        Raises:
            InputError: there is no such dtype.
        """
        import torch

        if self.dtype not in (None, *_DTYPES):
            raise InputError(f"--dtype is {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}; got {self.dtype!r}")
        if not (self.prepare or self.lean or self.dtype):
            return None
        return {"dtype": None if self.dtype is None else getattr(torch, self.dtype), "lean": self.lean}

    def _prepared(self, opened: Opened, preparing: Preparing, example: Path | None) -> Opened:
        """Return the network made faster, tried on the ``example`` if it is a recording, else on a drawn scene."""
        from relume.demo import draw_scene
        from relume.models.photos import read_photo
        from relume.pictures import format_of

        is_recording = example is not None and format_of(example)
        photo = read_photo(example) if example is not None and is_recording else draw_scene(0).picture
        return opened.prepared(photo, **preparing)


def _arguments(text: str | None) -> dict[str, Any]:
    """Read the arguments in ``--model-args``."""
    try:
        args = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ModelError(f"--model-args is no JSON ({error}); write it as '{{\"num_classes\": 10}}'") from None
    if not isinstance(args, dict):
        raise ModelError(f"--model-args is a JSON object of names and values; got {text}")
    return args


def _value(key: str, text: str) -> Any:
    """Read the value of an option of preprocessing: a name, one number or several."""
    if key == "interpolation":
        return text.strip()
    kind = int if key in ("resize", "crop", "bands", "shown") else float
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        whole = " whole" if kind is int else ""
        raise InputError(f"--{key} takes{whole} numbers between commas; got {text!r}") from None
    return numbers[0] if key in ("resize", "crop") and len(numbers) == 1 else numbers
