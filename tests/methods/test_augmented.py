"""Test-time augmentation: against its slow twin, and on networks that it cannot change."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import relume
from relume import Augmented
from relume.errors import InputError, TargetError
from relume.targets import Channel, Contrast, Detection, Neuron, Segmentation
from tests.helpers.assertions import assert_near
from tests.helpers.networks import Small
from tests.reference import repeated
from tests.reference.twin import by_twin

ALL = list(relume.METHODS)


@pytest.fixture
def net():
    return Small().double().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(("flip", "scales"), [(True, ()), (False, (1.5,)), (True, (0.75, 1.25))])
def test_augmentation_equals_the_twin(net, x, method, flip, scales):
    e = relume.explain(net, x, [1, 4], [Augmented(method, flip=flip, scales=scales), method], "body")
    expected = repeated.augmented(by_twin(net, method, [1, 4]), x, (1, *scales), flip=flip)
    assert_near(e[f"augmented_{method}"], expected)
    assert e[f"augmented_{method}"].shape == e[method].shape
    assert e.saliency(f"augmented_{method}").shape == (2, 8, 8)


@pytest.mark.parametrize("method", ALL)
def test_an_equivariant_network_is_augmented_to_itself(x, method):
    """Mirrored kernels: the map of the mirrored image is the mirrored map, and mirroring it back gives the map."""
    net = Small().double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data += module.weight.data.flip(3)
    e = relume.explain(net, x, 1, [method, Augmented(method)], "body")
    torch.testing.assert_close(e[f"augmented_{method}"], e[method], rtol=1e-12, atol=1e-16)
    skewed = relume.explain(Small().double().eval(), x, 1, [method, Augmented(method)], "body")
    assert not torch.allclose(skewed[f"augmented_{method}"], skewed[method])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.booleans(), st.lists(st.floats(0.3, 3), max_size=2))
def test_mirroring_twice_is_the_identity_and_a_flat_map_stays_flat(spatial, flip, scales):
    assume(flip or {*scales} - {1.0})
    x = torch.randn(2, 3, *spatial, dtype=torch.float64)
    mirrors = []
    for copy in Augmented("gradient", flip=flip, scales=scales).copies(x):
        flat = torch.full((2, *copy.images.shape[2:]), 0.7, dtype=torch.float64)
        torch.testing.assert_close(copy.back(flat, torch.Size([2, *spatial])), flat.new_full((2, *spatial), 0.7))
        if copy.images.shape == x.shape:
            mirrors.append(copy)
    for copy in mirrors:
        assert torch.equal(copy.back(copy.images, x.shape), x)


@pytest.mark.parametrize(
    "target",
    [Neuron("body", 1), Segmentation(1), Detection(), Contrast(Segmentation(1), 2)],
    ids=["neuron", "pixels", "box", "contrast"],
)
def test_a_target_with_a_place_cannot_follow_a_mirror(net, x, target):
    with pytest.raises(
        TargetError, match="Augmented shows things in other places, and [NSDC].* asks about one; explain a class"
    ):
        relume.explain(net, x, target, ["gradient", Augmented("gradient")])
    assert relume.explain(net, x, Channel("body", 1), [Augmented("gradient")])["augmented_gradient"].any()


class OneSize(nn.Module):
    def __init__(self, side=8):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * (side - 2) ** 2, 3)

    def forward(self, x):
        return self.head(self.conv(x).relu().flatten(1))


def test_a_network_of_one_size_says_so(x):
    net = OneSize().double()
    says = r"takes images of shape \(2, 3, 8, 8\) and fails on a copy of \(2, 3, 12, 12\) \(.*\); ask for no other size$"
    with pytest.raises(InputError, match=says):
        relume.explain(net, x, 1, ["gradient", Augmented("gradient", scales=(1.5,))])
    assert relume.explain(net, x, 1, [Augmented("gradient")])["augmented_gradient"].any()
