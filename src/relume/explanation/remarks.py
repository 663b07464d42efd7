"""Words for a map that shows nothing, or hardly anything: why, and what to try.

A map is empty where it is zero everywhere, and weak where its method left less than :data:`WEAK` of what it could have shown.
Both are known from the gradients and activations of the same pass, so that no other picture is needed to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from relume import rules
from relume.maps import saliency, upsample
from relume.methods.base import Method
from relume.methods.cam import WeightedSum, gradcam, heat, weighted_sums
from relume.methods.gradients import Gradients
from relume.rules import Rule

__all__ = ["NO_GRADIENT", "NO_HEAT", "WEAK", "Advice", "another_layer", "overlap", "positive_share", "remarks"]

#: Below this share a map is weak: two orders of magnitude. ``python -m benchmarks.weak`` shows the shares of many maps.
WEAK = 0.01

#: How the remark on a guided map begins whose class activation map, the one of this title, is empty.
NO_HEAT = "its {} is empty ("

#: The remark on every map of a score that has no gradient; no other layer, class or method would help.
NO_GRADIENT = "the score does not depend on the picture here (no gradient at all): check the weights and the target"

_ZERO: dict[Rule, str] = {
    rules.gradient: "the gradient of the score is zero everywhere",
    rules.deconvnet: "its rule passes positive gradients only, and none reaches the input",
    rules.guided: "its rule passes positive gradients through active neurons only, and none reaches the input",
}


def another_layer(candidates: Sequence[str], layer: str) -> str | None:
    """Choose the layer to try after ``layer`` from ``candidates``, the last first; None if there is none before it.

    It is the nearest one outside the container of ``layer``; without one, the nearest beside it, or its last part but one.
    """
    before = candidates[candidates.index(layer) + 1 :] if layer in candidates else ()
    inside, container = f"{layer}.", f"{layer.rpartition('.')[0]}."
    outside = [name for name in before if not name.startswith(inside)]
    elsewhere = [name for name in outside if not name.startswith(container)]
    parts = [name for name in before if name.startswith(inside) and "." not in name.removeprefix(inside)]
    return next(iter([*elsewhere, *outside, *parts[1:]]), None)


# --- How much of a map is left -------------------------------------------------------------------------------------------


def positive_share(gradients: Gradients, formula: WeightedSum = gradcam) -> float:
    """Measure how much of the weighted sum ``s`` of an image is positive: ``max(s, 0) / max |s|``, the highest of all layers.

    It is 1 where the greatest magnitude is positive, near 0 where hardly anything is, and 0 where the heat map is empty. A
    product of layers is empty where one of them is, so the lowest of all layers counts there.
    """
    shares = [_ratio(float(sums.relu().max()), float(sums.abs().max())) for sums in weighted_sums(formula, gradients)]
    return min(shares) if gradients.fuse == "product" else max(shares)


def overlap(gradients: Gradients, product: Tensor, formula: WeightedSum = gradcam) -> float:
    """Measure how much of its two maps the guided map of one image is: ``max |product| / (max |guided| · max heat)``."""
    guided, coarse = gradients.inputs[rules.guided], upsample(heat(formula, gradients), product.shape[2:])
    return _ratio(float(product.abs().max()), float(guided.abs().max()) * float(coarse.max()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _fraction(share: float) -> str:
    """Write a small share in words, such as ``1/340``."""
    return f"1/{float(f'{1 / share:.2g}'):,.0f}"


# --- Words ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice to try ``another`` layer than the target ``layers``, if one is known, or another of ``what`` is explained."""

    layers: Sequence[str]
    another: str | None
    what: str

    @property
    def place(self) -> str:
        """The target layers in words."""
        return f"layer{'s' * (len(self.layers) > 1)} {' and '.join(map(repr, self.layers))}"

    @property
    def layer(self) -> str:
        """The advice where the layer is to blame."""
        such = f", such as {self.another!r}," if self.another else ""
        return f"name another layer{such} or ask for another {self.what}"

    @property
    def target(self) -> str:
        """The advice where the layer is not to blame."""
        return f"ask for another {self.what}, or by another method"


def remarks(
    gradients: Gradients, maps: Mapping[str, Tensor], methods: Sequence[Method], advice: Advice
) -> dict[str, tuple[str, ...]]:
    """Say of each image's map by each method why it is empty or weak; there are no words where it is neither."""
    count = len(next(iter(maps.values()), ()))
    ones = [gradients[i : i + 1] for i in range(count)]
    return {
        method.key: tuple(_remark(ones[i], maps[method.key][i : i + 1], method, advice) for i in range(count))
        for method in methods
    }


def _remark(gradients: Gradients, values: Tensor, method: Method, advice: Advice) -> str:
    """Say why the map of one image, ``values``, is empty or weak."""
    if _unmoved(gradients) and not values.any():
        return NO_GRADIENT
    if method.weighted_sum is not None:
        remark = _guided_remark if ("input", rules.guided) in method.needs else _heat_remark
        return remark(gradients, values, method.weighted_sum, method.title.removeprefix("Guided "), advice)
    if values.any() or method.needs_layer or len(method.needs) != 1:
        return ""
    ((_, rule),) = method.needs
    return f"{_zero(rule)}; {advice.target}"


def _unmoved(gradients: Gradients) -> bool:
    """Tell whether no gradient of the score is left: none at the input, or none anywhere where that one is not known."""
    if (plain := gradients.inputs.get(rules.gradient)) is not None:
        return not plain.any()
    at_layers = gradients.layers.get(rules.gradient, ())
    return bool(at_layers) and not any(gradient.any() for gradient in [*at_layers, *gradients.inputs.values()])


def _zero(rule: Rule) -> str:
    return _ZERO.get(rule, "its rule lets nothing through to the input")


def _heat_remark(gradients: Gradients, values: Tensor, formula: WeightedSum, _: str, advice: Advice) -> str:
    share = positive_share(gradients, formula)
    if share == 0 or not values.any():
        return f"{_no_heat(gradients, formula, share, advice)}; {advice.layer}"
    at = f"at {advice.place} the highest value of its weighted sum is {_fraction(share)} of the size of the lowest"
    return "" if share >= WEAK else f"weak: {at}"


def _no_heat(gradients: Gradients, formula: WeightedSum, share: float, advice: Advice) -> str:
    if share:
        return f"the heat maps of {advice.place} do not overlap"
    if not any(gradient.any() for gradient in gradients.layers[rules.gradient]):
        return f"the gradient at {advice.place} is zero"
    negative = any(values.any() for values in weighted_sums(formula, gradients))
    place = f"{'one of ' * (gradients.fuse == 'product' and len(advice.layers) > 1)}{advice.place}"
    return f"its weighted sum is {'nowhere positive' if negative else 'zero'} at {place}"


def _guided_remark(gradients: Gradients, product: Tensor, formula: WeightedSum, name: str, advice: Advice) -> str:
    share, guided = positive_share(gradients, formula), gradients.inputs[rules.guided]
    coarse = upsample(heat(formula, gradients), product.shape[2:])
    if share == 0 or not coarse.any():
        return f"{NO_HEAT.format(name)}{_no_heat(gradients, formula, share, advice)}); {advice.layer}"
    if not guided.any():
        return f"its guided backpropagation is empty ({_zero(rules.guided)}); {advice.target}"
    shared = overlap(gradients, product, formula)
    if shared == 0:
        if (saliency(guided).bool() & coarse.bool()).any():
            return f"its values are too small for {product.dtype}; explain images and network of a wider dtype"
        return f"its guided backpropagation and its {name} do not overlap; {advice.layer}"
    if share * shared >= WEAK:
        return ""
    little = f"hardly anything of {name}'s weighted sum at {advice.place} is positive"
    why = "they hardly overlap" if shared < share else little
    return f"weak: {_fraction(share * shared)} of what its two maps could give, since {why}"
