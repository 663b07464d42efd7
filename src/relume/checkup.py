"""The doctor: what relume can do with a network, found by doing it once."""

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
from relume.engine.layer_choice import describe
from relume.engine.layers import Layer
from relume.engine.preparation import Preparation, preparation_of
from relume.engine.reading import LayerLike, Reading
from relume.engine.trace import Trace
from relume.engine.wrappers import unwrap
from relume.errors import RelumeError, TargetError
from relume.explanation.run import coverage, explain
from relume.methods.base import METHODS
from relume.targets.activation import Activation, Resolved, check_activation, resolve_activation
from relume.targets.outputs import class_scores, tensors_in

__all__ = ["Checkup", "check"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found out about a network on one input.

    Attributes:
        form: its class, and what it is wrapped in or made of.
        parameters: how many it has.
        dtype: of its weights; several between commas.
        device: where they are; several between commas.
        training: whether it is in training mode; it is explained as in evaluation mode all the same.
        outputs: what it returned, in words.
        activation: what makes probabilities of its scores; None if it returns no class scores, or several that can be.
        are_probabilities: whether they are some as they are; None if nothing tells what they are.
        coverage: which rectifiers ran, and which a rule reaches; None if it could not be found out.
        layer: the layer that Grad-CAM reads; None if it reads none.
        layer_choice: why it was chosen, in words; empty if it was named.
        candidates: other layers with a map, the last first, without the parts of those that are named.
        troubles: for each method that does not work, why.
        backward_passes: how many those that work need together for one target, beside the one forward pass.
        kept_bytes: how much memory the graph of this input keeps between forward and backward pass, weights apart.
        preparation: what :func:`relume.prepare` does to it, or has done; None if it cannot be prepared.
        unprepared: why it cannot.
    """

    form: str
    parameters: int
    dtype: str
    device: str
    training: bool
    outputs: str
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
        """Whether any method does."""
        return len(self.troubles) < len(METHODS)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "form": self.form,
            "parameters": self.parameters,
            "dtype": self.dtype,
            "device": self.device,
            "training": self.training,
            "outputs": self.outputs,
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
    """Try every method on ``images`` and say what works, what does not and why, and what it costs.

    Args:
        model: the network.
        images: ``(N, C, *spatial)``, preprocessed as the network expects.
        layer: Grad-CAM's target layer, as for :func:`relume.explain`.
        activation: what its scores are, as for :func:`relume.explain`.
        output: which part of what the network returns holds the scores, as for :func:`relume.explain`.

    Raises:
        RelumeError: the network does not run on this input, or nothing it returns depends on it.
    """
    check_activation(activation)
    kept = _Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        trace = Trace.run(model, images, Reading())
    outputs = ", ".join(f"{part} {tuple(t.shape)}".strip() for part, t in tensors_in(trace.outputs)) or describe(trace.outputs)
    resolved = _activation(activation, trace, output)
    troubles: dict[str, str] = {}
    chosen, candidates = _choice(model, images, output)
    read = chosen.name if chosen and layer is None else None
    for key in METHODS:
        try:
            read = explain(model, images, None, [key], layer, output=output, evidence=False).layer or read
        except RelumeError as error:
            troubles[key] = str(error)
    made, unprepared = _prepared(model, images)
    works = [method for key, method in METHODS.items() if key not in troubles]
    tensors = list(chain(model.parameters(), model.buffers()))
    return Checkup(
        form=_form(model),
        parameters=sum(p.numel() for p in model.parameters()),
        dtype=_listed(t.dtype for t in tensors if t.is_floating_point()),
        device=_listed(t.device for t in tensors),
        training=bool(getattr(model, "training", False)),
        outputs=outputs,
        activation=resolved[0],
        are_probabilities=resolved[1],
        coverage=None if "gradient" in troubles else coverage(model, images, output=output),
        layer=read,
        layer_choice=chosen.why if chosen and layer is None else "",
        candidates=_others(candidates, read),
        troubles=troubles,
        backward_passes=len({rule for method in works for _, rule in method.needs}),
        kept_bytes=kept.bytes,
        preparation=made,
        unprepared=unprepared,
    )


def _activation(activation: Activation, trace: Trace, output: Output) -> tuple[Resolved | None, bool | None]:
    try:
        return resolve_activation(activation, class_scores(pick(trace.outputs, output), len(trace.images)))
    except TargetError:  # no class scores are among the outputs, or nothing tells which
        return None, None


def _prepared(model: nn.Module, images: Tensor) -> tuple[Preparation | None, str]:
    try:
        return preparation_of(model) or preparation_of(prepare(model, images)), ""
    except RelumeError as error:
        return None, str(error)


class _Kept:
    """Adds up what a graph saves, each storage once, weights left out."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._seen = {t.untyped_storage().data_ptr() for t in chain(model.parameters(), model.buffers())}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def _choice(model: nn.Module, images: Tensor, output: Output) -> tuple[Layer | None, tuple[str, ...]]:
    """Find the layer that is chosen where none is named, and every layer with a map, the last first."""
    try:
        trace = Trace.run(model, images, Reading(layers=None, output=output))
    except RelumeError:
        return None, ()
    return trace.layers[0], trace.candidates


def _others(candidates: tuple[str, ...], read: str | None) -> tuple[str, ...]:
    others: list[str] = []
    named = [read] if read else []
    for name in candidates:
        if not any(name == other or name.startswith(f"{other}.") for other in named):
            others.append(name)
            named.append(name)
    return tuple(others)


def _form(model: nn.Module) -> str:
    inner = unwrap(model)
    wrapped = "" if inner is model else f", inside {type(model).__name__}"
    if isinstance(inner, torch.jit.ScriptModule):
        return f"TorchScript of {getattr(inner, 'original_name', 'a module')}{wrapped}"
    kind = " graph of operations" if isinstance(inner, torch.fx.GraphModule) else ""
    return f"{type(inner).__name__}{kind}{wrapped}"


def _listed(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(value).removeprefix("torch.") for value in values)) or "none"
