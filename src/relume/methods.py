"""The methods, each a few lines over a :class:`~relume.trace.Trace`, and the classes that offer them one by one.

A :class:`Method` declares which gradients it needs, and :func:`explain_targets` asks for their union: one forward pass for
everything, then one backward pass for each rule and target.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from relume import rules
from relume.errors import InputError, NonFiniteError, TargetError
from relume.result import Coverage, Explanation, upsample
from relume.rules import Rule
from relume.targets import TargetLike, class_scores
from relume.trace import Inputs, Model, Score, Trace, full_precision, recording

__all__ = [
    "METHODS",
    "Backpropagation",
    "Deconvolution",
    "GradCAM",
    "Gradient",
    "GuidedBackpropagation",
    "GuidedGradCAM",
    "GuidedReLU",
    "Method",
    "backpropagation",
    "compute_guided_gradcam",
    "coverage",
    "explain",
    "explain_targets",
    "resolve_methods",
]

Need: TypeAlias = "tuple[Literal['input', 'layer'], Rule]"


# --- The methods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its key, the gradients it needs, and the map it makes of them and of the target layer's output."""

    key: str
    needs: frozenset[Need]
    compute: Callable[[Mapping[Need, Tensor], Tensor | None], Tensor]

    @property
    def needs_layer(self) -> bool:
        """Whether the method reads a target layer."""
        return any(where == "layer" for where, _ in self.needs)


def backpropagation(key: str, rule: Rule) -> Method:
    """The gradient of the score with respect to the input by ``rule``: signed, ``(N, C, *spatial)``."""
    return Method(key, frozenset({("input", rule)}), functools.partial(_input_gradient, rule))


def _input_gradient(rule: Rule, g: Mapping[Need, Tensor], _activation: Tensor | None) -> Tensor:
    return g["input", rule]


def _gradcam(g: Mapping[Need, Tensor], activation: Tensor | None) -> Tensor:
    """``ReLU(Σ_k α_k A_k)``, ``α_k`` the spatial mean of the plain gradient: Selvaraju et al. 2017, equations 1 and 2."""
    assert activation is not None, "the layer is captured for every method that needs it"
    alpha = g["layer", rules.gradient].flatten(2).mean(2)
    return torch.einsum("nk,nk...->n...", alpha, activation.detach()).relu()


def _guided_gradcam(g: Mapping[Need, Tensor], activation: Tensor | None) -> Tensor:
    """Guided gradient × Grad-CAM upsampled to the input: Selvaraju et al. 2017, section 3.1."""
    fine = g["input", rules.guided]
    return fine * upsample(_gradcam(g, activation), fine.shape[2:])[:, None]


METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        backpropagation("gradient", rules.gradient),
        backpropagation("deconvnet", rules.deconvnet),
        backpropagation("guided_backprop", rules.guided),
        Method("gradcam", frozenset({("layer", rules.gradient)}), _gradcam),
        Method("guided_gradcam", frozenset({("input", rules.guided), ("layer", rules.gradient)}), _guided_gradcam),
    )
}


# --- Explaining ----------------------------------------------------------------------------------------------------------


def explain(
    model: Model,
    images: Inputs,
    target: TargetLike = None,
    methods: Iterable[str | Method] = ("guided_backprop", "guided_gradcam"),
    layer: nn.Module | str | None = None,
    *,
    wrt: int | str | None = None,
) -> Explanation:
    """Explain one score of each image by any set of methods: one forward pass, one backward pass for each rule.

    Args:
        model: a network, left exactly as it is; it runs as in evaluation mode.
        images: ``(N, C, *spatial)``, floating point, preprocessed as the network expects; or a sequence of positional
            inputs, or a mapping of keyword inputs, of which one is explained.
        target: None (each image's predicted class), a class, one class per image, or a callable ``outputs -> (N,)``.
        methods: keys of :data:`METHODS`, or :class:`Method` objects.
        layer: Grad-CAM's target layer: a module of the model, its dotted name, or None for the last one with spatial axes
            before pooling.
        wrt: which of several inputs is explained, by position or name; the first floating-point tensor if None.

    Raises:
        InputError: images, methods, target or layer do not fit; see :mod:`relume.errors`.
        GraphError: a rule cannot be applied to every rectifier of this network.
        NonFiniteError: NaN or infinity in the input, the scores or a map.
    """
    return explain_targets(model, images, [target], methods, layer, wrt=wrt)[0]


@recording()
def explain_targets(
    model: Model,
    images: Inputs,
    targets: Sequence[TargetLike],
    methods: Iterable[str | Method] = ("guided_backprop", "guided_gradcam"),
    layer: nn.Module | str | None = None,
    *,
    wrt: int | str | None = None,
) -> list[Explanation]:
    """:func:`explain` for several targets of the same images, which share the forward pass: an explanation for each."""
    asked = resolve_methods(methods)
    trace = Trace.run(model, images, layer=layer, need_layer=any(m.needs_layer for m in asked), wrt=wrt)
    scores = [trace.score(target) for target in targets]
    return [
        Explanation(
            coverage=trace.coverage(score),
            maps=_maps(trace, score, asked, last=score is scores[-1]),
            images=trace.images.detach(),
            target=score.classes,
            score=score.value.detach(),
            scores=_scores(trace, score),
            layer=trace.layer.name if trace.layer else None,
            model=type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", repr(model)),
        )
        for score in scores
    ]


def resolve_methods(methods: Iterable[str | Method]) -> list[Method]:
    """The methods that ``methods`` names, each once.

    Raises:
        InputError: an unknown key, something that is no method, two methods of one key, or none at all.
    """
    asked = [] if isinstance(methods, str) else list(methods)
    if not asked:
        raise InputError(f"methods are a list of keys, such as ['guided_backprop']; got {methods!r}")
    found: dict[str, Method] = {}
    for key in asked:
        method = METHODS.get(key) if isinstance(key, str) else key
        if method is None:
            close = difflib.get_close_matches(str(key), METHODS, n=1)
            hint = f"did you mean {close[0]!r}? There are" if close else "choose from"
            raise InputError(f"there is no method {key!r}; {hint} {', '.join(METHODS)}")
        if not isinstance(method, Method):
            raise InputError(f"a method is a key of relume.METHODS or a relume.Method; got {key!r}")
        if found.setdefault(method.key, method) is not method:
            raise InputError(f"two different methods are called {method.key!r}; give one another key")
    return list(found.values())


def _maps(trace: Trace, score: Score, methods: Sequence[Method], *, last: bool) -> dict[str, Tensor]:
    """Every method's map from one backward pass for each rule; ``last`` if the graph is not needed after them."""
    ends = {"input": trace.images, **({"layer": trace.layer.output} if trace.layer else {})}
    passes: dict[Rule, list[Literal["input", "layer"]]] = {}
    for where, rule in dict.fromkeys(need for method in methods for need in sorted(method.needs, key=lambda n: n[0])):
        passes.setdefault(rule, []).append(where)
    found: dict[Need, Tensor] = {}
    for i, (rule, places) in enumerate(passes.items(), start=1):
        gradients = trace.grad(score, [ends[w] for w in places], rule, last=last and i == len(passes))
        found.update({(where, rule): g for where, g in zip(places, gradients, strict=True)})
    with full_precision(trace.images.device.type):
        return {m.key: _finite(m.key, m.compute(found, ends.get("layer"))) for m in methods}


def _finite(key: str, values: Tensor) -> Tensor:
    if torch.isfinite(values).all():
        return values.detach()
    raise NonFiniteError(
        f"the {key} map holds NaN or infinity although the scores are finite: the gradient overflowed; try a wider dtype"
    )


def _scores(trace: Trace, score: Score) -> Tensor:
    try:
        return class_scores(trace.outputs).detach()
    except TargetError:  # a callable target explained something else than classes
        return score.value.detach()


def coverage(model: Model, images: Inputs, target: TargetLike = None, *, wrt: int | str | None = None) -> Coverage:
    """Which rectifiers run between the input and the score of ``target``, and which of them a rule reaches.

    Costs one forward pass. Print it: it is a small table.
    """
    trace = Trace.run(model, images, wrt=wrt)
    return trace.coverage(trace.score(target))


# --- The public classes --------------------------------------------------------------------------------------------------


class _Attribution:
    """One method bound to one model."""

    def __init__(self, model: Model, method: Method, target_layer: nn.Module | str | None = None) -> None:
        self._model: Model | None = model
        self._method, self._layer = method, target_layer

    def _explain(self, images: Inputs, target: TargetLike, wrt: int | str | None) -> Explanation:
        if self._model is None:
            raise InputError(f"this {type(self).__name__} was released by remove_hooks(); make a new one")
        return explain(self._model, images, target, [self._method], self._layer, wrt=wrt)

    def attribute(self, images: Inputs, target: TargetLike = None, *, wrt: int | str | None = None) -> Tensor:
        """The raw map: signed ``(N, C, *spatial)``, or Grad-CAM's ``(N, *layer's spatial axes)``.

        Arguments and errors are those of :func:`relume.explain`.
        """
        return self._explain(images, target, wrt)[self._method.key]

    def __call__(self, images: Tensor, target: TargetLike = None, device: torch.device | str | None = None) -> Tensor:
        """The saliency, ``(N, *spatial)``, not negative; ``device`` is where the model is and the images go."""
        if not isinstance(images, Tensor):
            raise InputError(f"images are a tensor (N, C, H, W); got {type(images).__name__}")
        return self._explain(images.to(device), target, None).saliency(self._method.key)

    def remove_hooks(self) -> None:
        """Release the model. There are no hooks to remove: none outlives the call that needed it."""
        self._model = None


class Backpropagation(_Attribution):
    """The gradient with respect to the input by any rule: ``relume.Backpropagation(model, rule)``."""

    def __init__(self, model: Model, rule: Rule) -> None:
        """Bind ``rule``, a function ``(grad_out, local) -> grad_in`` as in :mod:`relume.rules`, to ``model``."""
        super().__init__(model, backpropagation(getattr(rule, "__name__", "rule"), rule))


class Gradient(_Attribution):
    """The plain gradient: Simonyan et al. 2013, arXiv:1312.6034."""

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["gradient"])


class Deconvolution(_Attribution):
    """The deconvnet: Zeiler & Fergus 2014, arXiv:1311.2901."""

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["deconvnet"])


class GuidedBackpropagation(_Attribution):
    """Guided backpropagation: Springenberg et al. 2015, arXiv:1412.6806."""

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model, METHODS["guided_backprop"])


class GradCAM(_Attribution):
    """Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391. Not normalised."""

    def __init__(self, model: Model, target_layer: nn.Module | str | None = None) -> None:
        """Bind the method to ``model`` and its ``target_layer``: a module, a dotted name, or None to choose."""
        super().__init__(model, METHODS["gradcam"], target_layer)


class GuidedGradCAM(_Attribution):
    """Guided Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391, section 3.1."""

    def __init__(self, model: Model, target_layer: nn.Module | str | None = None) -> None:
        """Bind the method to ``model`` and its ``target_layer``: a module, a dotted name, or None to choose."""
        super().__init__(model, METHODS["guided_gradcam"], target_layer)


class GuidedReLU(torch.autograd.Function):
    """ReLU whose backward pass is guided, ``g · 1[x > 0] · 1[g > 0]``, for a network written with it.

    relume does not need it: rules are applied to any network as it is. It is the definition in its shortest form.
    """

    guides: ClassVar[bool] = True  # read by relume.graph, which lists it in the coverage as guided by itself

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """``g · 1[x > 0] · 1[g > 0]``."""
        (y,) = ctx.saved_tensors
        grad: Tensor = grad_outputs[0].clamp(min=0) * (y > 0)
        return grad


def compute_guided_gradcam(
    model: Model,
    target_layer: nn.Module | str | None,
    image: Tensor,
    target: TargetLike = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Guided Grad-CAM, guided backpropagation and Grad-CAM of one image, from one forward pass.

    Args:
        model: as for :func:`relume.explain`.
        target_layer: a module of the model, its dotted name, or None to choose.
        image: ``(C, H, W)`` or ``(1, C, H, W)``.
        target: the class; the predicted one if None.
        device: where the model is and the image goes.

    Returns:
        Guided Grad-CAM ``(H, W)`` and guided backpropagation ``(H, W)`` as saliency, not negative, and Grad-CAM ``(h, w)``
        at the resolution of the layer.

    Raises:
        InputError: more than one image, or as :func:`relume.explain`.
    """
    images = image.to(device)[None] if image.ndim == 3 else image.to(device)
    if len(images) != 1:
        raise InputError(f"compute_guided_gradcam takes one image, and got {len(images)}; relume.explain takes a batch")
    e = explain(model, images, target, ("guided_gradcam", "guided_backprop", "gradcam"), target_layer)
    return e.saliency("guided_gradcam")[0], e.saliency("guided_backprop")[0], e["gradcam"][0]
