"""``relume explain``: photos to maps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from relume.cli import common
from relume.cli.common import complain, fail, out
from relume.errors import ImageError, NonFiniteError, OutputError, RelumeError

if TYPE_CHECKING:
    from relume.models import Opened
    from relume.result import Explanation
    from relume.targets import TargetLike

__all__ = ["EXAMPLES", "explain"]

EXAMPLES = """Examples:

  relume explain dog.jpg --model torchvision:resnet50

  relume explain photos/*.jpg --model torchvision:resnet50 --target "tabby" --output maps

  relume explain dog.jpg --model torchvision:squeezenet1_0 --weights squeezenet1_0.safetensors --layer features.12
"""

DEFAULT = "guided_backprop,gradcam,guided_gradcam"
UNITS = "gradient,guided_backprop"  # Grad-CAM's layer may well lie above a unit, where nothing of it is

DEMO_NOTE = """

This was the demo network, which knows drawings of twelve things and nothing of photographs; for those, name another:
--model torchvision:resnet50"""


def explain(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Picture files.", show_default=False, readable=False)
    ],
    model: common.Spec = None,
    weights: common.Weights = None,
    arch: common.Arch = None,
    model_args: common.ModelArgs = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="Classes to explain, by index or name, between commas. [default: the predicted class]",
        ),
    ] = None,
    versus: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Why the target and not this class, by index or name?")
    ] = None,
    neuron: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER:CHANNEL[:Y,X]",
            help="What a unit looks for: at a place of its channel, or where it is highest; by gradient and guided_backprop "
            "unless --method says otherwise. May be repeated.",
        ),
    ] = None,
    method: Annotated[list[str] | None, common.method_option(DEFAULT)] = None,
    smooth: Annotated[
        int | None,
        typer.Option(
            metavar="SAMPLES", help="Smooth every method: the mean of its maps over so many noisy copies (SmoothGrad)."
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(metavar="LEVEL", help="That noise, as a share of the range of the network's input. [default: 0.15]"),
    ] = None,
    rectifiers: Annotated[
        str, typer.Option(metavar="WHICH", help="all, or relu: apply rules to the ReLU family alone.")
    ] = "all",
    layer: common.Layer = None,
    labels: common.Labels = None,
    resize: common.Resize = None,
    crop: common.Crop = None,
    interpolation: common.Interpolation = None,
    mean: common.Mean = None,
    std: common.Std = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where results go, a folder for each photo.")] = Path("out"),
) -> None:
    """Explain photos: which pixels speak for a class?

    For each photo, target and method: a picture, the raw signed map (safetensors) and the facts (JSON).
    """
    from relume.image import load_picture
    from relume.report import check_writable

    preprocessing = {"resize": resize, "crop": crop, "interpolation": interpolation, "mean": mean, "std": std}
    try:
        check_writable(output)
        methods, facts = _smoothed(common.method_keys(method, UNITS if neuron else DEFAULT), smooth, noise)
        opened = common.open_network(
            model, weights, labels, layer, arch=arch, model_args=model_args, preprocessing=preprocessing
        )
        targets = _targets(target, versus, neuron, opened)
    except RelumeError as error:
        fail(error)
    failed, closing = 0, Text()
    found: list[Text] = []
    with common.tracked("explaining", photos, len(photos)) as steps:
        for photo, folder in zip(steps, _folders(photos, output), strict=True):
            try:
                explained = common.explain_picture(
                    load_picture(photo), opened, targets, methods, layer, {"file": str(photo), **facts}, rectifiers
                )
                common.write_explained(_without_variance(explained), folder)
            except (ImageError, NonFiniteError, OutputError) as error:
                failed += 1
                complain(error if str(photo) in str(error) else f"{str(photo)!r}: {error}")
            except KeyboardInterrupt:
                complain(f"stopped after {len(found)} of {len(photos)} photos; their results are in {str(output)!r}")
                raise typer.Exit(130) from None
            except RelumeError as error:
                fail(error)
            else:
                found.append(_finding(photo, folder, explained, brief=len(photos) > 4))
                closing = common.reached(explained[0], chosen=layer is None).append("" if model else DEMO_NOTE)
    if found:
        out.print(*found, closing, sep="\n")
    if failed:
        if len(photos) > 1:
            complain(f"{failed} of {len(photos)} photos could not be explained")
        raise typer.Exit(1)


def _targets(target: str | None, versus: str | None, neurons: Sequence[str] | None, opened: Opened) -> list[TargetLike]:
    """What is to be explained of each photo: classes, each against another if there is one; and units."""
    from relume.errors import TargetError
    from relume.models.labels import parse_targets
    from relume.targets import Contrast

    units: list[TargetLike] = [_neuron(text) for text in neurons or ()]
    classes: list[TargetLike] = [None] if target is None else [*parse_targets(target, opened.labels)]
    if versus is None:
        return units if units and target is None else classes + units
    others = parse_targets(versus, opened.labels)
    if len(others) != 1:
        raise TargetError(f"--versus takes one class; got {versus!r}")
    return [Contrast(index, others[0]) for index in classes] + units


def _smoothed(keys: Sequence[str], samples: int | None, noise: float | None) -> tuple[list[Any], dict[str, Any]]:
    """The methods, each of them smoothed if that is asked for, and what a result records of it."""
    from relume.errors import InputError
    from relume.smooth import Smooth

    if samples is None:
        if noise is not None:
            raise InputError("--noise is the noise of --smooth; give that too, such as --smooth 25")
        return [*keys], {}
    noise = Smooth.noise if noise is None else noise
    return [Smooth(key, samples, noise) for key in keys], {"smooth": {"samples": samples, "noise": noise, "seed": 0}}


def _without_variance(explained: Sequence[Explanation]) -> list[Explanation]:
    """A smooth map for each method asked for, and no second picture beside it."""
    return [replace(e, maps={key: e[key] for key in e if not key.startswith("vargrad_")}) for e in explained]


def _neuron(text: str) -> TargetLike:
    from relume.errors import TargetError
    from relume.targets import Neuron

    found = re.fullmatch(r"(?P<layer>[^:]+):(?P<channel>\d+)(:(?P<place>\d+(,\d+)*))?", text.strip())
    if found is None:
        raise TargetError(f"--neuron is LAYER:CHANNEL or LAYER:CHANNEL:Y,X, such as layer4:7:3,5; got {text!r}")
    place = found["place"] and tuple(int(part) for part in found["place"].split(","))
    return Neuron(found["layer"], int(found["channel"]), place or None)


def _folders(photos: Sequence[Path], output: Path) -> Iterator[Path]:
    """A folder for each photo, named after it; photos of the same name, in any case of letters, are numbered."""
    taken: set[str] = set()
    for photo in photos:
        stem = photo.stem.strip(".") or "photo"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        yield output / name


def _finding(photo: Path, folder: Path, explained: Sequence[Explanation], *, brief: bool) -> Text:
    """What was found in one photo and where it is: a few lines, or one."""
    titles = "; ".join(e.title() for e in explained)
    if brief:
        return Text.assemble((str(photo), "bold"), f"  {titles}  → ", (str(folder), "green"))
    top = [part for _, name, p in explained[0].top(count=3) for part in ("\n  ", (f"{p:>6.1%}", "cyan"), f"  {name}")]
    return Text.assemble((str(photo), "bold"), *top, f"\n  explained: {titles}\n  → ", (str(folder), "green"))
