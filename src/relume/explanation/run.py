"""One forward pass, a backward pass for each rule and target, and the maps of every method made of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from relume.engine.coverage import Coverage
from relume.engine.inputs import Inputs, Model, Output, all_finite
from relume.engine.reading import LayerLike, Reading, Rectifiers, Reshape
from relume.engine.torch_errors import Unwritten
from relume.engine.trace import Score, Trace, full_precision, recording
from relume.engine.wrappers import unwrap
from relume.errors import InputError, LayerError, NonFiniteError, TargetError
from relume.explanation.answer import compared
from relume.explanation.chunks import in_chunks, join, join_coverage
from relume.explanation.copies import check_places, repeat
from relume.explanation.quick_checks import Evidence
from relume.explanation.remarks import Advice, another_layer, remarks
from relume.explanation.result import Explanation
from relume.methods.base import Method
from relume.methods.gradients import Fuse, Gradients
from relume.methods.wrapper import AnyMethod, MethodLike, Wrapper, resolve_methods
from relume.rules import Rule
from relume.targets.activation import Activation, check_activation, resolve_activation
from relume.targets.base import TargetLike
from relume.targets.conversion import as_target
from relume.targets.outputs import class_scores

__all__ = ["Options", "coverage", "explain", "explain_targets"]


class Options(TypedDict, total=False):
    """What may be said of an explanation beside model, images, target, methods and layer: see :func:`explain`."""

    wrt: int | str | None
    output: Output
    rectifiers: Rectifiers
    reshape: Reshape | None
    fuse: Fuse
    evidence: bool
    activation: Activation
    chunk: int | None


def explain(  # noqa: PLR0913 - each is a choice of the caller's
    model: Model,
    images: Inputs,
    target: TargetLike = None,
    methods: Iterable[MethodLike] = ("guided_backprop", "guided_gradcam"),
    layer: LayerLike | Sequence[LayerLike] | None = None,
    *,
    wrt: int | str | None = None,
    output: Output = None,
    rectifiers: Rectifiers = "all",
    reshape: Reshape | None = None,
    fuse: Fuse = "mean",
    evidence: bool = True,
    activation: Activation = "auto",
    chunk: int | None = None,
) -> Explanation:
    """Explain one score of each image by any set of methods: one forward pass, one backward pass for each rule.

    Args:
        model: a network, left exactly as it is; it runs as in evaluation mode, on the device it is on.
        images: ``(N, C, *spatial)``, floating point, preprocessed as the network expects; or a sequence of positional
            inputs, or a mapping of keyword inputs, of which one is explained.
        target: None (each image's predicted class), a class, one class per image, one of :mod:`relume.targets`, or a callable
            ``outputs -> (N,)``.
        methods: keys of :data:`METHODS`, :class:`Method` objects, or wrappers of either, such as :class:`relume.Smooth`,
            which take a forward pass for each batch of copies.
        layer: Grad-CAM's target layer: a module of the model, its dotted name, or None to choose the last one with spatial axes
            before pooling, or before a dense prediction, which ``source["layer_choice"]`` explains; several are fused.
        wrt: which of several inputs is explained, by position or name; the first floating-point tensor if None.
        output: which part of what the network returns holds the scores: a key, an index, or a callable that takes it all;
            needed where several tensors can be the scores and none is called ``logits``.
        rectifiers: ``relu`` applies the rules to the ReLU family alone, to the letter of the papers; others keep their
            ordinary gradient.
        reshape: makes a map ``(N, channels, *spatial)`` of what the target layer returns; found from its shape if None.
        fuse: how several layers' heat maps, each divided by its highest value, become one: their ``mean`` or ``max``.
        evidence: whether each map is compared with the one for the runner-up and with edges of the image, beside it in the
            result; it costs the backward passes again, for the runner-up.
        activation: what the network's scores are: ``softmax`` if one class is true, ``sigmoid`` if each may be, ``none`` if
            they are no probabilities. ``auto`` looks at the end of the network's graph: what comes out of a softmax or sigmoid
            is a probability already, what comes out of a log-softmax is ``softmax``, and all else ``none``.
        chunk: how many images run at once, at most, copies that wrappers make included; the result is that of all together.
            None for all of them, and where memory runs out for half as many, until they fit, with a warning. Of other inputs,
            tensors with a row for each image are cut alike; a callable target is asked about the outputs of each part.

    Raises:
        InputError: images, methods, target or layer do not fit; see :mod:`relume.errors`.
        GraphError: a rule cannot be applied to every rectifier of this network.
        NonFiniteError: NaN or infinity in the input, the scores or a map.
    """
    options: Options = {
        "wrt": wrt,
        "output": output,
        "rectifiers": rectifiers,
        "reshape": reshape,
        "fuse": fuse,
        "evidence": evidence,
        "activation": activation,
        "chunk": chunk,
    }
    return explain_targets(model, images, [target], methods, layer, **options)[0]


@recording()
def explain_targets(  # noqa: PLR0913 - as above
    model: Model,
    images: Inputs,
    targets: Sequence[TargetLike],
    methods: Iterable[MethodLike] = ("guided_backprop", "guided_gradcam"),
    layer: LayerLike | Sequence[LayerLike] | None = None,
    *,
    wrt: int | str | None = None,
    output: Output = None,
    rectifiers: Rectifiers = "all",
    reshape: Reshape | None = None,
    fuse: Fuse = "mean",
    evidence: bool = True,
    activation: Activation = "auto",
    chunk: int | None = None,
) -> list[Explanation]:
    """:func:`explain` for several targets of the same images, which share the forward pass: an explanation for each."""
    asked = resolve_methods(methods)
    _check_choice("rectifiers", rectifiers, ("all", "relu"))
    _check_choice("fuse", fuse, ("mean", "max"))
    check_activation(activation)
    check_places(asked, targets)
    run = Unwritten(functools.partial(Trace.run, model), model)
    reading = Reading(reshape=reshape, wrt=wrt, output=output, rectifiers=rectifiers)
    name = type(unwrap(model)).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", repr(model))
    wrappers = [method for method in asked if isinstance(method, Wrapper)]
    generators = {id(generator): generator for wrapper in wrappers for generator in wrapper.generators}

    def ask(inputs: Inputs, targets: Sequence[TargetLike], limit: int | None, first: _Part | None) -> _Part:
        read = _layers(layer) if any(m.needs_layer for m in asked) else ()
        # the activation of the first part is that of all: joined, they have its
        said = "none" if first else activation
        layers = first[1] if first else read
        part = replace(reading, layers=layers, targets=targets)
        return _explained(run, name, inputs, part, asked, fuse, said, evidence=evidence, limit=limit)

    copies = max((wrapper.batch_size for wrapper in wrappers), default=1)
    parts, at_once = in_chunks(ask, images, targets, wrt=wrt, chunk=chunk, copies=copies, generators=[*generators.values()])
    run.check()
    return compared(join([found for found, _ in parts], at_once))


#: The explanation of some images for each target, and the layers that were read.
_Part: TypeAlias = "tuple[list[Explanation], list[str]]"


def _explained(
    run: Callable[..., Trace],
    name: str,
    inputs: Inputs,
    reading: Reading,
    asked: Sequence[AnyMethod],
    fuse: Fuse,
    activation: Activation,
    *,
    evidence: bool,
    limit: int | None,
) -> _Part:
    """The explanations of inputs that run together, wrappers' copies of them no more than ``limit`` at once."""
    trace = run(inputs, reading)
    scores = [trace.score(target) for target in reading.targets]
    resolved, are_probabilities = resolve_activation(activation, _outputs(trace, scores[0])) if scores else ("none", None)
    once = [method for method in asked if isinstance(method, Method)]
    read = [layer.name for layer in trace.layers]
    another = another_layer(trace.candidates, read[-1]) if read else None
    found = [_answered(trace, score, once, fuse, another, evidence=evidence, last=score is scores[-1]) for score in scores]
    explained = [
        Explanation(
            coverage=reached,
            maps=maps,
            images=trace.images.detach(),
            target=score.target.classes,
            score=score.value.detach(),
            scores=_outputs(trace, score).detach(),
            layer=", ".join(read) or None,
            model=name,
            activation=resolved,
            are_probabilities=are_probabilities,
            versus=score.target.versus,
            unit=None if score.target.layer is None else str(score.target),
            evidence=told,
            remarks=said,
            infos={info.key: info for method in asked for info in method.maps},
            source={"layer_choice": trace.layers[0].why, "runner_up_layer": another} if reading.layers is None else {},
        )
        for score, (reached, maps, told, said) in zip(scores, found, strict=True)
    ]
    if len(once) == len(asked) or not reading.targets:
        return explained, read
    again = replace(reading, targets=[score.target for score in scores], layers=read)
    question = _Question(run, inputs, again, fuse)
    del trace, scores  # and the graph with them, before the copies make theirs
    return _with_copies(explained, asked, question, limit), read


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What was asked of the images, to be asked of copies of them: the same scores, read at the same layers."""

    run: Callable[..., Trace]
    inputs: Inputs
    reading: Reading
    fuse: Fuse

    @property
    def stackable(self) -> bool:
        """Whether several copies can be one batch: nothing tells how other inputs, or a callable's outputs, would follow."""
        alone = isinstance(self.inputs, Tensor) or len(self.inputs) == 1
        return alone and all(as_target(target).repeated(1) is not None for target in self.reading.targets)

    def of(self, copies: Sequence[Tensor], methods: Sequence[Method]) -> list[list[dict[str, Tensor]]]:
        """Each copy's maps for each target, all from one forward pass."""
        targets = [as_target(target).repeated(len(copies)) or target for target in self.reading.targets]
        trace = self.run(self.inputs, replace(self.reading, targets=targets), torch.cat([*copies]))
        scores = [trace.score(target) for target in targets]
        found = [_maps(trace, score, methods, self.fuse, last=score is scores[-1]) for score in scores]
        size = len(copies[0])
        return [
            [{key: m[i : i + size] for key, m in maps.items()} for maps in found] for i in range(0, len(trace.images), size)
        ]


def _with_copies(
    explained: Sequence[Explanation], asked: Sequence[AnyMethod], question: _Question, limit: int | None
) -> list[Explanation]:
    """The explanations with the maps of wrappers too, all in the order asked for."""
    wrappers = [method for method in asked if isinstance(method, Wrapper)]
    repeated = repeat(wrappers, explained[0].images, question.of, stackable=question.stackable, limit=limit)
    keys = [info.key for method in asked for info in method.maps]
    return [
        replace(e, maps={key: e[key] if key in e else _finite(key, maps[key]) for key in keys})
        for e, maps in zip(explained, repeated, strict=True)
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


def _answered(
    trace: Trace, score: Score, methods: Sequence[Method], fuse: Fuse, another: str | None, *, evidence: bool, last: bool
) -> tuple[Coverage, dict[str, Tensor], Evidence | None, dict[str, tuple[str, ...]]]:
    """Find what was reached, every method's map, what a glance at them tells, and why a map is empty or weak."""
    reached = trace.coverage(score)  # before the last backward pass, which frees what the graph knows
    rival = _runner_up(trace, score) if evidence and methods else None
    found = _gathered(trace, score, methods, fuse, last=last and rival is None)
    advice = Advice([layer.name for layer in trace.layers], another, "target" if score.target.classes is None else "class")
    with full_precision(trace.images.device.type):
        maps = _made(found, methods)
        said = remarks(found, maps, methods, advice)
    del found  # and its gradients, before the runner-up has its own
    if not evidence or not methods:
        return reached, maps, None, said
    from relume.explanation.quick_checks import glance

    try:
        others = None if rival is None else _maps(trace, rival, methods, fuse, last=last)
    except NonFiniteError:  # of a class that nobody asked for
        others = None
    return (
        reached,
        maps,
        glance(
            trace.images,
            maps,
            {info.key: info for method in methods for info in method.maps},
            others,
            None if rival is None else rival.target.classes,
        ),
        said,
    )


def _runner_up(trace: Trace, score: Score) -> Score | None:
    """The score of the highest class but the one explained in each image; None where a class is not what is explained."""
    scores = _outputs(trace, score).detach()
    if score.target.classes is None or score.target.versus is not None or scores.ndim != 2 or scores.shape[1] < 2:
        return None
    return trace.score(scores.scatter(1, score.target.classes[:, None], -torch.inf).argmax(1))


def _maps(trace: Trace, score: Score, methods: Sequence[Method], fuse: Fuse, *, last: bool) -> dict[str, Tensor]:
    """Every method's map from one backward pass for each rule; ``last`` if the graph is not needed after them."""
    found = _gathered(trace, score, methods, fuse, last=last)
    with full_precision(trace.images.device.type):
        return _made(found, methods)


def _made(found: Gradients, methods: Sequence[Method]) -> dict[str, Tensor]:
    return {m.key: _finite(m.key, m.compute(found)) for m in methods}


def _gathered(trace: Trace, score: Score, methods: Sequence[Method], fuse: Fuse, *, last: bool) -> Gradients:
    """Gather what the methods make their maps of."""
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
            layers[rule] = [trace.wide(layer.map(g)) for layer, g in zip(trace.layers, gradients, strict=True)]
    return Gradients(inputs, layers, [trace.wide(layer.map(layer.output.detach())) for layer in trace.layers], fuse)


def _finite(key: str, values: Tensor) -> Tensor:
    if all_finite(values):
        return values.detach().contiguous()  # a prepared network lays them out otherwise
    raise NonFiniteError(
        f"the {key} map holds NaN or infinity although the scores are finite: the gradient overflowed; try a wider dtype"
    )


def _outputs(trace: Trace, score: Score) -> Tensor:
    """The class scores, with their graph."""
    try:
        return class_scores(trace.outputs, len(trace.images))
    except TargetError:  # what was explained is something else than a class, or nothing tells which of several are the scores
        return score.value


def coverage(
    model: Model,
    images: Inputs,
    target: TargetLike = None,
    *,
    wrt: int | str | None = None,
    output: Output = None,
    rectifiers: Rectifiers = "all",
    chunk: int | None = None,
) -> Coverage:
    """Which rectifiers run between the input and the score of ``target``, and which of them a rule reaches.

    Costs one forward pass. Print it: it is a small table. Arguments and errors are those of :func:`explain`.
    """
    _check_choice("rectifiers", rectifiers, ("all", "relu"))

    def ask(inputs: Inputs, targets: Sequence[TargetLike], _limit: int | None, _first: Coverage | None) -> Coverage:
        trace = Trace.run(model, inputs, Reading(targets=targets, wrt=wrt, output=output, rectifiers=rectifiers))
        return trace.coverage(trace.score(targets[0]))

    return join_coverage(in_chunks(ask, images, [target], wrt=wrt, chunk=chunk)[0])
