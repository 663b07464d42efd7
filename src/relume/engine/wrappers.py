"""The modules of a network, without those of torch that only wrap it, which are told by their exact type.

``torch.compile`` wraps a module in one of a private class, whose name for what is inside, ``_orig_mod``, is read here (torch
2.13); ``tests/engine/test_torch_names.py`` says when it changes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from torch import nn

from relume.engine.module_state import children_of

__all__ = ["PARALLEL", "Merged", "inside", "modules_of", "named_places", "unwrap", "without_wrappers"]

#: What a whole network may be wrapped in to run on several devices.
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


class Merged:
    """The mark of relume's own modules that have no output of their own: what they compute comes out of a later module."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``, which share its weights.

    Subclasses of these, and classes that merely look like them, are networks of their own.
    """
    while (inner := children_of(model).get("module") if type(model) in PARALLEL else inside(model)) is not None:
        model = inner
    return model


def inside(module: nn.Module) -> nn.Module | None:
    """Return the module that torch.compile wrapped in ``module``; None if ``module`` is no such wrapper."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # slow to import, and not there before its first use
    if dynamo is not None and type(module) is dynamo.OptimizedModule:
        return children_of(module)["_orig_mod"]
    return None


def without_wrappers(name: str) -> str:
    """Give the name of a layer without what torch.compile adds to it."""
    return name.removeprefix("_orig_mod.").replace("._orig_mod", "")


def modules_of(model: nn.Module) -> dict[nn.Module, str]:
    """Name ``model`` and every module registered in it, each once: as ``named_modules``, in a tenth of the time.

    What is compiled has the name of its wrapper, as in a replica.
    """
    names: dict[nn.Module, str] = {}
    stack: list[tuple[nn.Module | None, str]] = [(model, "")]
    while stack:
        module, name = stack.pop()
        if module is not None and module not in names:
            names[module] = name
            stack.extend(_children(module, name)[::-1])
    return names


def _children(module: nn.Module, name: str) -> list[tuple[nn.Module | None, str]]:
    if "_orig_mod" in children_of(module) and (inner := inside(module)) is not None:
        return [(inner, name)]
    prefix = f"{name}." if name else ""
    return [(child, prefix + key) for key, child in children_of(module).items()]


def named_places(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """List every module under every name that it has, named as in :func:`modules_of`."""
    yield name, model
    for child, child_name in _children(model, name):
        if child is not None:
            yield from named_places(child, child_name)
