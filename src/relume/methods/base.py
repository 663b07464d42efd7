"""The methods: which gradients each one needs, and what it makes of them.

A :class:`Method` only declares; :mod:`relume.explanation.run` asks for the union of what is needed: one forward pass for
everything,
then one backward pass for each rule and target.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from relume import rules
from relume.errors import InputError
from relume.maps import upsample
from relume.rules import Rule

__all__ = [
    "METHODS",
    "Fuse",
    "Gathered",
    "Method",
    "backpropagation",
    "distinct",
    "gradcam",
    "resolve_method",
    "resolve_methods",
    "weighted_sums",
]

Need: TypeAlias = "tuple[Literal['input', 'layer'], Rule]"
Fuse: TypeAlias = Literal["mean", "max"]


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What one forward pass and the backward passes gave: all that a method makes its map of.

    Attributes:
        inputs: the gradient with respect to the input by each rule asked for, ``(N, C, *spatial)``.
        layers: those with respect to each target layer by each rule, ``(N, channels, *spatial)``.
        activations: the output of each target layer, of the same shapes.
        fuse: how the heat maps of several layers become one.
    """

    inputs: Mapping[Rule, Tensor]
    layers: Mapping[Rule, Sequence[Tensor]]
    activations: Sequence[Tensor]
    fuse: Fuse

    def __getitem__(self, some: slice) -> Gathered:
        """The same of some images."""
        inputs = {rule: values[some] for rule, values in self.inputs.items()}
        layers = {rule: [values[some] for values in several] for rule, several in self.layers.items()}
        return Gathered(inputs, layers, [values[some] for values in self.activations], self.fuse)


# --- The methods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its key, the gradients it needs, and the map it makes of them and of the target layers' outputs."""

    key: str
    needs: frozenset[Need]
    compute: Callable[[Gathered], Tensor]

    def __post_init__(self) -> None:
        """Refuse a key that cannot name a file.

        Raises:
            InputError: such a key.
        """
        if not re.fullmatch(r"\w[\w-]*", self.key) or self.key in ("figure", "photo"):
            raise InputError(f"a method's key is of letters, digits, - and _, and neither figure nor photo; got {self.key!r}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The key of its map, alone."""
        return (self.key,)

    @property
    def needs_layer(self) -> bool:
        """Whether the method reads a target layer."""
        return any(where == "layer" for where, _ in self.needs)


def backpropagation(key: str, rule: Rule) -> Method:
    """The gradient of the score with respect to the input by ``rule``: signed, ``(N, C, *spatial)``."""
    return Method(key, frozenset({("input", rule)}), functools.partial(_input_gradient, rule))


def _input_gradient(rule: Rule, found: Gathered) -> Tensor:
    return found.inputs[rule]


def weighted_sums(found: Gathered) -> list[Tensor]:
    """``Σ_k α_k A_k`` of each target layer, ``α_k`` the spatial mean of the plain gradient: Selvaraju et al. 2017, eq. 1."""
    alphas = [gradient.flatten(2).mean(2) for gradient in found.layers[rules.gradient]]
    return [torch.einsum("nk,nk...->n...", a, A) for a, A in zip(alphas, found.activations, strict=True)]


def gradcam(found: Gathered) -> Tensor:
    """``ReLU(Σ_k α_k A_k)``: Selvaraju et al. 2017, equation 2."""
    heats = [values.relu() for values in weighted_sums(found)]
    return heats[0] if len(heats) == 1 else _fused(heats, found.fuse)


def _fused(heats: Sequence[Tensor], fuse: Fuse) -> Tensor:
    """Heat maps of several layers as one, at the finest resolution; each is divided by its highest value first."""
    size = max((heat.shape[1:] for heat in heats), key=math.prod)
    heats = [heat.to(torch.promote_types(heat.dtype, torch.float32)) for heat in heats]  # half has no room for small values
    highest = [heat.flatten(1).amax(1).clamp(min=torch.finfo(heat.dtype).tiny) for heat in heats]
    scaled = [upsample(heat / high.view(-1, *[1] * (heat.ndim - 1)), size) for heat, high in zip(heats, highest, strict=True)]
    return torch.stack(scaled).mean(0) if fuse == "mean" else torch.stack(scaled).amax(0)


def _guided_gradcam(found: Gathered) -> Tensor:
    """Guided gradient × Grad-CAM upsampled to the input: Selvaraju et al. 2017, section 3.1."""
    fine = found.inputs[rules.guided]
    return fine * upsample(gradcam(found), fine.shape[2:])[:, None]


METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        backpropagation("gradient", rules.gradient),
        backpropagation("deconvnet", rules.deconvnet),
        backpropagation("guided_backprop", rules.guided),
        Method("gradcam", frozenset({("layer", rules.gradient)}), gradcam),
        Method("guided_gradcam", frozenset({("input", rules.guided), ("layer", rules.gradient)}), _guided_gradcam),
    )
}


class Keyed(Protocol):
    """What makes maps under its keys."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its maps."""


K = TypeVar("K", bound=Keyed)


def resolve_methods(methods: Iterable[str | Method]) -> list[Method]:
    """The methods that ``methods`` names, each once.

    Raises:
        InputError: an unknown key, something that is no method, two methods of one key, or none at all.
    """
    return distinct(methods, resolve_method)


def distinct(methods: Iterable[str | K], resolve: Callable[[str | K], K]) -> list[K]:
    """What ``resolve`` makes of each of ``methods``, each once.

    Raises:
        InputError: no methods, or two different ones of one key.
    """
    asked = [] if isinstance(methods, str) else list(methods)
    if not asked:
        raise InputError(f"methods are a list of keys, such as ['guided_backprop']; got {methods!r}")
    found: dict[str, K] = {}
    for method in map(resolve, asked):
        for key in method.keys:
            if found.setdefault(key, method) != method:
                raise InputError(f"two different methods are called {key!r}; give one another key, or ask in two calls")
    return list(dict.fromkeys(found.values()))


def resolve_method(key: str | Method) -> Method:
    """The method that ``key`` names.

    Raises:
        InputError: an unknown key, or something that is no method.
    """
    method = METHODS.get(key) if isinstance(key, str) else key
    if method is None:
        close = difflib.get_close_matches(str(key), METHODS, n=1)
        hint = f"did you mean {close[0]!r}? There are" if close else "choose from"
        raise InputError(f"there is no method {key!r}; {hint} {', '.join(METHODS)}")
    if not isinstance(method, Method):
        raise InputError(f"a method is a key of relume.METHODS or a relume.Method; got {key!r}")
    return method
