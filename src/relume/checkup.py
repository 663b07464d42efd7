"""The doctor: tries on one input what relume can do with a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from relume.acceleration.prepared import prepare
from relume.engine.coverage import Coverage
from relume.engine.inputs import Output, pick
from relume.engine.layers import Layer, describe
from relume.engine.preparation import Preparation, preparation_of
from relume.engine.reading import LayerLike, Reading
from relume.engine.trace import Trace
from relume.engine.wrappers import unwrap
from relume.errors import NonFiniteError, RelumeError, TargetError
from relume.explanation.run import coverage, explain
from relume.methods.base import METHODS, Need
from relume.targets.activation import Activation, Resolved, check_activation, resolve_activation
from relume.targets.base import Target, TargetLike
from relume.targets.classes import Class
from relume.targets.fitting import fitting
from relume.targets.outputs import class_scores, tensors_in

__all__ = ["Checkup", "check"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """The findings about a network on one input.

    Attributes:
        form: the network's class, with what it is wrapped in or made of.
        parameters: the number of its parameters.
        dtype: the floating-point types of its weights, between commas.
        device: the devices of its weights, between commas.
        training: True if it is in training mode. It is explained as in evaluation mode all the same.
        outputs: what it returned, in words.
        targets: the targets that fit it, as they are written, the most usual first.
        activation: the activation that makes probabilities of its scores; None if it returns no class scores, or several
            tensors that could be the scores.
        are_probabilities: True if its scores are probabilities already; None if nothing tells what they are.
        coverage: the rectifiers that ran, and those that a rule reaches; None if this could not be found out.
        layer: the layer that Grad-CAM reads; None if it reads none.
        layer_choice: the reason for this layer, in words; empty if it was named.
        candidates: other layers with a map, the last first, without the parts of those that are named.
        troubles: the reason for each method that does not work, by key.
        backward_passes: the number of backward passes that the working methods need together for one target.
        kept_bytes: the memory that the graph of this input keeps between forward and backward pass, without weights.
        preparation: what :func:`relume.prepare` does to the network, or has done; None if it cannot be prepared.
        unprepared: the reason why it cannot be prepared.
    """

    form: str
    parameters: int
    dtype: str
    device: str
    training: bool
    outputs: str
    targets: tuple[str, ...]
    activation: Resolved | None
    are_probabilities: bool | None
    coverage: Coverage | None
    layer: str | None
    layer_choice: str
    candidates: tuple[str, ...]
    troubles: Mapping[str, str]
    backward_passes: int
    kept_bytes: int
    preparation: Preparation | None
    unprepared: str

    @property
    def works(self) -> bool:
        """Tell whether any method works."""
        return len(self.troubles) < len(METHODS)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "form": self.form,
            "parameters": self.parameters,
            "dtype": self.dtype,
            "device": self.device,
            "training": self.training,
            "outputs": self.outputs,
            "targets": list(self.targets),
            "activation": self.activation,
            "are_probabilities": self.are_probabilities,
            "coverage": None if self.coverage is None else self.coverage.as_dict(),
            "layer": self.layer,
            "layer_choice": self.layer_choice,
            "candidates": list(self.candidates),
            "methods": {key: self.troubles.get(key) for key in METHODS},
            "forward_passes": 1,
            "backward_passes": self.backward_passes,
            "kept_bytes": self.kept_bytes,
            "prepared": {"trouble": self.unprepared} if self.preparation is None else self.preparation.as_dict(),
        }


def check(
    model: nn.Module,
    images: Tensor,
    layer: LayerLike | None = None,
    *,
    activation: Activation = "auto",
    output: Output = None,
) -> Checkup:
    """Try every method on ``images``, and find out which work, why others do not, and what they cost.

    Args:
        model: the network.
        images: ``(N, C, *spatial)``, preprocessed as the network expects.
        layer: Grad-CAM's target layer, as for :func:`relume.explain`.
        activation: what its scores are, as for :func:`relume.explain`.
        output: the part of what the network returns that holds the scores, as for :func:`relume.explain`.

    Raises:
        RelumeError: the network does not run on this input, or nothing it returns depends on it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from relume.checkup import check
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> checkup = check(network, torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
        >>> checkup.works, checkup.outputs, checkup.layer, checkup.coverage.guided
        (True, '(1, 2)', '1', 1)
    """
    check_activation(activation)
    kept = _Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        trace = Trace.run(model, images, Reading())
    resolved = _activation(activation, trace, output)
    targets, target = _targets(trace, output)
    chosen, candidates = _choice(model, images, target, output)
    troubles, read = _troubles(model, images, target, layer, output)
    read = read or (chosen.name if chosen and layer is None else None)
    preparation, unprepared = _prepared(model, images)
    tensors = list(chain(model.parameters(), model.buffers()))
    return Checkup(
        form=_form(model),
        parameters=sum(p.numel() for p in model.parameters()),
        dtype=_listed(t.dtype for t in tensors if t.is_floating_point()),
        device=_listed(t.device for t in tensors),
        training=bool(getattr(model, "training", False)),
        outputs=_listed_outputs(trace),
        targets=targets,
        activation=resolved[0],
        are_probabilities=resolved[1],
        coverage=None if "gradient" in troubles else coverage(model, images, target, output=output),
        layer=read,
        layer_choice=chosen.why if chosen and layer is None else "",
        candidates=_others(candidates, read),
        troubles=troubles,
        backward_passes=len({rule for key in METHODS.keys() - troubles for _, rule in METHODS[key].needs}),
        kept_bytes=kept.bytes,
        preparation=preparation,
        unprepared=unprepared,
    )


def _troubles(
    model: nn.Module, images: Tensor, target: TargetLike, layer: LayerLike | None, output: Output
) -> tuple[dict[str, str], str | None]:
    """Try every method, and return the reasons of those that do not work, and the layer that was read."""
    troubles: dict[str, str] = {}
    read: str | None = None
    together: dict[frozenset[Need], list[str]] = {}  # they run the same passes, so what stops one of them stops all
    for key, method in METHODS.items():
        together.setdefault(method.needs, []).append(key)
    tries = list(together.values())
    for keys in tries:
        try:
            read = explain(model, images, target, keys, layer, output=output, evidence=None).layer or read
        except RelumeError as error:
            if isinstance(error, NonFiniteError) and len(keys) > 1:  # the formula of one may overflow alone
                tries += [[key] for key in keys]
            else:
                troubles |= dict.fromkeys(keys, str(error))
    return troubles, read


def _listed_outputs(trace: Trace) -> str:
    shapes = (f"{part} {tuple(tensor.shape)}".strip() for part, tensor in tensors_in(trace.outputs))
    return ", ".join(shapes) or describe(trace.outputs)


def _targets(trace: Trace, output: Output) -> tuple[tuple[str, ...], Target | None]:
    """List the targets that fit what the network returned, and give the first, None for each image's predicted class."""
    try:
        targets = fitting(pick(trace.outputs, output), len(trace.images))
    except TargetError:  # there is no such output
        return (), None
    first = next(iter(targets.values()), None)
    return tuple(targets), None if isinstance(first, Class) else first


def _activation(activation: Activation, trace: Trace, output: Output) -> tuple[Resolved | None, bool | None]:
    """Find what makes probabilities of the scores, and whether they are some already."""
    try:
        return resolve_activation(activation, class_scores(pick(trace.outputs, output), len(trace.images)))
    except TargetError:  # no class scores are among the outputs, or nothing tells which
        return None, None


def _prepared(model: nn.Module, images: Tensor) -> tuple[Preparation | None, str]:
    """Prepare the network, or return the reason why it cannot be."""
    try:
        return preparation_of(model) or preparation_of(prepare(model, images)), ""
    except RelumeError as error:
        return None, str(error)


class _Kept:
    """The memory that a graph saves: each storage counted once, without weights."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._storages = {t.untyped_storage().data_ptr() for t in chain(model.parameters(), model.buffers())}

    def pack(self, tensor: Tensor) -> Tensor:
        """Count a tensor that the graph saves."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def _choice(model: nn.Module, images: Tensor, target: TargetLike, output: Output) -> tuple[Layer | None, tuple[str, ...]]:
    """Find the layer that is chosen where none is named, and every layer with a map, the last first."""
    try:
        trace = Trace.run(model, images, Reading(targets=[] if target is None else [target], layers=None, output=output))
    except RelumeError:
        return None, ()
    return trace.layers[0], trace.candidates


def _others(candidates: tuple[str, ...], read: str | None) -> tuple[str, ...]:
    """List the candidates without the parts of those before them, and of the layer that is read."""
    others: list[str] = []
    named = [read] if read else []
    for name in candidates:
        if not any(name == other or name.startswith(f"{other}.") for other in named):
            others.append(name)
            named.append(name)
    return tuple(others)


def _form(model: nn.Module) -> str:
    """Name the class of a network, with what it is wrapped in or made of."""
    inner = unwrap(model)
    wrapped = "" if inner is model else f", inside {type(model).__name__}"
    if isinstance(inner, torch.jit.ScriptModule):
        return f"TorchScript of {getattr(inner, 'original_name', 'a module')}{wrapped}"
    kind = " graph of operations" if isinstance(inner, torch.fx.GraphModule) else ""
    return f"{type(inner).__name__}{kind}{wrapped}"


def _listed(values: Any) -> str:
    """Write each value once, between commas."""
    return ", ".join(dict.fromkeys(str(value).removeprefix("torch.") for value in values)) or "none"
