"""Random networks, random targets: the engine and the twin agree in float64 to 1e-12, relative, for every rule."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import relume
from tests.helpers.random_networks import BLOCKS, RECTIFIERS, Random
from tests.reference import twin

NETWORKS = st.lists(st.tuples(st.sampled_from(BLOCKS), st.sampled_from(sorted(RECTIFIERS))), min_size=1, max_size=5)
RULES = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    blocks=NETWORKS,
    targets=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
    training=st.booleans(),
)
def test_engine_equals_twin(blocks, targets, seed, training):
    torch.manual_seed(seed)
    net = Random(blocks).double()
    x = torch.randn(len(targets), 2, 6, 6, dtype=torch.float64)
    net.eval()
    expected = {rule: twin.attribution(net, x, targets, formula)[0] for rule, formula in RULES.items()}
    e = relume.explain(net.train(training), x, targets, list(RULES))
    for rule, values in expected.items():
        error = (e[rule] - values).norm() / values.norm().clamp(min=1e-300)
        assert error <= 1e-12, f"{rule}: relative error {error:.2e}"
    # alone each image has the map that it has beside another; the twin of one image would run the kernels to be checked
    pair = {rule: twin.attribution(net.eval(), x[[0, 0]], targets[:1] * 2, formula)[0] for rule, formula in RULES.items()}
    alone = relume.explain(net.train(training), x[:1], targets[:1], list(RULES))
    for rule, values in pair.items():
        error = (alone[rule] - values[:1]).norm() / values[:1].norm().clamp(min=1e-300)
        assert error <= 1e-12, f"{rule} of one image: relative error {error:.2e}"
    assert e.coverage.complete
