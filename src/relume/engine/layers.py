"""Find the layers that Grad-CAM reads, and capture their outputs while a replica runs.

Layers are modules, rectifiers are graph nodes, and this file is where the two meet: a :class:`Probe` hooks the modules of a
private replica and keeps the outputs of the layers asked for, or those among which one is chosen
(:mod:`relume.engine.layer_choice`).
"""

from __future__ import annotations

import difflib
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from relume.acceleration.fold_batch_norm import Folding
from relume.engine.dense_predictions import dense
from relume.engine.graph import gradients
from relume.engine.layer_choice import COARSE, HELD, NO_GRADIENT, Choice, Layer, choose, describe
from relume.engine.preparation import layer_alias
from relume.engine.reading import LayerLike, Reshape
from relume.engine.token_grid import Grid, find_grid
from relume.engine.wrappers import modules_of, named_places
from relume.errors import LayerError

__all__ = ["Layer", "Probe", "layer_name"]

# Operations whose result has its channels second, whatever its shape looks like.
_CHANNELS_FIRST = (
    "ConvolutionBackward0",
    "ConvolveBackward",
    "NativeBatchNormBackward0",
    "CudnnBatchNormBackward0",
    "MaxPool2DWithIndicesBackward0",
)
# Graph modules that an interpreter can run as they run themselves: plain ones, and those of torch.export.
_RUNNABLE = (torch.fx.graph.CodeGen, torch.fx.graph._PyTreeCodeGen)


def _copy(output: Tensor) -> Tensor:
    """A clone that copies memory only when one of the two is written to, where torch can make one."""
    try:
        return torch._lazy_clone(output)
    except (AttributeError, RuntimeError):  # a private name of torch, and not for memory that is not torch's own
        return output.clone()


def _as_it_is(values: Tensor) -> Tensor:
    return values


def layer_name(model: nn.Module, layer: LayerLike) -> str:
    """The dotted name of ``layer``, a module of ``model`` or a name.

    Raises:
        LayerError: no such module in the model.
    """
    layer = layer_alias(model, layer)
    if isinstance(layer, str) and isinstance(model, torch.fx.GraphModule) and layer in _nodes(model):
        return layer
    names = {module: name for module, name in modules_of(model).items() if name}
    if isinstance(layer, nn.Module):
        if layer in names:
            return names[layer]
        raise LayerError(f"the layer {type(layer).__name__} is not a module inside this model; {_suggest(names.values())}")
    if not isinstance(layer, str):
        raise LayerError(f"a layer is a module of the model, its dotted name or None; got {layer!r}")
    # a compiled part runs as what it was compiled from, in its place; torch.compile calls it otherwise
    wanted = layer.removeprefix("_orig_mod.").replace("._orig_mod", "")
    for each in (layer, wanted):
        if each and each in names.values():
            return each
    # under every name that it has: a module in two places runs under the first
    known = dict(named_places(model))
    for each in (layer, wanted):
        if each in known and known[each] in names:
            return names[known[each]]
    raise LayerError(f"the model has no layer {layer!r}; {_suggest(names.values(), wanted)}")


def _nodes(model: torch.fx.GraphModule) -> set[str]:
    """The names of its operations; one that is called like a module has ``(node)`` after it."""
    modules = {name for name, _ in model.named_modules()}
    operations = [n.name for n in model.graph.nodes if n.op in ("call_function", "call_method")]
    return {name if name not in modules else f"{name} (node)" for name in operations}


def _suggest(names: Collection[str], wanted: str = "") -> str:
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    offered = close or [name for name in names if "." not in name]
    return "candidates: " + (", ".join(offered[-8:]) or "none, the model has no submodules")


class Probe:
    """Watches a replica's modules run and keeps outputs.

    An output kept is the layer's own, also when a later operation overwrites it in place: what goes on downstream is a
    clone, made lazily, so that memory is copied only where something does write into it.
    """

    def __init__(
        self,
        replica: nn.Module,
        images: Tensor,
        names: Sequence[str] | None = (),
        *,
        units: Collection[str] = (),
        reshape: Reshape | None = None,
    ) -> None:
        """Watch for the layers ``names``, or choose one (None); and for those that ``units`` to explain belong to.

        ``reshape`` makes maps of what the layers return, in place of what their shapes tell.
        """
        self._names, self._units, self._reshape = names, units, reshape
        self._images, self._batch, self._image = images, len(images), tuple(images.shape[2:])
        self._runs: Counter[str] = Counter()
        self._seen: dict[tuple[int, ...], None] = {}  # the sizes of maps, each once
        self._grids: dict[tuple[torch.Size, bool, int], Grid | None] = {}
        self._counts: set[int] = set()  # of tokens, so far
        self._odd: set[int] = set()  # of these, those with others after the patches
        self._before: dict[str, list[tuple[Tensor, int]]] = {}
        self._spatial: list[str] = []
        self._kept: dict[str, Layer] = {}
        self._choices: list[Choice] = []  # in the order in which they ran
        self._held: deque[Choice] = deque()
        self._read: dict[str, Layer] = {}
        self._trouble: dict[str, str] = {}
        self._scripted = self._cut = ""
        self._merged: set[str] = set()  # with the BatchNorm after them
        for module, module_name in modules_of(replica).items():
            # hooks on the inside of TorchScript register without error and never fire
            if isinstance(module, torch.jit.ScriptModule):
                self._scripted = self._scripted or module_name or "the whole model"
            elif isinstance(module, Folding):
                self._merged.add(module_name)
            elif module_name:
                note, hook = self._hooks(module_name)
                module.register_forward_pre_hook(note)
                module.register_forward_hook(hook)
        if isinstance(replica, torch.fx.GraphModule) and type(replica.graph._codegen) in _RUNNABLE:
            # its operations are no modules any more: run node by node, they are watched too
            replica.__dict__["forward"] = _Nodes(replica, self.watch).forward

    def _hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., Any]]:
        def note(_module: nn.Module, args: Any) -> None:
            self._before[name] = _versions(args)

        def hook(module: nn.Module, _args: Any, output: Any) -> Any:
            return self.watch(name, self._before.pop(name, ()), output, block=bool(module._modules))

        return note, hook

    def watch(self, name: str, before: Sequence[tuple[Tensor, int]], output: Any, *, block: bool = False) -> Any:
        """See what ``name`` made, and say what goes on in its place; None if that is ``output`` itself.

        ``before`` are its inputs, with their versions before it ran.
        """
        self._runs[name] += 1
        first, *rest = output if type(output) is tuple and output else (output,)
        if not isinstance(first, Tensor) or not first.requires_grad:
            self._trouble[name] = f"returned {describe(output)}, not a map of shape (N, channels, *spatial)"
            if isinstance(first, Tensor) and first.ndim == self._images.ndim and len(first) == self._batch:
                self._trouble[name] = f"returned {describe(output)} without a gradient: {NO_GRADIENT}"
                self._cut = self._cut or name
            return None
        if first._is_view():
            # what is written into a view is written into what it is a view of, and a copy would not be: it goes on as it is,
            # and must not be written to
            self._take(name, first, first, block=block)
            return None
        # a layer that hands its input on must not be confused with its input, which others may read, or overwrite;
        # one that overwrote its input in place is what they read
        handed_on = any(first is tensor and tensor._version == version for tensor, version in before)
        own = _copy(first) if handed_on else first
        if not self._take(name, own, first, block=block):
            return None
        passed_on = _copy(own)
        return (passed_on, *rest) if type(output) is tuple else passed_on

    def _take(self, name: str, output: Tensor, made: Tensor, *, block: bool) -> bool:
        """Keep ``output`` if it is wanted, and say whether it was kept; ``made``, as the layer returned it, tells how."""
        grid = self._grid(made)
        if grid is not None:
            self._spatial.append(name)
            if grid.kind != "tokens":
                self._seen[grid.spatial] = None
        if wanted := name in self._units:
            if grid is None and any(side > 1 for side in output.shape[2:]):
                self._trouble[name] = f"returned {describe(output)}, and nothing tells which axis of it are channels"
            else:
                self._read[name] = Layer(name, output, grid or _as_it_is, output._version)
        if self._names is None:
            return self._consider(name, output, grid, pooled=_is_pooled(made), block=block) or wanted
        if name in self._names:
            to_map = self._reshape or grid
            if to_map is None:
                self._trouble[name] = f"returned {describe(output)}, not a map of shape (N, channels, *spatial)"
            else:
                self._kept[name] = Layer(name, output, to_map, output._version)
        return wanted or name in self._names

    def _grid(self, output: Tensor) -> Grid | None:
        """The grid in an output, if there is one; none in what attention has between tokens, one axis of which are these."""
        shape = output.shape
        first = output.grad_fn is not None and output.grad_fn.name() in _CHANNELS_FIRST
        if shape[:1] != (self._batch,) or (len(shape) > 3 and not first and self._counts & set(shape[2:])):
            return None
        alike = (shape, first, len(self._seen))  # networks repeat themselves
        if alike not in self._grids:
            self._grids[alike] = find_grid(shape, self._image, self._seen, channels_first=first)
        grid = self._grids[alike]
        if grid is None or grid.kind != "tokens":
            return grid
        if output.shape[1] not in self._counts and grid.extra and not self._depends(output[:, -1]):
            self._odd.add(output.shape[1])
        self._counts.add(output.shape[1])
        return None if output.shape[1] in self._odd else grid

    def _depends(self, values: Tensor) -> bool:
        """Whether ``values`` depend on the images: a class token, before any block has mixed it with the patches, does not."""
        (found,) = gradients(values.float().square().sum(), [self._images])
        return found is not None and bool(found.any())

    def _consider(self, name: str, output: Tensor, grid: Grid | None, *, pooled: bool, block: bool) -> bool:
        """Keep the output as a choice if it is a map, not yet pooled, or tokens, and say whether it may be the one chosen.

        One of a layer that runs again is no choice: its name would not tell which run is meant.
        """
        is_map = grid is not None and grid.kind != "tokens"
        tokens = output.ndim == 3 < len(self._image) + 2 and output.shape[1] > 1
        if self._runs[name] > 1 or (pooled if is_map else not tokens):
            return False
        to_map = (self._reshape or grid) if grid is not None and (is_map or block) else None
        layer = None if to_map is None else Layer(name, output, to_map, output._version)
        coarse = grid is not None and min(grid.spatial) <= COARSE
        self._choices.append(Choice(name, output.shape, get_gradient_edge(output), to_map, is_map, coarse, layer))
        if layer is not None:
            self._held.append(self._choices[-1])
            if len(self._held) > HELD:
                self._held.popleft().layer = None
        return layer is not None

    def units(self) -> dict[str, Layer]:
        """The layers that units belong to, by name, handed over.

        Raises:
            LayerError: one did not run, ran more than once, or returned no tensor.
        """
        read, self._read = self._read, {}
        for name in self._units:
            self._check(name, kept=name in read)
            read[name].untouched()
        return read

    def undecided(self, outputs: Any) -> bool:
        """Tell whether a layer is to be chosen by what matters to the scores: among tokens, or before a dense prediction."""
        return any(not choice.is_map for choice in self._choices) or bool(dense(outputs, self._batch))

    def layers(self) -> tuple[Layer, ...]:
        """Hand over the layers asked for.

        Raises:
            LayerError: one did not run, ran more than once, or has no map; the message names candidates.
        """
        # a replica in a reference cycle must not hold the graph until it is collected
        kept, self._kept = self._kept, {}
        for name in self._names or ():
            self._check(name, kept=name in kept)
            kept[name].untouched()
        return tuple(kept[name] for name in self._names or ())

    def choose(self, outputs: Any, scores: Sequence[Tensor] = ()) -> Choice:
        """Choose a layer of those that ran once: see :func:`relume.engine.layer_choice.choose`."""
        choices = [choice for choice in self._choices if self._runs[choice.name] == 1]
        self._choices, self._held = [], deque()
        again = [name for name in self._spatial if self._runs[name] > 1]
        return choose(choices, outputs, self._batch, scores, self._scripted, again, self._cut)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Every layer with a map that ran once, the last first."""
        return tuple(dict.fromkeys(name for name in reversed(self._spatial) if self._runs[name] == 1))

    def _check(self, name: str, *, kept: bool) -> None:
        others = ", ".join(reversed(self.candidates[:8])) or "none"
        if name in self._merged:
            raise LayerError(
                f"layer {name!r} has no output of its own any more, since the BatchNorm after it is folded into it; "
                f"name that, or prepare the network with fold=False; candidates: {others}"
            )
        if self._runs[name] != 1:
            runs = f"ran {self._runs[name]} times" if self._runs[name] else "did not run"
            if not self._runs[name] and self._scripted:
                runs = f"cannot be seen inside TorchScript ({self._scripted}), and so did not run"
            raise LayerError(f"layer {name!r} {runs} in this forward pass, and must run once; candidates: {others}")
        if not kept:
            raise LayerError(f"layer {name!r} {self._trouble[name]}; candidates: {others}")


def _versions(args: Any) -> list[tuple[Tensor, int]]:
    return [(arg, arg._version) for arg in args if isinstance(arg, Tensor) and not arg.is_inference()]


class _Nodes(torch.fx.Interpreter):
    """Runs a graph module node by node and lets ``watch`` see what each operation makes; modules in it have their hooks."""

    def __init__(self, module: torch.fx.GraphModule, watch: Callable[..., Any]) -> None:
        super().__init__(module)
        self._watch = watch
        self._modules_there = {name for name, _ in module.named_modules()}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What stands in for the module's own ``forward``, so that its hooks run as ever."""
        names = [str(node.target) for node in self.graph.nodes if node.op == "placeholder"]
        return self.run(*args, *(kwargs.pop(name) for name in names[len(args) :] if name in kwargs), **kwargs)

    def run_node(self, n: torch.fx.Node) -> Any:
        before = _versions([self.env[node] for node in n.all_input_nodes])
        output = super().run_node(n)
        if n.op not in ("call_function", "call_method"):
            return output
        passed_on = self._watch(n.name if n.name not in self._modules_there else f"{n.name} (node)", before, output)
        return output if passed_on is None else passed_on


def _is_pooled(output: Tensor) -> bool:
    made_by = "" if output.grad_fn is None else output.grad_fn.name()
    return "Pool" in made_by or made_by.startswith("Mean")
