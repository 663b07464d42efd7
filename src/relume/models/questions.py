"""Questions in words: the targets that the command's ``--ask KIND:ARGS`` means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from relume.errors import RelumeError, TargetError
from relume.models.labels import class_index, parse_targets
from relume.targets import (
    Binary,
    Channel,
    Contrast,
    Detection,
    Embedding,
    Nearest,
    Neuron,
    Probability,
    Regression,
    Segmentation,
)

if TYPE_CHECKING:
    from relume.models.opened import Opened
    from relume.targets import Target

__all__ = ["QUESTIONS", "parse_question"]


def parse_question(text: str, opened: Opened) -> Target:
    """Read a question about a network, such as ``regression:up`` or ``detection:17``; classes may be named.

    Args:
        text: ``KIND:ARGS``; :data:`QUESTIONS` has the kinds, and how each is written.
        opened: the network, whose labels name classes, and which makes the embedding of another photo.

    Raises:
        TargetError: there is no such kind, or its arguments are others.
        ImageError: the photo of an embedding cannot be read.

    Example:
        >>> import relume
        >>> demo = relume.open_model("demo", "cpu")
        >>> print(parse_question("probability:cat", demo), parse_question("regression:up", demo), sep="; ")
        the probability of class 4; the value up
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in QUESTIONS:
        raise TargetError(f"--ask is KIND:ARGS, with a kind of {', '.join(QUESTIONS)}; got {text!r}")
    form, read = QUESTIONS[kind]
    try:
        return read(rest.strip(), opened)
    except RelumeError:
        raise
    except ValueError:
        raise TargetError(f"--ask {kind} is written {form}; got {text!r}") from None


def _class(text: str, opened: Opened) -> int:
    if not text.strip():
        raise ValueError(text)
    return class_index(text.strip(), opened.labels)


def _probability(rest: str, opened: Opened) -> Target:
    return Probability(_class(rest, opened) if rest else None)


def _binary(rest: str, _: Opened) -> Target:
    if rest not in ("yes", "no"):
        raise ValueError(rest)
    return Binary(rest == "yes")


def _regression(rest: str, _: Opened) -> Target:
    return Regression(rest if rest in ("up", "down") else float(rest))


def _contrast(rest: str, opened: Opened) -> Target:
    target, against, gamma = (*rest.split(":"), "1") if rest.count(":") == 1 else rest.split(":")
    nearest = re.fullmatch(r"nearest(\d+)", against.strip())
    others = Nearest(int(nearest[1])) if nearest else parse_targets(against, opened.labels)
    own = _class(target, opened) if target.strip() else None
    return Contrast(own, others[0] if isinstance(others, list) and len(others) == 1 else others, float(gamma))


def _embedding(rest: str, opened: Opened) -> Target:
    dot = re.fullmatch(r"(.+):(cosine|dot)", rest)
    photo = dot[1] if dot else rest
    if not photo:
        raise ValueError(rest)
    return Embedding(opened.embedding(photo), "dot" if dot and dot[2] == "dot" else "cosine")


def _segmentation(rest: str, opened: Opened) -> Target:
    return Segmentation(_class(rest, opened))


def _detection(rest: str, opened: Opened) -> Target:
    label, *choices = rest.split(":")
    own = _class(label, opened) if label.strip() else None
    if not choices:
        return Detection(own)
    choice, _, value = ":".join(choices).partition("=")
    if choice == "sum" and not value:
        return Detection(own, reduce="sum")
    if choice == "index":
        return Detection(own, index=int(value))
    if choice == "box":
        return Detection(own, box=tuple(float(part) for part in value.split(",")))
    raise ValueError(rest)


def _channel(rest: str, _: Opened) -> Target:
    layer, channel = rest.rsplit(":", 1)
    return Channel(layer, _place(channel))


def _neuron(rest: str, _: Opened) -> Target:
    layer, channel, place = (*rest.split(":"), "") if rest.count(":") == 1 else rest.split(":")
    return Neuron(layer, _place(channel), tuple(map(_place, place.split(","))) if place else None)


def _place(text: str) -> int | slice:
    """Read an index ``3``, or a range ``0-8``, whose end is not in it."""
    start, to, stop = text.strip().partition("-")
    return slice(int(start), int(stop)) if to else int(start)


#: How each kind is written, and what reads its arguments.
QUESTIONS: Mapping[str, tuple[str, Callable[[str, Opened], Target]]] = {
    "probability": ("probability:CLASS", _probability),
    "binary": ("binary:yes or binary:no", _binary),
    "regression": ("regression:up, regression:down or regression:VALUE", _regression),
    "contrast": ("contrast:CLASS:CLASSES[:GAMMA], with nearest3 for the three nearest classes", _contrast),
    "embedding": ("embedding:PHOTO[:dot]", _embedding),
    "segmentation": ("segmentation:CLASS", _segmentation),
    "detection": ("detection:CLASS[:index=NUMBER], detection:CLASS:box=X0,Y0,X1,Y1 or detection:CLASS:sum", _detection),
    "channel": ("channel:LAYER:CHANNEL, with 0-8 for eight channels", _channel),
    "neuron": ("neuron:LAYER:CHANNEL[:Y,X], with 0-8 for a range", _neuron),
}
