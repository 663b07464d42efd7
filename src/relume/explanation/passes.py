"""The backward passes of one score, and the maps of every method made of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from relume.engine.inputs import all_finite
from relume.engine.trace import Score, Trace, full_precision
from relume.errors import InputError, NonFiniteError
from relume.maps import MapInfo
from relume.methods.base import Method
from relume.methods.gradients import Fuse, Gradients
from relume.rules import Rule

__all__ = ["check_finite", "compute_gradients", "compute_maps", "maps_of_score"]


def maps_of_score(trace: Trace, score: Score, methods: Sequence[Method], fuse: Fuse, *, last: bool) -> dict[str, Tensor]:
    """Compute every method's map of one score; ``last`` if the graph is not needed after it."""
    return compute_maps(trace, compute_gradients(trace, score, methods, fuse, last=last), methods)


def compute_gradients(trace: Trace, score: Score, methods: Sequence[Method], fuse: Fuse, *, last: bool) -> Gradients:
    """Compute what the methods make their maps of, by one backward pass for each rule."""
    passes: dict[Rule, set[str]] = {}
    for place, rule in dict.fromkeys(need for method in methods for need in sorted(method.needs, key=lambda n: n[0])):
        passes.setdefault(rule, set()).add(place)
    inputs: dict[Rule, Tensor] = {}
    layers: dict[Rule, list[Tensor]] = {}
    for i, (rule, places) in enumerate(passes.items(), start=1):
        ends = [trace.images] * ("input" in places) + [layer.output for layer in trace.layers] * ("layer" in places)
        gradients = trace.grad(score, ends, rule, last=last and i == len(passes))
        if "input" in places:
            inputs[rule] = gradients.pop(0)
        if "layer" in places:
            layers[rule] = [trace.wide(layer.map(g)) for layer, g in zip(trace.layers, gradients, strict=True)]
    activations = [trace.wide(layer.map(layer.output.detach())) for layer in trace.layers]
    return Gradients(inputs, layers, activations, fuse, trace.images.detach())


def compute_maps(trace: Trace, gradients: Gradients, methods: Sequence[Method]) -> dict[str, Tensor]:
    """Compute every method's map, and refuse one that is not finite or not of the place that its method says."""
    maps: dict[str, Tensor] = {}
    with full_precision(trace.images.device.type):
        for method in methods:
            (info,) = method.maps
            maps[info.key] = check_finite(info.key, _check_place(info, method.compute(gradients), trace.images))
    return maps


def check_finite(key: str, values: Tensor) -> Tensor:
    """Return a map, detached and in ordinary memory order.

    Raises:
        NonFiniteError: it holds NaN or infinity.
    """
    if all_finite(values):
        return values.detach().contiguous()  # a prepared network lays them out otherwise
    raise NonFiniteError(
        f"the {key} map holds NaN or infinity although the scores are finite: the gradient overflowed, or a weight "
        "that the score does not depend on is not finite; try a wider dtype, or mend the weights"
    )


def _check_place(info: MapInfo, values: Tensor, images: Tensor) -> Tensor:
    if info.place == "layer" or values.ndim == images.ndim:
        return values
    raise InputError(
        f"the {info.key} map has shape {tuple(values.shape)}, and its method says that it has the input's, "
        f"{tuple(images.shape)}; give the method place='layer' if its map is coarse and without channels"
    )
