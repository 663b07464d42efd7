"""The methods: the gradients that each one needs, the formula of its map, and the registry of them.

A :class:`Method` only declares; :mod:`relume.explanation.run` computes what all methods of a call need: one forward pass, and
one backward pass for each rule and target.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor

from relume import rules
from relume.errors import InputError
from relume.maps import MapInfo, Place
from relume.methods import cam
from relume.methods.cam import WeightedSum
from relume.methods.gradients import Gradients
from relume.registry import Registry
from relume.rules import Rule

__all__ = ["METHODS", "Method", "Need", "backpropagation", "class_activation", "guided_by", "resolve_method"]

Need: TypeAlias = "tuple[Literal['input', 'layer'], Rule]"


@dataclass(frozen=True, slots=True)
class Method:
    """An attribution method: the gradients it needs, and the map it computes of them.

    Attributes:
        key: its key in :data:`METHODS` and in results.
        needs: the gradients it reads: pairs of a place, ``input`` or ``layer``, and a rule of :mod:`relume.rules`.
        compute: its formula, from :class:`relume.methods.Gradients` to the raw map.
        title: its name in figures and tables; the key if empty.
        place: where its map lives, see :class:`relume.maps.MapInfo`; if None, the input where it needs a gradient there.
        signed: True if its map can be negative.
        citation: where it was published.
        weighted_sum: for a class activation map, and for its product with guided backpropagation, the formula of the weighted
            sum whose positive part it is; remarks on empty and weak maps read it.

    Raises:
        InputError: the key cannot name a file.

    Example:
        >>> import relume, torch
        >>> from relume import rules
        >>> needs = frozenset({("input", rules.guided), ("input", rules.gradient)})
        >>> def difference(gradients):
        ...     return gradients.inputs[rules.guided] - gradients.inputs[rules.gradient]
        >>> relume.METHODS["guided_minus_plain"] = relume.Method("guided_minus_plain", needs, difference)
        >>> opened = relume.open_model("demo")
        >>> relume.explain(opened.model, torch.rand(1, 3, 96, 96), methods=["guided_minus_plain"])["guided_minus_plain"].shape
        torch.Size([1, 3, 96, 96])
        >>> del relume.METHODS["guided_minus_plain"]
    """

    key: str
    needs: frozenset[Need]
    compute: Callable[[Gradients], Tensor]
    title: str = field(default="", kw_only=True)
    place: Place | None = field(default=None, kw_only=True)
    signed: bool = field(default=True, kw_only=True)
    citation: str = field(default="", kw_only=True)
    weighted_sum: WeightedSum | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a key that cannot name a file."""
        if not re.fullmatch(r"\w[\w-]*", self.key) or self.key in ("figure", "photo"):
            raise InputError(f"a method's key is of letters, digits, - and _, and neither figure nor photo; got {self.key!r}")

    @property
    def maps(self) -> tuple[MapInfo]:
        """The description of its map, alone."""
        derived: Place = "input" if any(place == "input" for place, _ in self.needs) else "layer"
        return (MapInfo(self.key, self.title or self.key, self.place or derived, self.signed),)

    @property
    def needs_layer(self) -> bool:
        """True if the method reads a target layer."""
        return any(place == "layer" for place, _ in self.needs)


def backpropagation(key: str, rule: Rule, title: str = "", citation: str = "") -> Method:
    """Make the method whose map is the gradient with respect to the input by ``rule``: signed, ``(N, C, *spatial)``.

    Example:
        A rule of your own makes a method:

        >>> import relume, torch
        >>> from relume.methods import backpropagation
        >>> absolute = backpropagation("absolute", lambda gradient, rectifier: rectifier.pull(gradient).abs())
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> relume.explain(network, torch.rand(1, 3, 4, 4), 0, [absolute])["absolute"].shape
        torch.Size([1, 3, 4, 4])
    """
    return Method(key, frozenset({("input", rule)}), functools.partial(_input_gradient, rule), title=title, citation=citation)


def class_activation(key: str, weighted_sum: WeightedSum, title: str = "", citation: str = "") -> Method:
    """Make the class activation map ``ReLU(weighted_sum(A, g))`` of a layer: not negative, ``(N, *coarse)``.

    ``A`` are the layer's activations and ``g`` the plain gradient there, both ``(N, channels, *spatial)``.

    Example:
        >>> import relume, torch
        >>> from relume.methods import class_activation
        >>> strongest = class_activation("strongest", lambda A, g: (A * g).amax(1), "strongest channel")
        >>> opened = relume.open_model("demo")
        >>> relume.explain(opened.model, torch.rand(1, 3, 96, 96), 0, [strongest])["strongest"].shape
        torch.Size([1, 12, 12])
    """
    compute = functools.partial(cam.heat, weighted_sum)
    needs: frozenset[Need] = frozenset({("layer", rules.gradient)})
    return Method(key, needs, compute, title=title, signed=False, citation=citation, weighted_sum=weighted_sum)


def guided_by(coarse: Method) -> Method:
    """Make ``guided_<key>`` of a method with a coarse map: guided backpropagation × that map, upsampled linearly.

    Selvaraju et al. 2017, arXiv:1610.02391, section 3.1, for Grad-CAM. The map is signed, ``(N, C, *spatial)``.

    Example:
        >>> import relume
        >>> from relume.methods import guided_by
        >>> guided_by(relume.METHODS["layercam"]).maps[0].title
        'Guided LayerCAM'
    """
    return Method(
        f"guided_{coarse.key}",
        coarse.needs | {("input", rules.guided)},
        functools.partial(cam.guided_product, coarse.compute),
        title=f"Guided {coarse.title or coarse.key}",
        citation=f"Selvaraju et al. 2017, arXiv:1610.02391, section 3.1; {coarse.citation}",
        weighted_sum=coarse.weighted_sum,
    )


def _input_gradient(rule: Rule, gradients: Gradients) -> Tensor:
    return gradients.inputs[rule]


def _gradient_x_input(gradients: Gradients) -> Tensor:
    """Compute ``g ⊙ x``: Shrikumar et al. 2016, arXiv:1605.01713."""
    return gradients.inputs[rules.gradient] * gradients.images


_CAMS = (
    class_activation("gradcam", cam.gradcam, "Grad-CAM", "Selvaraju et al. 2017, arXiv:1610.02391"),
    class_activation("hirescam", cam.hirescam, "HiResCAM", "Draelos & Carin 2020, arXiv:2011.08891"),
    class_activation("layercam", cam.layercam, "LayerCAM", "Jiang et al. 2021, doi:10.1109/TIP.2021.3089943"),
    class_activation("gradcam_plusplus", cam.gradcam_plusplus, "Grad-CAM++", "Chattopadhyay et al. 2018, arXiv:1710.11063"),
    class_activation("xgradcam", cam.xgradcam, "XGrad-CAM", "Fu et al. 2020, arXiv:2008.02312"),
)

#: The methods by key; ``METHODS["mine"] = relume.Method(...)`` adds one.
METHODS: Registry[Method] = Registry(
    "method",
    "relume.methods",
    {
        method.key: method
        for method in (
            backpropagation("gradient", rules.gradient, "gradient", "Simonyan et al. 2013, arXiv:1312.6034"),
            backpropagation("deconvnet", rules.deconvnet, "deconvnet", "Zeiler & Fergus 2014, arXiv:1311.2901"),
            backpropagation(
                "guided_backprop", rules.guided, "guided backpropagation", "Springenberg et al. 2015, arXiv:1412.6806"
            ),
            Method(
                "gradient_x_input",
                frozenset({("input", rules.gradient)}),
                _gradient_x_input,
                title="gradient × input",
                citation="Shrikumar et al. 2016, arXiv:1605.01713",
            ),
            *_CAMS,
            *(guided_by(coarse) for coarse in _CAMS),
        )
    },
)


def resolve_method(method: str | Method) -> Method:
    """Return the method that a key of :data:`METHODS` names, or the method itself.

    Raises:
        InputError: an unknown key, or something that is no method.
    """
    resolved = METHODS[method] if isinstance(method, str) else method
    if not isinstance(resolved, Method):
        raise InputError(f"a method is a key of relume.METHODS or a relume.Method; got {method!r}")
    return resolved
