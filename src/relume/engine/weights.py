"""The fingerprint of a network's weights, by which results that belong to one network are known."""

from __future__ import annotations

import hashlib
import weakref

import torch
from torch import nn

from relume.engine.inputs import Model
from relume.engine.preparation import preparation_of
from relume.engine.wrappers import unwrap
from relume.errors import InputError
from relume.text import encoded

__all__ = ["fingerprint_of", "weights_hash"]

#: The hashes that were computed, each with the places and versions of the tensors that it was computed of.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[object, str]] = weakref.WeakKeyDictionary()


def fingerprint_of(model: Model) -> str:
    """Return the fingerprint of a network: :func:`weights_hash`, for a prepared network that of the one it was made from.

    It is computed once for a network, and again if its weights have been written to, except through ``parameter.data``.

    Raises:
        InputError: ``model`` is a function, which has no weights.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a function has no weights to be known by; give a torch.nn.Module, not {type(model).__name__}")
    preparation = preparation_of(model)
    if preparation is not None:
        return preparation.weights
    network = unwrap(model)
    state = tuple((name, value.data_ptr(), value._version) for name, value in network.state_dict(keep_vars=True).items())
    known = _KNOWN.get(network)
    if known is None or known[0] != state:
        known = _KNOWN[network] = (state, weights_hash(network))
    return known[1]


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of a network's weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(encoded(name))
        if isinstance(value, torch.Tensor):
            digest.update(encoded(f"{value.dtype}{tuple(value.shape)}"))
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
