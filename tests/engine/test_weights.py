"""The fingerprint of a network's weights."""

import torch

import relume
from relume.engine.weights import fingerprint_of, weights_hash
from tests.helpers.networks import Small


def test_it_is_of_the_weights_whatever_was_done_to_the_network():
    model = Small().eval()
    first = fingerprint_of(model)
    assert first == weights_hash(model) == fingerprint_of(model)
    assert fingerprint_of(relume.prepare(model, torch.rand(1, 3, 8, 8))) == first
    other = Small().eval()
    assert fingerprint_of(other) != first
    other.load_state_dict(model.state_dict())
    assert fingerprint_of(other) == first
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert fingerprint_of(model) != first
