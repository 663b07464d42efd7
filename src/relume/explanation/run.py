"""One forward pass, a backward pass for each rule and target, and the maps of every method made of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from relume.engine.coverage import Coverage
from relume.engine.inputs import Inputs, Model, stacked
from relume.engine.torch_errors import Unwritten
from relume.engine.trace import Score, Trace, full_precision, recording
from relume.engine.wrappers import unwrap
from relume.errors import ModelError, NonFiniteError, TargetError
from relume.explanation.batches import Batches, Part, join, join_coverage
from relume.explanation.belief import reference, verdicts_of
from relume.explanation.copies import CopiedRun, Group, Maps, groups_of, maps_of_copies, maps_on_images
from relume.explanation.passes import compute_gradients, compute_maps, maps_of_score
from relume.explanation.quick_checks import quick_checks
from relume.explanation.remarks import Advice, another_layer, remarks
from relume.explanation.request import Layers, Options, ReadingOptions, Request, with_options
from relume.explanation.result import Explanation, compared
from relume.methods.base import METHODS, Method
from relume.methods.names import DEFAULT_METHODS
from relume.methods.wrapper import MethodLike
from relume.targets.activation import Resolved, resolve_activation
from relume.targets.base import Target, TargetLike
from relume.targets.outputs import class_scores

__all__ = ["coverage", "explain", "explanations"]


@with_options(Options)
def explain(
    model: Model,
    images: Inputs,
    target: TargetLike = None,
    methods: Iterable[MethodLike] = DEFAULT_METHODS,
    layer: Layers = None,
    **options: Unpack[Options],
) -> Explanation:
    """Explain one score of each image by any set of methods: one forward pass, one backward pass for each rule.

    Args:
        model: a network, left exactly as it is; it runs as in evaluation mode, on the device it is on.
        images: ``(N, C, *spatial)``, floating point, preprocessed as the network expects; or a sequence of positional
            inputs, or a mapping of keyword inputs, of which one is explained; a detector of torchvision may be given its list
            of images ``(C, H, W)``, all of one size.
        target: None (each image's predicted class), a class, one class per image, one of :mod:`relume.targets`, or a callable
            ``outputs -> (N,)``.
        methods: keys of :data:`relume.METHODS`, :class:`relume.Method` objects, or wrappers of either, such as
            :class:`relume.Smooth`, which take a forward pass for each batch of copies.
        layer: Grad-CAM's target layer: a module of the model, its dotted name, or None to choose the last one with spatial axes
            before pooling, or before a dense prediction, which ``layer_choice`` of the result explains; several are fused.
        **options: the following, by name.
        wrt: which of several inputs is explained, by position or name; the first floating-point tensor if None.
        output: which part of what the network returns holds the scores: a key, an index, or a callable that takes it all;
            needed where several tensors can be the scores and none is called ``logits``.
        rectifiers: ``relu`` applies the rules to the ReLU family alone, to the letter of the papers; others keep their
            ordinary gradient.
        reshape: makes a map ``(N, channels, *spatial)`` of what the target layer returns; found from its shape if None.
        batch_size: how many images run at once, at most, copies that wrappers make included; the result is that of all
            together. None for all of them, and where memory runs out for half as many, until they fit, with a warning. Of
            other inputs, tensors with a row for each image are cut alike; a callable target is called with the outputs of each
            part.
        fuse: how several layers' heat maps, each divided by its highest value, become one: their ``mean``, ``max`` or
            ``product``, which is RefineCAM (Domeniconi et al. 2026, arXiv:2605.14641).
        evidence: ``quick`` compares each map with edges of the image, and Grad-CAM with the one for the runner-up, at the
            resolution of the layer; that costs one backward pass to the layer. ``full`` compares each map with the one for the
            runner-up, at the resolution of the image; that costs every backward pass again. None compares nothing.
        activation: what the network's scores are: ``softmax`` if one class is true, ``sigmoid`` if each may be, ``none`` if
            they are no probabilities. ``auto`` looks at the end of the network's graph: what comes out of a softmax or sigmoid
            is a probability already, what comes out of a log-softmax is ``softmax``, and all else ``none``.
        labels: the class names by index, by which results, figures and files call classes.
        calibration: a :class:`relume.Calibration` of this network, from which each map gets its verdict.

    Raises:
        InputError: images, methods, target or layer do not fit, or the calibration is of another network; see
            :mod:`relume.errors`.
        ModelError: there are more or fewer labels than classes.
        GraphError: a rule cannot be applied to every rectifier of this network.
        NonFiniteError: NaN or infinity in the input, the scores or a map.

    Example:
        >>> import relume, torch
        >>> opened = relume.open_model("demo")
        >>> e = relume.explain(opened.model, torch.rand(2, 3, 96, 96), target=3, methods=["guided_backprop", "gradcam"])
        >>> e["guided_backprop"].shape, e.saliency("gradcam").shape
        (torch.Size([2, 3, 96, 96]), torch.Size([2, 96, 96]))
        >>> e.target
        tensor([3, 3])
    """
    (explanation,) = explanations(model, images, Request.of([target], methods, layer, **options))
    return explanation


@recording()
def explanations(model: Model, images: Inputs, request: Request) -> list[Explanation]:
    """Explain the targets of ``request``, which share the forward pass: an explanation for each.

    Arguments and errors are those of :func:`explain`.

    Example:
        >>> import torch
        >>> from relume.explanation import Request, explanations
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> first, second = explanations(network, torch.rand(2, 3, 4, 4), Request.of([0, 1], ["gradient"]))
        >>> first["gradient"].shape
        torch.Size([2, 3, 4, 4])
    """
    if request.calibration is not None:
        request.calibration.check(model)
    run = Unwritten(functools.partial(Trace.run, model), model)
    batches = Batches(stacked(model, images), request)
    parts: list[list[Explanation]] = []
    for part in batches:
        try:
            explained, request = _explain_part(run, part, request)
            parts.append(explained)
            batches.advance()
        except Exception as error:  # noqa: BLE001 - all but memory that ran out is raised again
            batches.halve(error)
    run.check()
    named = [replace(e, model=_name(model)) for e in join(parts, batches.limit)]
    for e in named:
        _check_labels(e)
    return compared([_judged(e, request) for e in named])


def _judged(e: Explanation, request: Request) -> Explanation:
    """Return an explanation that knows what the calibration of the request says of its methods."""
    belief, provenance = verdicts_of(request.methods, request.calibration, e.coverage, e.layer), dict(e.provenance)
    if request.calibration is not None:
        provenance["calibration"] = reference(request.calibration)
    return replace(e, belief=belief, provenance=provenance)


def _name(model: Model) -> str:
    return type(unwrap(model)).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", repr(model))


def _check_labels(e: Explanation) -> None:
    if e.labels is not None and e.scores.ndim == 2 and len(e.labels) != e.scores.shape[1]:
        raise ModelError(
            f"{len(e.labels)} labels were given for a network of {e.scores.shape[1]} classes; give one line for each"
        )


def _explain_part(run: Callable[..., Trace], part: Part, request: Request) -> tuple[list[Explanation], Request]:
    """Explain images that run together, and return the request with what the first part decided for all others."""
    trace = run(part.inputs, replace(request, targets=part.targets))
    groups = groups_of(request.wrappers)
    explained, replacing = _explain_trace(trace, part.targets, groups, request)
    maps: list[Maps] = [dict(e.maps) for e in explained]
    decided = replace(request, layers=[layer.name for layer in trace.layers], activation="none")
    copied = CopiedRun(run, part.inputs, trace.images.detach(), decided, part.limit)
    del trace  # and the graph with it, before the copies make theirs
    for group, targets in zip(groups, replacing, strict=True):
        if group.has_copies and targets:
            maps = [own | more for own, more in zip(maps, maps_of_copies(group, targets, copied), strict=True)]
    infos = {info.key: info for method in request.methods for info in method.maps}
    ordered = [replace(e, maps={key: m[key] for key in infos}, infos=infos) for e, m in zip(explained, maps, strict=True)]
    return ordered, decided


def _explain_trace(
    trace: Trace, targets: Sequence[Target], groups: Sequence[Group], request: Request
) -> tuple[list[Explanation], list[list[list[Target]]]]:
    """Explain each target from a pass that ran, and decide for each group what is explained in its place in copies."""
    scores = [trace.score(target) for target in targets]
    replacing = [[group.scores(trace, score) for score in scores] for group in groups]
    activation = resolve_activation(request.activation, _outputs(trace, scores[0])) if scores else ("none", None)
    wrapped = [method for group in groups if not group.has_copies for method in group.methods]
    explained = []
    for i, score in enumerate(scores):
        e, known = _explanation(trace, score, request, wrapped, activation, last=score is scores[-1] and not wrapped)
        maps = dict(e.maps)
        for group, of_group in zip(groups, replacing, strict=True):
            maps |= {} if group.has_copies else maps_on_images(group, trace, of_group[i], request.fuse, {score: known})
        explained.append(replace(e, maps=maps))
    return explained, [[[s.target for s in of_score] for of_score in of_group] for of_group in replacing]


def _explanation(
    trace: Trace,
    score: Score,
    request: Request,
    wrapped: Sequence[Method],
    activation: tuple[Resolved, bool | None],
    *,
    last: bool,
) -> tuple[Explanation, dict[Method, Tensor]]:
    """Explain one score by the methods that are no wrappers, and give the maps of the ``wrapped`` ones, by the same passes.

    ``last`` tells that the graph is not needed after it.
    """
    methods = [method for method in request.methods if isinstance(method, Method)]
    reached = trace.coverage(score)  # before the last backward pass, which frees what the graph knows
    others = _maps_of_runner_up(trace, score, methods, request)
    gradients = compute_gradients(trace, score, [*methods, *wrapped], request.fuse, last=last)
    maps, target = compute_maps(trace, gradients, methods), score.target
    known = {method: compute_maps(trace, gradients, [method])[method.key] for method in wrapped}
    layers = [layer.name for layer in trace.layers]
    another = another_layer(trace.candidates, layers[-1]) if layers else None
    with full_precision(trace.images.device.type):
        reasons = remarks(gradients, maps, methods, Advice(layers, another, "target" if target.classes is None else "class"))
    del gradients  # before maps are ranked, which takes memory too
    infos, evidence = {info.key: info for method in methods for info in method.maps}, None
    if request.evidence is not None and methods:
        evidence = quick_checks(trace.images, maps, infos, *others, coarse=request.evidence == "quick")
    was_chosen = request.layers is None
    explanation = Explanation(
        maps=maps,
        infos=infos,
        images=trace.images.detach(),
        target=target.classes,
        score=score.value.detach(),
        scores=_outputs(trace, score).detach(),
        coverage=reached,
        layer=", ".join(layers) or None,
        model="",
        activation=activation[0],
        are_probabilities=activation[1],
        versus=target.versus,
        labels=request.labels,
        description=_description(target, len(trace.images), request.labels),
        evidence=evidence,
        remarks=reasons,
        layer_choice=trace.layers[0].why if was_chosen else None,
        runner_up_layer=another if was_chosen else None,
    )
    return explanation, known


def _description(target: Target, count: int, labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """Say what is explained in each image, where classes do not say it all."""
    words = [target.words(image, labels) for image in range(count)]
    return None if None in words else tuple(map(str, words))


def _maps_of_runner_up(
    trace: Trace, score: Score, methods: Sequence[Method], request: Request
) -> tuple[Maps | None, Tensor | None]:
    """Compute the maps that others are compared with, and their class in each image: for ``quick``, Grad-CAM alone."""
    compared_methods = {"full": methods, "quick": [m for m in methods if m == METHODS["gradcam"]], None: []}[request.evidence]
    rival = _runner_up(trace, score) if compared_methods else None
    if rival is None:
        return None, None
    try:
        return maps_of_score(trace, rival, compared_methods, request.fuse, last=False), rival.target.classes
    except NonFiniteError:  # of a class that nobody asked for
        return None, None


def _runner_up(trace: Trace, score: Score) -> Score | None:
    """Find the score of the highest class but the one explained in each image; None where no class is explained."""
    scores, target = _outputs(trace, score).detach(), score.target
    if target.classes is None or target.versus is not None or scores.ndim != 2 or scores.shape[1] < 2:
        return None
    return trace.score(scores.scatter(1, target.classes[:, None], -torch.inf).argmax(1))


def _outputs(trace: Trace, score: Score) -> Tensor:
    """Return the class scores with their graph, or the score where there are none."""
    if not score.target.has_class_scores:
        return score.value
    try:
        return class_scores(trace.outputs, len(trace.images))
    except TargetError:  # what was explained is something else than a class, or nothing tells which of several are the scores
        return score.value


@with_options(ReadingOptions)
def coverage(model: Model, images: Inputs, target: TargetLike = None, **options: Unpack[ReadingOptions]) -> Coverage:
    """List the rectifiers that run between the input and the score of ``target``, and those that a rule reaches.

    It costs one forward pass. Arguments and errors are those of :func:`explain`.

    Example:
        >>> import relume, torch
        >>> print(relume.coverage(relume.open_model("demo").model, torch.rand(1, 3, 96, 96)))
        rectifier    ran  guided
        relu          13      13
    """
    request = Request(targets=[target], **options)
    batches = Batches(stacked(model, images), request)
    parts: list[Coverage] = []
    for part in batches:
        try:
            trace = Trace.run(model, part.inputs, replace(request, targets=part.targets))
            parts.append(trace.coverage(trace.score(part.targets[0])))
            batches.advance()
        except Exception as error:  # noqa: BLE001 - all but memory that ran out is raised again
            batches.halve(error)
    return join_coverage(parts)
