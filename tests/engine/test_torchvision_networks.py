"""torchvision's networks with random weights: equal to the twin, and to Captum and zennit where those are right."""

import warnings

import pytest
import torch
from captum.attr import GuidedBackprop, GuidedGradCam
from torch import nn

import relume
from relume.models.libraries import import_torchvision
from tests.helpers.networks import torchvision_network as build
from tests.reference import twin

models = import_torchvision().models
# zennit imports torchvision, which must have been imported by then
from zennit.attribution import Gradient as ZennitGradient  # noqa: E402
from zennit.composites import GuidedBackprop as ZennitGuidedBackprop  # noqa: E402

NETWORKS = {  # side of the input; None: torch's functional ReLUs or ReLU6, on which module hooks go wrong without a word
    "alexnet": (96, True),
    "vgg11_bn": (64, True),
    "resnet18": (64, True),
    "squeezenet1_1": (64, True),
    "densenet121": (64, False),
    "googlenet": (64, False),
    "inception_v3": (96, False),
    "shufflenet_v2_x0_5": (64, True),
    "mobilenet_v2": (64, False),
    "mnasnet0_5": (64, True),
}


def relative_error(got, expected):
    return float((got - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_twin(name):
    side, _ = NETWORKS[name]
    model = build(name).double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    methods = ["gradient", "deconvnet", "guided_backprop"]
    e, of_one = relume.explain(model, x, [3, 7], methods), relume.explain(model, x[:1], [3], methods)
    for method, rule in (("gradient", twin.gradient), ("deconvnet", twin.deconvnet), ("guided_backprop", twin.guided)):
        expected, scores, calls = twin.attribution(model, x, [3, 7], rule)
        torch.testing.assert_close(e.scores, scores, rtol=1e-12, atol=1e-12)
        assert e.coverage.guided == calls.total()
        # a deconvnet may clamp everything away: then both must be zero
        assert relative_error(e[method], expected) < 1e-12 if expected.any() else not e[method].any()
        # the twin of one image runs the kernels that are to be checked: compared is the map that it has in the batch
        alone = of_one[method]
        assert relative_error(alone, expected[:1]) < 1e-11 if expected.any() else not alone.any()


@pytest.mark.parametrize("name", [name for name, (_, right) in NETWORKS.items() if right])
def test_equals_captum_where_it_is_right(name):
    side, _ = NETWORKS[name]
    model = build(name).double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    target = torch.tensor([3, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Captum announces the hooks it sets
        theirs = GuidedBackprop(model).attribute(x.clone().requires_grad_(), target=target)
    ours = relume.GuidedBackpropagation(model).attribute(x, target)
    assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("name", [name for name, (_, right) in NETWORKS.items() if right])
def test_equals_zennit_where_it_is_right(name):
    side, _ = NETWORKS[name]
    model = build(name).double()
    for module in model.modules():  # its hooks cannot be combined with in-place ReLUs
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with ZennitGradient(model, ZennitGuidedBackprop()) as attributor:
        _, theirs = attributor(x, torch.eye(1000, dtype=torch.float64)[[3, 7]])
    ours = relume.GuidedBackpropagation(model).attribute(x, [3, 7])
    assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("name", [name for name, (_, right) in NETWORKS.items() if not right])
def test_others_are_off_where_the_table_says_so(name):
    """The reason for the column above: module hooks miss functional and ReLU6 rectifiers."""
    side, _ = NETWORKS[name]
    model = build(name).double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = GuidedBackprop(model).attribute(x.clone().requires_grad_(), target=torch.tensor([3, 7]))
    expected, _, _ = twin.attribution(model, x, [3, 7], twin.guided)
    assert relative_error(theirs, expected) > 0.05


def test_guided_gradcam_equals_captum_with_bilinear_upsampling():
    model = build("resnet18").double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    target = torch.tensor([3, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = GuidedGradCam(model, model.layer3).attribute(
            x.clone().requires_grad_(), target=target, interpolate_mode="bilinear"
        )
    ours = relume.GuidedGradCAM(model, model.layer3).attribute(x, target)
    assert relative_error(ours, theirs) < 1e-12
