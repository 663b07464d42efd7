"""The private names of a module in torch: where it keeps parameters, buffers, modules and forward hooks; and its base classes.

The dictionaries are read, since the public ways to the same, such as ``named_parameters``, take ten times as long, and every
call of relume looks at every module. Read in torch 2.13; ``tests/engine/test_torch_names.py`` says when one of them changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["FORWARD_HOOKS", "AnyBatchNorm", "AnyConvolution", "alias", "children_of", "parameter_of", "tensor_of", "tensors_of"]

AnyBatchNorm = nn.modules.batchnorm._BatchNorm
AnyConvolution = nn.modules.conv._ConvNd

#: The attributes that hold the forward hooks of a module.
FORWARD_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the modules registered in ``module`` itself, by name: its own dictionary."""
    return module._modules


def tensors_of(module: nn.Module) -> Iterator[tuple[dict[str, Tensor | None], str, Tensor]]:
    """List the parameters and buffers of ``module`` itself: the dictionary that holds each, its name in it, and the tensor."""
    held: dict[str, Tensor | None]
    for held in (module._parameters, module._buffers):  # type: ignore[assignment]
        for name, tensor in held.items():
            if tensor is not None:
                yield held, name, tensor


def parameter_of(module: nn.Module, name: str) -> Tensor | None:
    """Return the parameter ``name`` of ``module`` itself, if it has one; one that is computed by a parametrisation is none."""
    return module._parameters.get(name)


def tensor_of(module: nn.Module, name: str) -> Tensor | None:
    """Return the parameter or buffer ``name`` of ``module`` itself, if it has one."""
    parameter = module._parameters.get(name)
    return module._buffers.get(name) if parameter is None else parameter


def alias(parameter: nn.Parameter, data: Tensor) -> Tensor:
    """Make a parameter of the same class over the memory of ``data``, which needs no gradient."""
    return torch.Tensor._make_subclass(type(parameter), data, False)
