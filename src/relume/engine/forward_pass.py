"""The forward pass of a network on its replica: what it returned, or in what words it failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from relume.engine.diagnosis import misfit, slip
from relume.engine.inputs import Model
from relume.engine.preparation import preparation_of
from relume.engine.replica import Guard, replicate, warn_of_writing
from relume.engine.saved_tensors import Lean
from relume.engine.trees import tree_map_only
from relume.engine.wrappers import modules_of
from relume.errors import RAISED_BY_NETWORK, GraphError, RelumeError
from relume.targets.outputs import tensors_in

__all__ = ["CUT_OFF", "guard", "raised_by_network", "returned"]

CUT_OFF = (
    "the score does not depend on the input through the autograd graph; "
    "look for torch.no_grad(), .detach(), .item() or an argmax in the model's forward or in the target"
)


def raised_by_network(error: BaseException) -> bool:
    """Tell whether the network itself raised ``error`` while a :class:`Trace` ran it."""
    noted = any(note.startswith(RAISED_BY_NETWORK) for note in getattr(error, "__notes__", ()))
    return noted and not isinstance(error, RelumeError)


def returned(model: Model, runs: Model, args: Sequence[Any], kwargs: Mapping[str, Any], images: Tensor) -> Any:
    """Run the network, and give what it returns, of which something depends on the input.

    Raises:
        InputError: it does not run on such images, and would on others like them.
        ModelError: weights of it are out of the ordinary, and it failed.
        GraphError: nothing that it returned depends on the input.
    """

    def run(other: Tensor) -> Any:  # in place of the images, which alone need a gradient
        fed = tree_map_only(Tensor, lambda t: other if t.requires_grad else t, (args, kwargs))
        replica = replicate(model) if isinstance(model, nn.Module) else model
        with guard(model), _lean(model), torch.no_grad():
            return replica(*fed[0], **fed[1])

    try:
        with guard(model), _lean(model):
            outputs = runs(*args, **kwargs)
    except SystemExit as error:  # an explanation that fails must not end the program around it
        ended = RuntimeError(f"it ended the program ({type(error).__name__}: {error})").with_traceback(error.__traceback__)
        ended.add_note(f"{RAISED_BY_NETWORK}, which relume ran on an input of shape {tuple(images.shape)})")
        raise ended from error
    except Exception as error:
        if isinstance(runs, nn.Module):
            warn_of_writing(runs)
        if isinstance(model, nn.Module) and (reason := slip(model, images, error, run)) is not None:
            raise reason from error
        error.add_note(f"{RAISED_BY_NETWORK}, which relume ran on an input of shape {tuple(images.shape)})")
        raise
    if isinstance(runs, nn.Module):
        warn_of_writing(runs)
    tensors = [tensor for _, tensor in tensors_in(outputs)]
    if tensors and not any(tensor.requires_grad for tensor in tensors):
        raise GraphError(CUT_OFF)
    alike = any(tensor.ndim and len(tensor) == len(images) for tensor in tensors)
    if tensors and not alike and isinstance(model, nn.Module) and (reason := misfit(model, images, run)) is not None:
        raise reason
    return outputs


def guard(model: Model) -> AbstractContextManager[Any]:
    """Guard a network in training mode, whose own modules must not run in place of the replica's; in evaluation they may."""
    if isinstance(model, nn.Module) and any(getattr(module, "training", False) for module in modules_of(model)):
        return Guard(model)
    return nullcontext()


def _lean(model: Model) -> AbstractContextManager[Any]:
    """Keep little for the backward pass, if the network was prepared to be lean."""
    made = preparation_of(model)
    return Lean() if made is not None and made.lean else nullcontext()
