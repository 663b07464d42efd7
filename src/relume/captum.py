"""Captum's class names and the meanings of its arguments, over relume's engine: ``from relume.captum import GuidedBackprop``.

A tensor gives a tensor and a tuple gives a tuple. Targets, selectors and defaults are Captum's, see
`docs/coming-from-captum.md`. What is computed is relume's: every rectifier is guided, and the network is left untouched and
runs as in evaluation mode.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.engine.inputs import Model
from relume.engine.layer_inputs import with_layer_input
from relume.engine.reading import LayerLike, Reading
from relume.engine.tensor_state import version
from relume.engine.trace import Score, Trace
from relume.errors import InputError, LayerError, TargetError
from relume.explanation.batches import warn
from relume.explanation.passes import check_finite
from relume.rules import Rule, deconvnet, gradient, guided
from relume.targets.base import is_index

__all__ = [
    "Deconvolution",
    "GuidedBackprop",
    "GuidedGradCam",
    "InputXGradient",
    "LayerAttribution",
    "LayerGradCam",
    "NeuronDeconvolution",
    "NeuronGradient",
    "NeuronGuidedBackprop",
    "Saliency",
]

#: One input, or several that are each explained.
T = TypeVar("T", Tensor, tuple[Tensor, ...])
#: An index for all samples, an integer or a tuple with one for each axis; or a list or a tensor with one for each sample.
TargetType: TypeAlias = "int | tuple[int, ...] | list[int] | list[tuple[int, ...]] | Tensor | None"
#: An index into the axes of a layer behind the first, where slices are summed; or a function of the layer.
Selector: TypeAlias = "int | list[int] | tuple[int | slice, ...] | Callable[[Any], Tensor]"
Question: TypeAlias = Callable[[Trace], Score]
C = TypeVar("C", bound=Callable[..., Any])


class SelectionError(TargetError, AssertionError, IndexError):
    """A target or a neuron that does not fit, which Captum's callers may catch as the one or the other."""


def _wrapped(attribute: C) -> C:
    """Wrap a method as Captum's own are: its ``NoiseTunnel`` calls what is inside."""

    @functools.wraps(attribute)
    def call(*args: Any, **kwargs: Any) -> Any:
        return attribute(*args, **kwargs)

    return cast("C", call)


class _Attribution:
    """A method bound to a network, with all that Captum's wrappers, such as ``NoiseTunnel``, look at."""

    multiplies_by_inputs = False

    def __init__(self, forward_func: Model) -> None:
        """Bind the method to ``forward_func``, a module or another callable."""
        self.forward_func = forward_func

    @property
    def _model(self) -> Model:
        """The network itself if its ``forward`` was given, since a method has no layers to read."""
        network = getattr(self.forward_func, "__self__", None)
        return network if isinstance(network, nn.Module) and network.forward == self.forward_func else self.forward_func

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the class in words, such as ``Input X Gradient``."""
        return re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__)

    def has_convergence_delta(self) -> bool:
        """Return False: no attribution here comes with an error of its own."""
        return False

    def attribute_future(self) -> NoReturn:
        """Raise a NotImplementedError, as Captum does for these methods."""
        raise NotImplementedError(f"{type(self).__name__} gives no futures; call attribute")


# --- Input attribution -----------------------------------------------------------------------------------------------------


class _InputAttribution(_Attribution):
    """The gradient of one score of each sample by a rule, with respect to every input."""

    _rule: Rule = staticmethod(gradient)

    @_wrapped
    def attribute(self, inputs: T, target: TargetType = None, additional_forward_args: Any = None) -> T:
        """Return the attribution of every input, of its shape.

        Args:
            inputs: a tensor, or a tuple of them, whose first axis are the samples.
            target: an integer, or a tuple with an index for each axis, for all samples; a list or a tensor with one for each
                sample; None if the network returns one score for each.
            additional_forward_args: what the network is given after the inputs, one argument or a tuple of them.

        Raises:
            TargetError: the target does not fit the outputs, or gives several scores for a sample.
            InputError: the inputs are no floating-point tensors.
            GraphError: a rule cannot be applied, or the score does not depend on an input.
        """
        return _gradients(self._model, inputs, additional_forward_args, lambda trace: _score(trace, target), self._rule)


class GuidedBackprop(_InputAttribution):
    """Guided backpropagation: Springenberg et al. 2015, arXiv:1412.6806.

    Example:
        >>> import relume, torch
        >>> guided = relume.captum.GuidedBackprop(relume.open_model("demo").model)
        >>> guided.attribute(torch.rand(2, 3, 96, 96), target=[3, 5]).shape
        torch.Size([2, 3, 96, 96])
    """

    _rule = staticmethod(guided)

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model)


class Deconvolution(_InputAttribution):
    """The deconvnet: Zeiler & Fergus 2014, arXiv:1311.2901.

    Example:
        >>> import relume, torch
        >>> relume.captum.Deconvolution(relume.open_model("demo").model).attribute(torch.rand(1, 3, 96, 96), 3).shape
        torch.Size([1, 3, 96, 96])
    """

    _rule = staticmethod(deconvnet)

    def __init__(self, model: Model) -> None:
        """Bind the method to ``model``."""
        super().__init__(model)


class Saliency(_InputAttribution):
    """The magnitude of the gradient, for each channel: Simonyan et al. 2013, arXiv:1312.6034.

    Example:
        >>> import relume, torch
        >>> saliency = relume.captum.Saliency(relume.open_model("demo").model)
        >>> bool((saliency.attribute(torch.rand(1, 3, 96, 96), target=3) >= 0).all())
        True
    """

    @_wrapped  # Captum's third argument is abs
    def attribute(  # type: ignore[override]
        self,
        inputs: T,
        target: TargetType = None,
        abs: bool = True,
        additional_forward_args: Any = None,
    ) -> T:
        """Return the magnitude of the gradient, or the gradient itself if ``abs`` is False; the rest is as for all inputs."""
        gradients = super().attribute(inputs, target, additional_forward_args)
        return _like(inputs, [g.abs() if abs else g for g in _tuple(gradients)])


class InputXGradient(_InputAttribution):
    """The gradient times the input: Shrikumar et al. 2016, arXiv:1605.01713.

    Example:
        >>> import relume, torch
        >>> times = relume.captum.InputXGradient(torch.nn.Linear(2, 2, bias=False))
        >>> x = torch.ones(1, 2)
        >>> torch.equal(times.attribute(x, 0), times.forward_func.weight[:1].detach())
        True
    """

    multiplies_by_inputs = True

    @_wrapped
    def attribute(self, inputs: T, target: TargetType = None, additional_forward_args: Any = None) -> T:
        """Return the gradient times the input; arguments and errors are as for all inputs."""
        gradients = _tuple(super().attribute(inputs, target, additional_forward_args))
        return _like(inputs, [x.detach().to(g.device) * g for x, g in zip(_tuple(inputs), gradients, strict=True)])


# --- Layer attribution -----------------------------------------------------------------------------------------------------


class LayerAttribution(_Attribution):
    """The attribution of a layer.

    Example:
        >>> import relume, torch
        >>> relume.captum.LayerAttribution.interpolate(torch.rand(1, 1, 7, 7), (224, 224)).shape
        torch.Size([1, 1, 224, 224])
    """

    def __init__(self, forward_func: Model, layer: LayerLike, device_ids: object = None) -> None:
        """Bind the method to a ``layer`` of ``forward_func``; a replica runs on one device, and ``device_ids`` are not used."""
        super().__init__(forward_func)
        self.layer = layer

    def _placed(self, *, at_input: bool) -> tuple[Model, LayerLike]:
        """Return a network and the layer of it whose output is meant: the layer's own, or what the layer is given."""
        model, layer = self._model, self.layer
        return with_layer_input(model, layer) if at_input and isinstance(model, nn.Module) else (model, layer)

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: int | tuple[int, ...], interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Resize an attribution ``(N, C, *spatial)`` to ``interpolate_dims``, by a mode of torch's ``interpolate``."""
        return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)


class LayerGradCam(LayerAttribution):
    """Grad-CAM with its sign: Selvaraju et al. 2017, arXiv:1610.02391.

    Example:
        >>> import relume, torch
        >>> network = relume.open_model("demo").model
        >>> relume.captum.LayerGradCam(network, network.layer2).attribute(torch.rand(1, 3, 96, 96), target=3).shape
        torch.Size([1, 1, 12, 12])
    """

    @_wrapped
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the layer's values times the mean gradient of their channel, ``(N, 1, *spatial)``; a tuple if it has several.

        Args:
            inputs: as for attributions of inputs.
            target: the same.
            additional_forward_args: the same.
            attribute_to_layer_input: read what the layer is given, and not what it returns.
            relu_attributions: return 0 in place of negative values, as the paper does.
            attr_dim_summation: sum over the channels; ``(N, C, *spatial)`` if False.
            grad_kwargs: ``{"materialize_grads": True}`` gives 0 for a layer that the score does not depend on.

        Raises:
            InputError: ``grad_kwargs`` holds an option of torch that has no meaning here.
            LayerError: the layer did not run once, its input is no tensor, or the score does not depend on it.
            TargetError: as for attributions of inputs.
        """
        model, layer = self._placed(at_input=attribute_to_layer_input)
        trace = _traced_layer(model, inputs, additional_forward_args, layer)
        values, score = _values(trace), _score(trace, target)
        gradients = _layer_gradients(trace, score, values, grad_kwargs or {})
        cams = [_cam(trace, v, g, summed=attr_dim_summation) for v, g in zip(values, gradients, strict=True)]
        cams = [cam.relu() if relu_attributions else cam for cam in cams]
        return tuple(cams) if len(cams) > 1 else cams[0]


class GuidedGradCam(LayerAttribution):
    """Guided Grad-CAM, resized by its nearest value if no mode is given: Selvaraju et al. 2017, arXiv:1610.02391, section 3.1.

    Example:
        >>> import relume, torch
        >>> network = relume.open_model("demo").model
        >>> product = relume.captum.GuidedGradCam(network, network.layer3)
        >>> product.attribute(torch.rand(1, 3, 96, 96), target=3, interpolate_mode="bilinear").shape
        torch.Size([1, 3, 96, 96])
    """

    def __init__(self, model: Model, layer: LayerLike, device_ids: object = None) -> None:
        """Bind the method to a ``layer`` of ``model``."""
        super().__init__(model, layer)

    @_wrapped
    def attribute(
        self,
        inputs: T,
        target: TargetType = None,
        additional_forward_args: Any = None,
        interpolate_mode: str = "nearest",
        attribute_to_layer_input: bool = False,
    ) -> T:
        """Return guided backpropagation times the positive part of Grad-CAM, of the shape of each input.

        An input to which Grad-CAM cannot be resized, since it has other axes than the layer or since torch has no such
        ``interpolate_mode`` for them, gets an empty tensor and a warning.

        Args:
            inputs: as for attributions of inputs.
            target: the same.
            additional_forward_args: the same.
            interpolate_mode: how Grad-CAM is resized; the paper's is ``bilinear``.
            attribute_to_layer_input: read what the layer is given, and not what it returns.

        Raises:
            LayerError: the layer did not run once, returned several tensors, or its input is no tensor.
            TargetError: as for attributions of inputs.
        """
        cam = LayerGradCam(self.forward_func, self.layer).attribute(
            inputs, target, additional_forward_args, attribute_to_layer_input, relu_attributions=True
        )
        if isinstance(cam, tuple):
            raise LayerError(f"the layer has {len(cam)} tensors, and Guided Grad-CAM reads one; name another layer")
        maps = _tuple(GuidedBackprop(self.forward_func).attribute(inputs, target, additional_forward_args))
        return _like(inputs, _products(maps, cam, interpolate_mode))


# --- Neuron attribution ----------------------------------------------------------------------------------------------------


class NeuronGradient(LayerAttribution):
    """The gradient of a neuron with respect to every input.

    Example:
        >>> import relume, torch
        >>> network = relume.open_model("demo").model
        >>> neuron = relume.captum.NeuronGradient(network, network.layer2)
        >>> neuron.attribute(torch.rand(1, 3, 96, 96), (4, 1, slice(2, 5))).shape
        torch.Size([1, 3, 96, 96])
    """

    _rule: Rule = staticmethod(gradient)

    @_wrapped
    def attribute(
        self,
        inputs: T,
        neuron_selector: Selector,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
    ) -> T:
        """Return the attribution of every input, of its shape.

        Args:
            inputs: as for attributions of inputs.
            neuron_selector: an integer for a layer ``(N, C)``; a tuple with an index or a slice for each axis but the first,
                where the neurons of slices are summed; or a function of the layer that returns ``(N,)`` or one value.
            additional_forward_args: as for attributions of inputs.
            attribute_to_neuron_input: select in what the layer is given, and not in what it returns.

        Raises:
            TargetError: the selector does not fit the layer, or gives several values for a sample.
            LayerError: the layer did not run once, or its input is no tensor.
            GraphError: a rule cannot be applied, or the neuron does not depend on an input.
        """
        model, layer = self._placed(at_input=attribute_to_neuron_input)
        selector = neuron_selector

        def question(trace: Trace) -> Score:
            count = len(trace.images)
            return trace.score(lambda _: _one_each(_neuron(_values(trace), selector), count, "neuron_selector", selector))

        return _gradients(model, inputs, additional_forward_args, question, self._rule, layer)


class NeuronGuidedBackprop(NeuronGradient):
    """Guided backpropagation of a neuron: Springenberg et al. 2015, arXiv:1412.6806.

    Example:
        >>> import relume, torch
        >>> network = relume.open_model("demo").model
        >>> neuron = relume.captum.NeuronGuidedBackprop(network, network.layer2)
        >>> neuron.attribute(torch.rand(1, 3, 96, 96), lambda layer: layer[:, 4].sum((1, 2))).shape
        torch.Size([1, 3, 96, 96])
    """

    _rule = staticmethod(guided)

    def __init__(self, model: Model, layer: LayerLike, device_ids: object = None) -> None:
        """Bind the method to a ``layer`` of ``model``."""
        super().__init__(model, layer)


class NeuronDeconvolution(NeuronGradient):
    """The deconvnet of a neuron: Zeiler & Fergus 2014, arXiv:1311.2901.

    Example:
        >>> import relume, torch
        >>> network = relume.open_model("demo").model
        >>> neuron = relume.captum.NeuronDeconvolution(network, network.layer2)
        >>> neuron.attribute(torch.rand(1, 3, 96, 96), (4, 1, 2), attribute_to_neuron_input=True).shape
        torch.Size([1, 3, 96, 96])
    """

    _rule = staticmethod(deconvnet)

    def __init__(self, model: Model, layer: LayerLike, device_ids: object = None) -> None:
        """Bind the method to a ``layer`` of ``model``."""
        super().__init__(model, layer)


# --- Passes ----------------------------------------------------------------------------------------------------------------


def _tuple(inputs: Any) -> tuple[Tensor, ...]:
    if isinstance(inputs, Tensor):
        return (inputs,)
    if isinstance(inputs, tuple) and inputs:
        return inputs
    raise InputError(f"inputs are a tensor or a tuple of tensors; got {type(inputs).__name__}")


def _like(inputs: T, attributions: Sequence[Tensor]) -> T:
    given: Any = inputs
    return cast("T", tuple(attributions) if isinstance(given, tuple) else attributions[0])


def _traced(model: Model, inputs: Any, additional: Any, *, wrt: int, layer: LayerLike | None = None) -> Trace:
    """Run the network once, with its layer as it is: Captum's axes are those of the tensor, not of a map made of it."""
    further = () if additional is None else additional if isinstance(additional, tuple) else (additional,)
    layers = () if layer is None else (layer,)
    return Trace.run(model, [*_tuple(inputs), *further], Reading(wrt=wrt, layers=layers, reshape=lambda values: values))


def _traced_layer(model: Model, inputs: Any, additional: Any, layer: LayerLike) -> Trace:
    """Run the network once, with a layer that may depend on any of the inputs.

    Raises:
        InputError: the layer cannot be read, whatever the input.
    """
    errors: list[InputError] = []
    for wrt in range(len(_tuple(inputs))):
        try:
            return _traced(model, inputs, additional, wrt=wrt, layer=layer)
        except InputError as error:
            errors.append(error)
    raise errors[0]


def _gradients(model: Model, inputs: T, additional: Any, question: Question, rule: Rule, layer: LayerLike | None = None) -> T:
    """Compute the gradient of the score that is asked about, with respect to each input, in a pass of its own."""
    gradients = []
    for wrt in range(len(_tuple(inputs))):
        trace = _traced(model, inputs, additional, wrt=wrt, layer=layer)
        score, applied = question(trace), rule
        if rule is not gradient and not trace.coverage(score).rows:
            applied = gradient
            warn(f"no rectifier lies between the score and the input, so {rule.__name__} is the plain gradient here")
        gradients += [check_finite(rule.__name__, g) for g in trace.grad(score, [trace.images], applied, last=True)]
    return _like(inputs, gradients)


def _values(trace: Trace) -> tuple[Tensor, ...]:
    """List the tensors of the layer that was read.

    Raises:
        LayerError: one was overwritten.
    """
    (layer,) = trace.layers
    if any(version(tensor) != was for tensor, was in layer.others):
        raise LayerError(f"layer {layer.name!r} has several tensors, and one was overwritten in place later on; name another")
    return layer.tensors


def _layer_gradients(trace: Trace, score: Score, values: Sequence[Tensor], grad_kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Compute the gradient of the score with respect to each tensor of a layer.

    Raises:
        InputError: an option of torch has no meaning here.
        LayerError: the score does not depend on a tensor, and is not to have the gradient 0 there.
    """
    if unknown := set(grad_kwargs) - {"allow_unused", "materialize_grads", "retain_graph"}:
        raise InputError(f"grad_kwargs has {', '.join(sorted(unknown))}, and only materialize_grads changes a result here")
    zeros = bool(grad_kwargs.get("materialize_grads"))
    read = [tensor for tensor in values if not zeros or score.between([tensor])[1]]
    gradients = dict(zip(read, trace.grad(score, read, last=True), strict=True)) if read else {}
    return [gradients[tensor] if tensor in gradients else torch.zeros_like(tensor) for tensor in values]


def _cam(trace: Trace, values: Tensor, gradients: Tensor, *, summed: bool) -> Tensor:
    """Compute Grad-CAM with its sign, ``Σ_k α_k A_k``, of a tensor whose second axis are its channels."""
    values, weights = trace.wide(values.detach()), trace.wide(gradients)
    if weights.ndim > 2:
        weights = weights.mean(tuple(range(2, weights.ndim)), keepdim=True)
    return check_finite("gradcam", (weights * values).sum(1, keepdim=True) if summed else weights * values)


def _products(maps: Sequence[Tensor], cam: Tensor, mode: str) -> list[Tensor]:
    """Multiply each map by Grad-CAM resized to it; where torch cannot resize it, warn and give an empty tensor."""
    products = []
    for values in maps:
        try:
            products.append(values * LayerAttribution.interpolate(cam, tuple(values.shape[2:]), mode))
        except (ValueError, NotImplementedError) as error:
            warn(f"Grad-CAM cannot be resized to {tuple(values.shape)}, and this input gets an empty tensor: {error}")
            products.append(torch.empty(0))
    return products


# --- Scores ----------------------------------------------------------------------------------------------------------------


def _score(trace: Trace, target: TargetType) -> Score:
    return trace.score(lambda outputs: _one_each(_target(outputs, target), len(trace.images), "target", target))


def _target(outputs: Any, target: Any) -> Tensor:
    """Select the score of each sample, where a tuple is one index into all axes of the outputs behind the first.

    Raises:
        SelectionError: the network returned no tensor, or the target does not fit it.
    """
    if not isinstance(outputs, Tensor):
        raise SelectionError(
            f"the network returned a {type(outputs).__name__}, and Captum's targets index one tensor; wrap the network in a "
            "function that returns it, or call relume.explain with output="
        )
    if isinstance(target, Tensor):
        target = target.item() if target.numel() == 1 else target.tolist()
    if target is None:
        return outputs
    if not isinstance(target, list):
        return _indexed(outputs, target)
    if outputs.shape[:1] != (len(target),):
        raise SelectionError(
            f"{len(target)} indices do not fit outputs of shape {tuple(outputs.shape)}; give one for each sample"
        )
    return torch.stack([_indexed(row[None], index)[0] for row, index in zip(outputs, target, strict=True)])


def _neuron(values: tuple[Tensor, ...], selector: Selector) -> Tensor:
    """Select a neuron of each sample, or the sum of several.

    Raises:
        SelectionError: the layer has several tensors or no such neuron.
    """
    if callable(selector):
        return selector(values if len(values) > 1 else values[0])
    if len(values) > 1:
        raise SelectionError(
            f"the layer has {len(values)} tensors; give a function of them as neuron_selector, and not {selector!r}"
        )
    selector = tuple(selector) if isinstance(selector, list) else selector
    selected = _indexed(values[0], selector)
    summed = isinstance(selector, tuple) and any(isinstance(index, slice) for index in selector)
    return selected.flatten(1).sum(1) if summed else selected


def _indexed(values: Tensor, index: Any) -> Tensor:
    """Index the axes of ``values`` behind the first.

    Raises:
        SelectionError: they have no such index.
    """
    indices = index if isinstance(index, tuple) else (index,)
    if not all(is_index(i) or isinstance(i, slice) for i in indices):
        raise SelectionError(
            f"an index is an integer or a tuple of integers, and a list or a tensor holds one for each sample; got {index!r}"
        )
    try:
        return values[(slice(None), *indices)]
    except (IndexError, ValueError):  # a slice that runs backwards
        raise SelectionError(
            f"there is no index {index!r} in shape {tuple(values.shape)}, whose first axis are the samples"
        ) from None


def _one_each(selected: Any, count: int, argument: str, given: object) -> Tensor:
    """Return one value for each sample, ``(count,)``; one value for all counts with the first, and all of one that all share.

    Raises:
        SelectionError: several values were selected for a sample.
    """
    if isinstance(selected, Tensor) and selected.numel() == 1:
        return F.pad(selected.reshape(1), (0, count - 1))
    if isinstance(selected, Tensor) and selected.numel() == count == len(selected):
        return selected.reshape(count)
    if isinstance(selected, Tensor) and count == 1 and selected.numel() == len(selected):
        return selected.sum().reshape(1)
    kind = f"shape {tuple(selected.shape)}" if isinstance(selected, Tensor) else f"a {type(selected).__name__}"
    raise SelectionError(
        f"{argument}={given!r} selects {kind}, and must select one value for each of {count} samples; "
        "give an index for each axis"
    )
