"""Networks that are files by themselves: TorchScript archives and exported programs."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.errors import ModelError
from relume.image import IMAGENET
from relume.models import ASSUMED, Opened
from relume.models.weights import archive_kind

__all__ = ["open_program"]

TRUST = "is code, and was executed as you gave it: open only files that you trust"

#: Where the operations of an exported program say that they run as in training: the position of the argument.
TRAINING = {"aten.batch_norm.default": 5, "aten.dropout.default": 2, "aten.feature_dropout.default": 2}


class Scripted(nn.Module):
    """A TorchScript network, run operation by operation.

    TorchScript would otherwise fuse operations after some runs, and hide the rectifiers among them.
    """

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        """Around ``network``."""
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any) -> Any:
        """What the network returns."""
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.network(*inputs)


def open_program(path: Path, given: Mapping[str, Any]) -> Opened | None:
    """The network in ``path``, or None if it is no archive of a network; ``given`` is what only other networks take.

    Raises:
        ModelError: the file is missing or damaged, or something was given that it has no use for.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {str(path)!r}; check the path")
    kind = archive_kind(path)
    if kind == "checkpoint":
        if path.suffix == ".pt2":
            raise ModelError(f"{str(path)!r} is no exported program, or is damaged; write it with torch.export.save")
        return None
    what = "TorchScript" if kind == "torchscript" else "an exported program"
    for name, value in given.items():
        if value:
            raise ModelError(f"{str(path)!r} is {what}, a network with its weights, and takes no {name}; leave that out")
    model = _scripted(path) if kind == "torchscript" else _exported(path)
    return Opened(str(path), model, IMAGENET, None, notes=(f"{path.name} is {what}: it {TRUST}", ASSUMED))


def _scripted(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated in favour of torch.export; who has such a file knows or need not
            warnings.simplefilter("ignore", DeprecationWarning)
            return Scripted(torch.jit.load(path, map_location="cpu")).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ModelError(f"the TorchScript archive {str(path)!r} cannot be read: {_first_line(error)}") from error


def _exported(path: Path) -> nn.Module:
    try:
        program = torch.export.load(path)
    except (OSError, RuntimeError, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the exported program {str(path)!r} cannot be read: it is damaged, or was written by another version of torch "
            f"than {torch.__version__}"
        ) from error
    for node in program.graph.nodes:
        position = TRAINING.get(str(node.target))
        if position is not None and node.args[position]:
            raise ModelError(
                f"{str(path)!r} was exported in training mode ({node.name}); call model.eval() before torch.export.export"
            )
    return program.module()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
