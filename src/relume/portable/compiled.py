"""A network whose passes are compiled once they are asked for again: flat graphs, on CUDA fused and replayed as CUDA graphs.

What is asked for the first time (a shape of images, layers, rules) runs eagerly and is noted; the second time it is compiled,
and checked against the eager run on the images at hand; from then on it is only run. What cannot be compiled goes on eagerly,
and a warning says why.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from relume.engine.inputs import Inputs, Output, feed, model_device
from relume.engine.layers import LayerLike, Reshape, layer_name
from relume.engine.out_of_memory import out_of_memory
from relume.engine.trace import Trace, TracesItself
from relume.engine.wrappers import Wrapper, unwrap
from relume.errors import GraphError
from relume.portable.cut import Asked, Facts, Live, Source, cut
from relume.portable.planned import ONE_AT_A_TIME, Backend, Capture, Plan, as_it_is, cuda_graph, inductor
from relume.targets.base import ClassTarget, Contrast, TargetLike, Unit

__all__ = ["Compiled"]

_FORMS, _BUILDS = 8, 8


class Compiled(nn.Module, TracesItself, Wrapper):
    """A network that :func:`relume.explain` and all the rest take as the network itself, whose passes are compiled.

    A tensor of the network that is exchanged or written to is seen, and what was compiled before is not used again. A change of
    its code or its hooks is not seen; wrap it again.
    """

    def __init__(self, network: nn.Module, backend: Backend | None = None, capture: Capture | None = None) -> None:
        """Wrap ``network``, which is left as it is.

        Args:
            network: the network.
            backend: what makes a flat graph fast: :func:`inductor`, :func:`as_it_is`, or a function of yours; if None, the
                first on CUDA and the second elsewhere.
            capture: what replays a compiled graph; CUDA graphs on CUDA if None.
        """
        super().__init__()
        self._orig_mod = network  # as torch.compile calls it, whose state dict's keys are the same then
        self._backend, self._capture = backend, capture
        self._roads: dict[Any, _Road] = {}
        self._said: set[str] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns."""
        return self._orig_mod(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_roads": {}, "_said": set()}  # a copy compiles for itself

    def trace(
        self,
        inputs: Inputs,
        layers: Sequence[LayerLike] | None,
        *,
        targets: Sequence[TargetLike],
        reshape: Reshape | None,
        wrt: int | str | None,
        output: Output,
        relu_only: bool,
        instead: Tensor | None,
    ) -> Trace:
        """See :meth:`relume.engine.trace.Trace.run`, which calls it."""
        network = self._orig_mod
        eagerly = functools.partial(
            Trace.run,
            network,
            inputs,
            layers,
            targets=targets,
            reshape=reshape,
            wrt=wrt,
            output=output,
            relu_only=relu_only,
            instead=instead,
        )
        images = feed(inputs, wrt, model_device(network), instead)[2]
        if not isinstance(inputs, Tensor) and len(inputs) != 1:
            self._say("it takes several inputs, and only the one explained can be told from a constant")
            return eagerly()
        name = next(iter(inputs)) if isinstance(inputs, Mapping) else None
        inner = unwrap(network)
        names = None if layers is None else tuple(layer_name(inner, layer) for layer in layers)
        units = tuple(dict.fromkeys(layer_name(inner, target.layer) for target in targets if isinstance(target, Unit)))
        key = (name, names, units, id(reshape), relu_only, *_circumstances(network, images))
        road = self._roads.get(key)
        if road is None:
            facts = _facts(eagerly(), chosen=names is None)
            road = _Road(network, facts, functools.partial(_fed, name), self._backend, self._capture)
            self._remember(key, road)
        if road.facts.by_scores and not all(map(_is_class, targets)):
            self._say("the layer is chosen by what matters to the score; name it")
            return eagerly()
        source = road.run(images)
        if source is None:
            self._say(road.refused)
            return eagerly()
        return cut(network, images, source, road.facts, output)

    def _remember(self, key: Any, road: _Road) -> None:
        with ONE_AT_A_TIME:
            while len(self._roads) >= _FORMS:
                del self._roads[next(iter(self._roads))]
            self._roads[key] = road

    def _say(self, why: str) -> None:
        if why not in self._said:
            self._said.add(why)
            warnings.warn(f"this network is explained eagerly and not compiled: {why}", stacklevel=4)


class _Road:
    """What is known about one question, so much asked of inputs of one form, and its plan once it was asked twice."""

    def __init__(
        self, network: nn.Module, facts: Facts, feed: Callable[[Tensor], Any], backend: Backend | None, capture: Capture | None
    ) -> None:
        self.facts, self.passes = facts, dict[Asked, None]()
        self.refused, self.plan = "", cast("Plan | None", None)
        self.live = functools.partial(Live, network, facts, feed)
        self._backend, self._capture, self._builds = backend, capture, 0

    def run(self, images: Tensor) -> Source | None:
        """A run of the network; None if it cannot be cut off at what it returns, or not be compiled."""
        try:
            with ONE_AT_A_TIME:
                known = () if self.plan is None else self.plan.passes
                if not self.refused and any(asked not in known for asked in list(self.passes)):
                    self._build(images)
            return None if self.refused else _Run(self, images)
        except Exception as error:  # whatever stops a compiler, there is another road, and it is said
            if out_of_memory(error):  # another batch may fit
                raise
            kind = "" if isinstance(error, GraphError) else f"{type(error).__name__}: "
            self.refused, self.plan = kind + " ".join(str(error).split())[:300], None
            return None

    def _build(self, images: Tensor) -> None:
        self._builds += 1
        if self._builds > _BUILDS:
            raise GraphError("each time other gradients are asked for; a rule made anew for each call is one, so make it once")
        backend = self._backend or (inductor if images.is_cuda else as_it_is)
        capture = self._capture or (cuda_graph if images.is_cuda else None)
        self.plan = Plan(self.live, images, tuple(self.passes), backend, capture)


class _Run:
    """A run by the plan, if there is one; gradients that were never asked for before come from an eager run, and are noted."""

    def __init__(self, road: _Road, images: Tensor) -> None:
        self._road, self._images, self._plan = road, images, road.plan
        self.values: Sequence[Tensor]
        if self._plan is None:
            self.values, self.seen = self._live.values, self._live.seen
        else:
            self.values, self._kept = self._plan.forward(images)
            self.seen = self._plan.seen

    @functools.cached_property
    def _live(self) -> Live:
        return self._road.live(self._images)

    def pull(self, asked: Asked, cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """See :class:`relume.portable.cut.Source`."""
        if self._plan is not None and asked in self._plan.passes:
            return self._plan.backward(asked, self._kept, cotangents)
        found = self._live.pull(asked, cotangents)
        if all(gradient is not None for gradient in found):
            self._road.passes[asked] = None
        return found


def _facts(trace: Trace, *, chosen: bool) -> Facts:
    layers = {layer.name: layer for layer in (*trace.layers, *trace.units.values())}
    return Facts(
        layers=tuple(layer.name for layer in trace.layers),
        units=tuple(trace.units),
        maps={name: layer.to_map for name, layer in layers.items()},
        candidates=trace.candidates,
        relu_only=trace.relu_only,
        # a map has as many axes as the images; tokens have fewer, and are chosen by whether they matter to the score
        by_scores=chosen and trace.layers[0].output.ndim < trace.images.ndim,
    )


def _fed(name: str | None, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    return ([images], {}) if name is None else ([], {name: images})


def _circumstances(network: nn.Module, images: Tensor) -> tuple[Any, ...]:
    """What else a recorded graph depends on: the form of the images, the caller's autocast, and the network's tensors."""
    form, device = (images.shape, images.stride(), images.dtype, images.device), images.device
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    tensors = chain(network.parameters(), network.buffers())
    return *form, autocast, tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def _is_class(target: TargetLike) -> bool:
    if isinstance(target, Contrast):
        return _is_class(target.a) and _is_class(target.b)
    return isinstance(target, ClassTarget | Tensor) or not callable(target)
