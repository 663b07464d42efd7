"""A recorder, which watches the modules of a private replica run, and its recording: the outputs of layers.

Layers are modules, rectifiers are graph nodes, and this file is where the two meet. Which layer Grad-CAM reads where none is
named is decided elsewhere (:mod:`relume.engine.layer_choice`), from outputs that the recorder shows to a chooser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from relume.engine.layer_choice import Choice, Chooser, Obstacles, Output
from relume.engine.layers import Layer, describe, layer_name, node_name
from relume.engine.reading import Reading, Reshape
from relume.engine.recorded_graphs import is_runnable
from relume.engine.tensor_state import is_view, lazy_copy, version
from relume.engine.token_grid import Grids
from relume.engine.wrappers import Merged, modules_of, unwrap
from relume.errors import LayerError
from relume.targets.conversion import as_target

__all__ = ["NO_GRADIENT", "Recorder", "Recording", "recorder_of"]

NO_GRADIENT = (
    "it ran inside reentrant checkpointing, which use_reentrant=False mends, under torch.no_grad(), or on what was detached"
)


@dataclass(slots=True, eq=False)
class Recording:
    """The layers that ran, and the outputs of those that were asked for.

    Attributes:
        names: the layers to read, where they are named.
        units: the layers of the units to explain.
        reshape: makes a map of a layer's output, in place of what its shape tells.
        chooser: chooses a layer where none is named.
        runs: how often each layer ran.
        maps: the layers whose output is a map, in the order in which they ran.
        outputs: the outputs captured, by name.
        odd: what is wrong with the output of a layer, in words.
        hidden: a part of the network in which layers cannot be seen.
        cut: the first layer whose output carries no gradient.
        merged: the layers that have no output of their own.
    """

    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    reshape: Reshape | None = None
    chooser: Chooser | None = None
    runs: Counter[str] = field(default_factory=Counter)
    maps: list[str] = field(default_factory=list)
    outputs: dict[str, Output] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    hidden: str = ""
    cut: str = ""
    merged: set[str] = field(default_factory=set)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Every layer with a map that ran once, the last first."""
        return tuple(dict.fromkeys(name for name in reversed(self.maps) if self.runs[name] == 1))

    def layer(self, name: str) -> Layer:
        """Read the layer ``name`` for Grad-CAM.

        Raises:
            LayerError: it did not run, ran more than once, or has no map; the message names candidates.
        """
        output = self._output(name)
        to_map = self.reshape or output.grid
        if to_map is None:
            raise self._refused(name, f"returned {describe(output.values)}, not a map of shape (N, channels, *spatial)")
        return Layer(name, output.values, to_map, output.version, others=output.others).untouched()

    def unit_layer(self, name: str) -> Layer:
        """Read the layer ``name`` for a unit of it, which may be one of a layer without spatial axes.

        Raises:
            LayerError: it did not run, ran more than once, or returned no tensor whose channels can be told.
        """
        output = self._output(name)
        if output.grid is None and any(side > 1 for side in output.values.shape[2:]):
            raise self._refused(name, f"returned {describe(output.values)}, and nothing tells which axis of it are channels")
        return Layer(name, output.values, output.grid or _unchanged, output.version).untouched()

    def choose(self, outputs: Any, scores: Sequence[Tensor]) -> Choice:
        """Choose the layer to read of a network that returned ``outputs``, by what matters to ``scores``, if there are any.

        Raises:
            LayerError: there is none.
        """
        assert self.chooser is not None, "no layer is named"
        repeated = [name for name in self.maps if self.runs[name] > 1]
        cut = f"the output of {self.cut!r} carries no gradient: {NO_GRADIENT}" if self.cut else ""
        return self.chooser.choose(outputs, scores, self.runs, Obstacles(repeated, self.hidden, cut))

    def _output(self, name: str) -> Output:
        if name in self.merged:
            raise self._refused(
                name,
                "has no output of its own any more, since the BatchNorm after it is folded into it; "
                "name that, or prepare the network with fold=False",
            )
        if self.runs[name] != 1:
            runs = f"ran {self.runs[name]} times" if self.runs[name] else "did not run"
            if not self.runs[name] and self.hidden:
                runs = f"cannot be seen inside TorchScript ({self.hidden}), and so did not run"
            raise self._refused(name, f"{runs} in this forward pass, and must run once")
        if name in self.odd:
            raise self._refused(name, self.odd[name])
        return self.outputs[name]

    def _refused(self, name: str, reason: str) -> LayerError:
        return LayerError(f"layer {name!r} {reason}; candidates: {', '.join(reversed(self.candidates[:8])) or 'none'}")


def _unchanged(values: Tensor) -> Tensor:
    return values


class Recorder:
    """Watches a replica's modules run and captures outputs.

    A captured output is the layer's own, also when a later operation overwrites it in place: what goes on downstream is a
    clone, made lazily, so that memory is copied only where something does write into it.
    """

    def __init__(self, replica: nn.Module, images: Tensor, recording: Recording) -> None:
        """Watch ``replica`` for the layers that the ``recording`` is to hold, and those that its chooser considers."""
        self._names, self._images, self._recording = {*recording.names, *recording.units}, images, recording
        self._grids = Grids(images)
        self._given: dict[str, list[tuple[Tensor, int]]] = {}  # the inputs of layers that run, with their versions
        for module, name in modules_of(replica).items():
            # hooks on the inside of TorchScript register without error and never fire
            if isinstance(module, torch.jit.ScriptModule):
                recording.hidden = recording.hidden or name or "the whole model"
            elif isinstance(module, Merged):
                recording.merged.add(name)
            elif name:
                module.register_forward_pre_hook(partial(self._before, name))
                module.register_forward_hook(partial(self._after, name))
        if isinstance(replica, torch.fx.GraphModule) and is_runnable(replica):
            # its operations are no modules any more: run node by node, they are watched too
            replica.__dict__["forward"] = _Nodes(replica, self.watch).forward

    def finish(self) -> Recording:
        """Hand over the recording: a replica in a reference cycle must not hold the graph until it is collected."""
        recording, self._recording = self._recording, Recording()
        return recording

    def _before(self, name: str, _module: nn.Module, args: Any) -> None:
        self._given[name] = _versions(args)

    def _after(self, name: str, module: nn.Module, _args: Any, output: Any) -> Any:
        is_block = next(module.children(), None) is not None
        return self.watch(name, self._given.pop(name, ()), output, is_block=is_block)

    def watch(self, name: str, given: Sequence[tuple[Tensor, int]], output: Any, *, is_block: bool = False) -> Any:
        """Look at the ``output`` of ``name``, and return what goes on in its place; None if it goes on itself.

        ``given`` are its inputs, with their versions before it ran.
        """
        recording = self._recording
        recording.runs[name] += 1
        first, *rest = output if type(output) is tuple and output else (output,)
        if not isinstance(first, Tensor) or not first.requires_grad:
            self._note_odd(name, first)
            return None
        grid = self._grids.of(first)
        if grid is not None:
            recording.maps.append(name)
        # a layer that hands its input on must not be confused with its input, which others may read, or overwrite;
        # one that overwrote its input in place is what they read
        handed_on = any(first is tensor and version(tensor) == before for tensor, before in given)
        own = lazy_copy(first) if handed_on and not is_view(first) else first
        others = tuple(_versions(rest))
        taken = Output(name, own, version(own), grid, self._grids.is_pooled(first), is_block, others)
        chooser = recording.chooser
        chosen = chooser is not None and recording.runs[name] == 1 and chooser.consider(taken)
        if name in self._names:
            recording.outputs[name] = taken
        elif not chosen:
            return None
        if is_view(first):
            # what is written into a view is written into what it is a view of, and a copy would not be: it goes on as it is,
            # and must not be written to
            return None
        passed_on = lazy_copy(own)
        return (passed_on, *rest) if type(output) is tuple else passed_on

    def _note_odd(self, name: str, output: Any) -> None:
        """Note why the output of a layer cannot be read."""
        recording = self._recording
        recording.odd[name] = f"returned {describe(output)}, not a map of shape (N, channels, *spatial)"
        if isinstance(output, Tensor) and output.ndim == self._images.ndim and len(output) == len(self._images):
            recording.odd[name] = f"returned {describe(output)} without a gradient: {NO_GRADIENT}"
            recording.cut = recording.cut or name


def recorder_of(model: Any, replica: Any, images: Tensor, reading: Reading) -> Recorder | None:
    """Have ``replica`` watched for the layers to read, and for those of the units to explain; None if there are none.

    Raises:
        LayerError: a layer is not in the model, or the model is no module.
    """
    units = [target.layer for target in map(as_target, reading.targets) if target.layer is not None]
    if not units and reading.layers is not None and not reading.layers:
        return None
    if not isinstance(model, nn.Module):
        raise LayerError(
            f"Grad-CAM and units read a named layer, and a {type(model).__name__} has none; pass the torch.nn.Module itself"
        )
    inner = unwrap(model)
    return Recorder(
        replica,
        images,
        Recording(
            names=tuple(layer_name(inner, layer) for layer in reading.layers or ()),
            units=tuple(layer_name(inner, layer) for layer in units),
            reshape=reading.reshape,
            chooser=Chooser(images, reading.reshape) if reading.layers is None else None,
        ),
    )


def _versions(args: Any) -> list[tuple[Tensor, int]]:
    return [(arg, version(arg)) for arg in args if isinstance(arg, Tensor) and not arg.is_inference()]


class _Nodes(torch.fx.Interpreter):
    """Runs a graph module node by node and lets ``watch`` see what each operation makes; modules in it have their hooks."""

    def __init__(self, module: torch.fx.GraphModule, watch: Callable[..., Any]) -> None:
        super().__init__(module)
        self._watch = watch
        self._names = {name for name, _ in module.named_modules()}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph in place of the module's own ``forward``, so that its hooks run as ever."""
        names = [str(node.target) for node in self.graph.nodes if node.op == "placeholder"]
        return self.run(*args, *(kwargs.pop(name) for name in names[len(args) :] if name in kwargs), **kwargs)

    def run_node(self, n: torch.fx.Node) -> Any:
        given = _versions([self.env[node] for node in n.all_input_nodes])
        output = super().run_node(n)
        if n.op not in ("call_function", "call_method"):
            return output
        passed_on = self._watch(node_name(n.name, self._names), given, output)
        return output if passed_on is None else passed_on
