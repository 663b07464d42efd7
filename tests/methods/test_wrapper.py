"""What wrappers may ask: copies of the images, other targets of the same images, both, or neither."""

from dataclasses import dataclass

import pytest
import torch

import relume
from relume.maps import MapInfo
from relume.methods import Copy, Wrapper
from relume.targets import Channel, Class, Neuron
from tests.helpers.networks import Small


@dataclass(frozen=True)
class Rivals(Wrapper):
    """The map of the target less the mean of those of the classes in ``rivals``."""

    rivals: tuple[int, ...] = (0,)

    @property
    def maps(self):
        return (self.derived("rivals", "{} less that of rivals", note="against others"),)

    def targets(self, target, outputs):
        assert outputs.shape[1] == 5
        return [target, *(Class(index) for index in self.rivals)]

    def reduce(self, moments):
        own, *others = (of_target.mean for of_target in moments)
        return [own - sum(others) / len(others)]


class DimmedRivals(Rivals):
    """The same on two copies."""

    def copies(self, images):
        yield Copy(images)
        yield Copy(images / 2)


@pytest.fixture
def net():
    return Small().double().eval()


@pytest.fixture
def x():
    return torch.randn(3, 3, 8, 8, dtype=torch.float64)


METHODS = ("gradient", "gradcam", "guided_gradcam")


def by_hand(net, x, target, rivals, key):
    own, *others = (relume.explain(net, x, t, [key], "body", evidence=None)[key] for t in (target, *rivals))
    return own - sum(others) / len(others)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_other_targets_of_the_same_images_need_no_other_forward_pass(net, x, batch_size):
    ran = []
    net.register_forward_hook(lambda _m, args, _out: ran.append(len(args[0])))
    wrappers = [Rivals(key, rivals=(1, 3)) for key in METHODS]
    e = relume.explain(net, x, [2, 0, 4], ["gradient", *wrappers], "body", batch_size=batch_size)
    assert sum(ran) == len(x)
    assert list(e.maps) == ["gradient", *(f"rivals_{key}" for key in METHODS)]
    for key in METHODS:
        torch.testing.assert_close(e[f"rivals_{key}"], by_hand(net, x, [2, 0, 4], (1, 3), key), rtol=1e-9, atol=1e-13)


def test_other_targets_are_explained_in_every_copy(net, x):
    e = relume.explain(net, x, 2, [DimmedRivals("gradcam", rivals=(1, 3))], "body")
    expected = (by_hand(net, x, 2, (1, 3), "gradcam") + by_hand(net, x / 2, 2, (1, 3), "gradcam")) / 2
    torch.testing.assert_close(e["rivals_gradcam"], expected, rtol=1e-9, atol=1e-13)


class Here(Class):
    """A class whose score is read at a place in the image."""

    is_local = True


@dataclass(frozen=True)
class Replaced(relume.Augmented):
    """An augmentation that explains another target in place of the one that was asked for."""

    by: type[Class] = Class

    def targets(self, target, outputs):
        return [self.by(1)]


def test_a_target_with_a_place_is_refused_in_copies_that_move_also_where_a_wrapper_gives_it(net, x):
    assert relume.explain(net, x, 2, [Replaced("gradient")])["augmented_gradient"].any()
    with pytest.raises(relume.errors.TargetError, match="Replaced shows things in other places, and Here asks about one;"):
        relume.explain(net, x, 2, [Replaced("gradient", by=Here)])


@dataclass(frozen=True)
class Unit(Rivals):
    """A unit's map in place of the target's."""

    def targets(self, target, outputs):
        return [Neuron("conv2", 1, (2, 3))]

    def reduce(self, moments):
        return [moments[0].mean]


class DimmedUnit(Unit, DimmedRivals):
    """The same on two copies."""


def test_a_wrapper_gives_units_of_layers_that_were_recorded(net, x):
    expected = relume.explain(net, x, Neuron("conv2", 1, (2, 3)), ["gradient"])["gradient"]
    e = relume.explain(net, x, Channel("conv2", 0), [Unit("gradient")])
    torch.testing.assert_close(e["rivals_gradient"], expected, rtol=1e-9, atol=1e-13)
    for wrapper in (Unit, DimmedUnit):
        with pytest.raises(
            relume.errors.TargetError, match=r"^conv2, channel 1 at \(2, 3\) is a unit of a layer that .* did not record"
        ):
            relume.explain(net, x, 1, [wrapper("gradient")])


def test_a_map_is_described_by_its_wrapper(net, x):
    e = relume.explain(net, x, 2, [Rivals("gradcam"), relume.Smooth("gradient", 2)], "body")
    assert e.infos == {
        "rivals_gradcam": MapInfo(
            "rivals_gradcam", "Grad-CAM less that of rivals", "layer", signed=False, note="against others"
        ),
        "smooth_gradient": MapInfo("smooth_gradient", "SmoothGrad, gradient", note="2 noisy copies, noise 0.15"),
        "vargrad_gradient": MapInfo("vargrad_gradient", "VarGrad, gradient", signed=False, note="2 noisy copies, noise 0.15"),
    }
    caption = e.figure().texts[-1].get_text().replace("\n", " ")
    assert "against others" in caption
    assert caption.count("2 noisy copies, noise 0.15") == 1
    assert e.kind("vargrad_gradient").key == "absolute"


def test_a_map_of_another_place_than_its_method_says(net, x):
    coarse = relume.Method("total", relume.METHODS["guided_gradcam"].needs, lambda gradients: gradients.activations[0].sum(1))
    with pytest.raises(relume.errors.InputError, match=r"the total map has shape \(3, 6, 6\).*place='layer'"):
        relume.explain(net, x, 1, [coarse], "body")
    told = relume.Method("total", coarse.needs, coarse.compute, place="layer", title="the total")
    assert relume.explain(net, x, 1, [told], "body").saliency("total").shape == (3, 8, 8)
