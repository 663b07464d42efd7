"""One forward pass, a backward pass for each rule and target, and the maps of every method made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from relume.answer import Coverage
from relume.errors import InputError, LayerError, NonFiniteError, TargetError
from relume.layers import LayerLike, Reshape
from relume.methods import Fuse, Gathered, Method, resolve_methods
from relume.result import Explanation
from relume.rules import Rule
from relume.targets import TargetLike, class_scores
from relume.trace import Inputs, Model, Output, Score, Trace, full_precision, recording

__all__ = ["Options", "Rectifiers", "coverage", "explain", "explain_targets"]

Rectifiers: TypeAlias = Literal["all", "relu"]


class Options(TypedDict, total=False):
    """What may be said of an explanation beside model, images, target, methods and layer: see :func:`explain`."""

    wrt: int | str | None
    output: Output
    rectifiers: Rectifiers
    reshape: Reshape | None
    fuse: Fuse


def explain(
    model: Model,
    images: Inputs,
    target: TargetLike = None,
    methods: Iterable[str | Method] = ("guided_backprop", "guided_gradcam"),
    layer: LayerLike | Sequence[LayerLike] | None = None,
    *,
    wrt: int | str | None = None,
    output: Output = None,
    rectifiers: Rectifiers = "all",
    reshape: Reshape | None = None,
    fuse: Fuse = "mean",
) -> Explanation:
    """Explain one score of each image by any set of methods: one forward pass, one backward pass for each rule.

    Args:
        model: a network, left exactly as it is; it runs as in evaluation mode, on the device it is on.
        images: ``(N, C, *spatial)``, floating point, preprocessed as the network expects; or a sequence of positional
            inputs, or a mapping of keyword inputs, of which one is explained.
        target: None (each image's predicted class), a class, one class per image, one of :mod:`relume.targets`, or a callable
            ``outputs -> (N,)``.
        methods: keys of :data:`METHODS`, or :class:`Method` objects.
        layer: Grad-CAM's target layer: a module of the model, its dotted name, or None for the last one with spatial axes
            before pooling; several are fused into one heat map.
        wrt: which of several inputs is explained, by position or name; the first floating-point tensor if None.
        output: which part of what the network returns holds the scores: a key, an index, or a callable that takes it all.
        rectifiers: ``relu`` applies the rules to the ReLU family alone, to the letter of the papers; others keep their
            ordinary gradient.
        reshape: makes a map ``(N, channels, *spatial)`` of what the target layer returns; found from its shape if None.
        fuse: how several layers' heat maps, each divided by its highest value, become one: their ``mean`` or ``max``.

    Raises:
        InputError: images, methods, target or layer do not fit; see :mod:`relume.errors`.
        GraphError: a rule cannot be applied to every rectifier of this network.
        NonFiniteError: NaN or infinity in the input, the scores or a map.
    """
    options: Options = {"wrt": wrt, "output": output, "rectifiers": rectifiers, "reshape": reshape, "fuse": fuse}
    return explain_targets(model, images, [target], methods, layer, **options)[0]


@recording()
def explain_targets(
    model: Model,
    images: Inputs,
    targets: Sequence[TargetLike],
    methods: Iterable[str | Method] = ("guided_backprop", "guided_gradcam"),
    layer: LayerLike | Sequence[LayerLike] | None = None,
    *,
    wrt: int | str | None = None,
    output: Output = None,
    rectifiers: Rectifiers = "all",
    reshape: Reshape | None = None,
    fuse: Fuse = "mean",
) -> list[Explanation]:
    """:func:`explain` for several targets of the same images, which share the forward pass: an explanation for each."""
    asked = resolve_methods(methods)
    _check_choice("rectifiers", rectifiers, ("all", "relu"))
    _check_choice("fuse", fuse, ("mean", "max"))
    trace = Trace.run(
        model,
        images,
        _layers(layer) if any(m.needs_layer for m in asked) else (),
        targets=targets,
        reshape=reshape,
        wrt=wrt,
        output=output,
        relu_only=rectifiers == "relu",
    )
    scores = [trace.score(target) for target in targets]
    return [
        Explanation(
            coverage=trace.coverage(score),
            maps=_maps(trace, score, asked, fuse, last=score is scores[-1]),
            images=trace.images.detach(),
            target=score.classes,
            score=score.value.detach(),
            scores=_scores(trace, score),
            layer=", ".join(read.name for read in trace.layers) or None,
            model=type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", repr(model)),
            versus=score.versus,
            unit=score.unit,
        )
        for score in scores
    ]


def _layers(layer: LayerLike | Sequence[LayerLike] | None) -> Sequence[LayerLike] | None:
    """The layers asked for, None where they are to be chosen."""
    if layer is None or isinstance(layer, str) or not isinstance(layer, Sequence):
        return None if layer is None else [layer]
    if not layer:
        raise LayerError("no target layer is in an empty list; name at least one, or give None to choose")
    return layer


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {' or '.join(map(repr, choices))}; got {value!r}")


def _maps(trace: Trace, score: Score, methods: Sequence[Method], fuse: Fuse, *, last: bool) -> dict[str, Tensor]:
    """Every method's map from one backward pass for each rule; ``last`` if the graph is not needed after them."""
    passes: dict[Rule, set[str]] = {}
    for where, rule in dict.fromkeys(need for method in methods for need in sorted(method.needs, key=lambda n: n[0])):
        passes.setdefault(rule, set()).add(where)
    inputs: dict[Rule, Tensor] = {}
    layers: dict[Rule, list[Tensor]] = {}
    for i, (rule, places) in enumerate(passes.items(), start=1):
        ends = [trace.images] * ("input" in places) + [layer.output for layer in trace.layers] * ("layer" in places)
        gradients = trace.grad(score, ends, rule, last=last and i == len(passes))
        if "input" in places:
            inputs[rule] = gradients.pop(0)
        if "layer" in places:
            layers[rule] = [layer.map(g) for layer, g in zip(trace.layers, gradients, strict=True)]
    found = Gathered(inputs, layers, [layer.map(layer.output.detach()) for layer in trace.layers], fuse)
    with full_precision(trace.images.device.type):
        return {m.key: _finite(m.key, m.compute(found)) for m in methods}


def _finite(key: str, values: Tensor) -> Tensor:
    if torch.isfinite(values).all():
        return values.detach()
    raise NonFiniteError(
        f"the {key} map holds NaN or infinity although the scores are finite: the gradient overflowed; try a wider dtype"
    )


def _scores(trace: Trace, score: Score) -> Tensor:
    try:
        return class_scores(trace.outputs).detach()
    except TargetError:  # a callable target explained something else than classes
        return score.value.detach()


def coverage(
    model: Model,
    images: Inputs,
    target: TargetLike = None,
    *,
    wrt: int | str | None = None,
    output: Output = None,
    rectifiers: Rectifiers = "all",
) -> Coverage:
    """Which rectifiers run between the input and the score of ``target``, and which of them a rule reaches.

    Costs one forward pass. Print it: it is a small table. Arguments and errors are those of :func:`explain`.
    """
    _check_choice("rectifiers", rectifiers, ("all", "relu"))
    trace = Trace.run(model, images, targets=[target], wrt=wrt, output=output, relu_only=rectifiers == "relu")
    return trace.coverage(trace.score(target))
