"""One forward pass, then gradients by any rule as often as asked.

    trace = Trace.run(model, images, Reading(layers=["layer4"]))
    score = trace.score(target=243)
    gradients = trace.grad(score, [trace.images], rules.guided)

The forward pass runs on a private replica (:mod:`relume.engine.replica`), so the model is never touched; the graph it
leaves is the
trace's own, so nothing has to be cleaned up but the hooks of each backward pass, and threads cannot meet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from relume.engine.by_hand import Region, Tape, is_known, remember, suspects
from relume.engine.coverage import Coverage
from relume.engine.forward_pass import CUT_OFF, returned
from relume.engine.graph import Survey, between, gradients, hooked, survey, walk
from relume.engine.inputs import Inputs, Model, all_finite, device_with_values, extremes, feed, pick, stacked
from relume.engine.layers import Layer, layer_name
from relume.engine.preparation import preparation_of
from relume.engine.reading import Reading
from relume.engine.recorder import Recording, recorder_of
from relume.engine.replica import replicate
from relume.engine.saved_tensors import looking
from relume.engine.torch_errors import translated, versions
from relume.engine.trees import tree_map_only
from relume.engine.wrappers import modules_of, unwrap
from relume.errors import (
    GraphError,
    InputError,
    LayerError,
    NonFiniteError,
    TargetError,
)
from relume.rules import Rule, deconvnet, gradient, guided
from relume.targets.base import Target, TargetLike
from relume.targets.conversion import as_target
from relume.targets.outputs import tensors_in

__all__ = ["Score", "Trace", "full_precision", "recording", "tape_of"]


@contextmanager
def recording() -> Iterator[None]:
    """Record graphs and make ordinary tensors wherever the caller stands: under ``no_grad``, under ``inference_mode``."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield


def full_precision(device: str) -> AbstractContextManager[Any]:
    """Switch off the caller's autocast, which in a backward pass would narrow what ran wide."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """The score that is explained: its ``value`` ``(N,)``, the frozen ``target`` that gave it, and the tape of its pass."""

    value: Tensor
    target: Target
    tape: Tape | None = None
    # what lies between it and what it is explained by, found once; the nodes are held with it
    _walked: dict[tuple[Node, ...], list[Node]] = field(default_factory=dict, init=False, repr=False)
    _surveyed: dict[tuple[Node, ...], Survey] = field(default_factory=dict, init=False, repr=False)

    def between(self, wrt: Sequence[Tensor]) -> tuple[tuple[Node, ...], list[Node]]:
        """Find the nodes of ``wrt``, and those that a backward pass to them runs."""
        ends, root = tuple(get_gradient_edge(tensor).node for tensor in wrt), self.value.grad_fn
        if ends not in self._walked:
            self._walked[ends] = [] if root is None else between(root, ends)
        return ends, self._walked[ends]

    def survey(self, wrt: Sequence[Tensor], *, relu_only: bool) -> Survey:
        """Find the nodes between the score and ``wrt`` that matter to a rule."""
        ends, nodes = self.between(wrt)
        if ends not in self._surveyed:
            self._surveyed[ends] = survey(nodes, relu_only=relu_only, tape=self.tape, ends=ends)
        return self._surveyed[ends]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One forward pass, with the graph that it left.

    Attributes:
        model: the network as given; kept only to say which of its weights is not finite.
        images: the explained input, a leaf of the graph, ``(N, C, *spatial)``.
        outputs: what the network returned.
        layers: the target layers, where they were asked for.
        units: the layers of the units to explain, by name.
        relu_only: rules are for the ReLU family alone.
        candidates: every layer with a map that ran once, the last first, where layers were watched.
        written: how often the weights had been written to before.
        tape: the tape of this pass, where something looked like a rectifier written by hand.
    """

    model: Model
    images: Tensor
    outputs: Any
    layers: tuple[Layer, ...] = ()
    units: Mapping[str, Layer] = field(default_factory=dict)
    relu_only: bool = False
    candidates: tuple[str, ...] = ()
    written: int = 0
    tape: Tape | None = None

    @classmethod
    @recording()
    def run(
        cls, model: Model, inputs: Inputs, reading: Reading, instead: Tensor | None = None, *, taped: bool = False
    ) -> Trace:
        """Run the network once; once more where something looks like a rectifier written by hand, for the first time.

        Args:
            model: a module, run as in evaluation mode whatever mode it is in; or any callable, run as it is.
            inputs: one tensor; a sequence of positional inputs; or a mapping of keyword inputs.
            reading: what to read in this pass.
            instead: what the network is given in place of the explained input: copies of it.
            taped: run it on a tape from the start.

        Raises:
            InputError: the inputs are not floating-point tensors of at least one sample.
            LayerError: the layer does not exist, did not run exactly once, or returned no map.
            NonFiniteError: the explained input holds NaN or infinity.
            ModelError: a model in training mode runs modules of its own that the replica cannot stand in for.
            GraphError: nothing that the network returned depends on the input.
        """
        _check(model)
        if not callable(model):
            raise InputError(f"a model is a torch.nn.Module or another callable; got {model!r}")
        written = versions(model)
        args, kwargs, images = feed(stacked(model, inputs), reading.wrt, device_with_values(model), instead)
        replica = replicate(model) if isinstance(model, nn.Module) else model
        recorder = recorder_of(model, replica, images, reading)
        tape = tape_of(model, replica, images) if taped or is_known(model) else None
        drawn = torch.get_rng_state()
        with translated(model, written), tape or nullcontext():
            outputs = pick(returned(model, replica, args, kwargs, images), reading.output)
        if tape is None and _has_suspects(outputs, images):
            remember(model)
            torch.set_rng_state(drawn)  # that a network which draws numbers draws the same
            del replica, recorder, outputs, args, kwargs, images  # and the graph with them
            return cls.run(model, inputs, reading, instead, taped=True)
        trace = cls(model, images, outputs, relu_only=reading.rectifiers == "relu", written=written, tape=tape)
        if recorder is None:
            return trace
        trace, let_go = trace._with_layers(recorder.finish(), reading)
        if let_go is None:
            return trace
        del trace, outputs, args, kwargs, images  # and the graph with them
        name, why = let_go
        again = cls.run(model, inputs, replace(reading, layers=[name]), instead)
        return replace(again, layers=(replace(again.layers[0], why=why),))

    def _with_layers(self, recording: Recording, reading: Reading) -> tuple[Trace, tuple[str, str] | None]:
        """Read the layers that are named or chosen, and those of units.

        Returns:
            The trace with its layers; and None, or name and reason of a layer whose output was let go before it was chosen.
        """
        units = {name: recording.unit_layer(name) for name in recording.units}
        trace = replace(self, units=units, candidates=recording.candidates)
        if recording.chooser is None:
            return replace(trace, layers=tuple(map(recording.layer, recording.names))), None
        scores = trace._scores(reading.targets) if recording.chooser.needs_scores(self.outputs) else []
        choice = recording.choose(self.outputs, scores)
        if choice.layer is None:
            return trace, (choice.name, choice.why)
        return replace(trace, layers=(choice.layer,)), None

    def _scores(self, targets: Sequence[TargetLike]) -> list[Tensor]:
        """Compute the scores to explain: of the predicted class where there is no target, none if there is no class.

        They are made of copies of the outputs, since a target may write into what it is given, and is to be asked again.
        """
        copied = replace(self, outputs=tree_map_only(Tensor, Tensor.clone, self.outputs))
        try:
            return [copied.score(target).value for target in targets or (None,)]
        except TargetError:
            if targets:
                raise
            return []

    @recording()
    def score(self, target: TargetLike = None) -> Score:
        """Freeze ``target`` on these outputs and give the score of each sample.

        Raises:
            TargetError: the target does not fit the outputs.
            NonFiniteError: a score is NaN or infinite.
            GraphError: the score does not depend on the explained input.
        """
        target, values = as_target(target).known(self.images.shape[2:], "auto"), self.outputs
        if target.layer is not None:
            assert isinstance(self.model, nn.Module), "only a module has layers"
            layer = self.units.get(layer_name(unwrap(self.model), target.layer))
            if layer is None:
                raise TargetError(
                    f"{target} is a unit of a layer that this forward pass did not record, since no target of the call is; "
                    "a wrapper may give units of those layers only"
                )
            target, values = target.placed(layer.name), self.wide(layer.to_map(layer.output))
        frozen = target.frozen(values, len(self.images))
        value = frozen.scores(values)
        shape = tuple(getattr(value, "shape", ()))
        if shape != (len(self.images),):
            raise TargetError(
                f"a target gives one score per sample, a tensor of shape ({len(self.images)},); "
                f"this one gave a {type(value).__name__} of shape {shape}"
            )
        if not all_finite(value):
            raise NonFiniteError(f"the score is {extremes(value)}; {self._culprit()}")
        score = Score(value, frozen, self.tape)
        if not score.between([self.images])[1]:
            raise GraphError(CUT_OFF)
        return score

    @recording()
    def grad(self, score: Score, wrt: Sequence[Tensor], rule: Rule = gradient, *, last: bool = False) -> list[Tensor]:
        """Run one backward pass: the gradient of each sample's score by ``rule``, with respect to each tensor of ``wrt``.

        Weights never get a gradient. ``last`` frees the graph as the pass goes.

        Raises:
            NoRectifierError: ``rule`` is not the plain gradient and no rectifier lies between score and ``wrt``.
            HiddenRegionError: ``rule`` is not the plain gradient and part of the graph hides its operations.
            HookError: a rectifier was not guided exactly once.
            LayerError: the score does not depend on the target layer.
        """
        with translated(self.model, self.written):
            rectifiers = () if rule is gradient else score.survey(wrt, relu_only=self.relu_only).guidable()
            # at a rectifier written by hand, a rule of the user's may pull a gradient through nodes that ran before
            may_pull = rule not in (guided, deconvnet) and any(isinstance(kind, Region) for _, kind in rectifiers)
            _, nodes = score.between([self.images])  # those on the way to a layer are among them
            with full_precision(self.images.device.type), hooked(rectifiers, rule):
                pulled = gradients(score.value, wrt, nodes, keep=not last or may_pull)
        missing = [tensor for tensor, gradient in zip(wrt, pulled, strict=True) if gradient is None]
        if any(tensor is self.images for tensor in missing):
            raise GraphError("no gradient reached the input: an operation on the way has no derivative, or passed None on")
        if missing:
            name = next((layer.name for layer in self.layers if any(tensor is missing[0] for tensor in layer.tensors)), "")
            raise LayerError(f"the score does not depend on layer {name!r}; name another")
        return [g for g in pulled if g is not None]

    @recording()
    def coverage(self, score: Score) -> Coverage:
        """List the rectifiers that ran between score and input, and which of them a rule reaches."""
        with translated(self.model, self.written):
            nodes = score.survey([self.images], relu_only=self.relu_only)
        rows = Counter((kind.label, True, "") for _, kind in nodes.rectifiers)
        rows.update((name, False, why) for name, why in (*nodes.excluded, *nodes.unguided, *nodes.hidden))
        places: dict[str, dict[str, None]] = {}
        for _, kind in nodes.rectifiers:
            if isinstance(kind, Region) and kind.module:
                places.setdefault(kind.label, {})[kind.module] = None
        return Coverage.of(rows, places)

    def wide(self, values: Tensor) -> Tensor:
        """Widen what a layer made to the dtype of the images: a network may compute in a narrower one inside."""
        return values.to(torch.promote_types(values.dtype, self.images.dtype))

    def _culprit(self) -> str:
        if isinstance(self.model, nn.Module):
            for kind, tensors in (("weight", self.model.named_parameters()), ("buffer", self.model.named_buffers())):
                for name, tensor in tensors:
                    if tensor.is_floating_point() and not all_finite(tensor):
                        return f"the {kind} {name!r} holds {extremes(tensor)}"
        return "input and weights are finite, so the network overflowed; try a wider dtype or check the scale of the input"


def tape_of(model: Model, replica: Model, images: Tensor) -> Tape:
    """Make a tape for a forward pass of the network on its ``replica``."""
    preparation = preparation_of(model) if isinstance(model, nn.Module) else None
    tape = Tape(images, lean=preparation is not None and preparation.lean)
    if isinstance(replica, nn.Module):
        tape.watch(modules_of(replica))
    return tape


def _has_suspects(outputs: Any, images: Tensor) -> bool:
    """Tell whether something between the images and the outputs looks like a rectifier written by hand."""
    begin = get_gradient_edge(images).node
    roots = {tensor.grad_fn for _, tensor in tensors_in(outputs) if tensor.grad_fn is not None}
    with looking():
        return any(True for root in roots for _ in suspects(walk(root), begin))


def _check(model: Model) -> None:
    """Refuse a prepared network whose original has changed, and renew what depends on weights that were written to."""
    if isinstance(model, nn.Module) and (preparation := preparation_of(model)) is not None:
        preparation.check()
        preparation.renew(model)
