"""Networks that are files by themselves: TorchScript archives and exported programs."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.engine.recorded_graphs import training_node
from relume.errors import ModelError
from relume.models.checkpoints import archive_kind
from relume.models.devices import find_device
from relume.models.opened import ASSUMED, Opened
from relume.models.user_files import check_file
from relume.pictures.preprocessing import IMAGENET, Preprocessing
from relume.text import first_line

__all__ = ["open_program"]

NO_LAYERS = "layers inside TorchScript cannot be read: ask for gradient, deconvnet or guided_backprop"


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


def open_program(path: Path, device: str | torch.device, given: Mapping[str, Any]) -> Opened | None:
    """Open the network in ``path`` on ``device``; ``given`` is what only other networks take.

    Returns:
        None if the file is no archive of a network.

    Raises:
        ModelError: the file is missing or damaged, or something was given that it has no use for.
    """
    check_file(path, "file")
    kind = archive_kind(path)
    if kind == "checkpoint":
        if path.suffix == ".pt2":
            raise ModelError(f"{str(path)!r} is no exported program, or is damaged; write it with torch.export.save")
        return None
    what = "TorchScript" if kind == "torchscript" else "an exported program"
    for name, value in given.items():
        if value:
            raise ModelError(f"{str(path)!r} is {what}, a network with its weights, and takes no {name}; leave that out")
    run = f"{path.name} is {what}: code, which is run as you gave it; open only files that you trust"
    if kind == "exported":
        model, preprocessing, said = _exported(path, device)
        return Opened(str(path), model, preprocessing, None, notes=(run, said))
    return Opened(str(path), _scripted(path, find_device(device)), IMAGENET, None, notes=(run, NO_LAYERS, ASSUMED))


def _scripted(path: Path, device: torch.device) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated in favour of torch.export; who has such a file knows or need not
            warnings.filterwarnings("ignore", r".*torch\.jit")  # a DeprecationWarning, from torch 2.14 on a FutureWarning
            return Scripted(torch.jit.load(path, map_location=device)).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ModelError(f"the TorchScript archive {str(path)!r} cannot be read: {first_line(error)}") from error


def _exported(path: Path, device: str | torch.device) -> tuple[nn.Module, Preprocessing, str]:
    """The network with the modules it was exported from, so that Grad-CAM finds its layers, and how it wants pictures."""
    try:
        with warnings.catch_warnings():
            # torch before 2.13 says so of every archive, and copies what is in it
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            program = torch.export.load(path)
    except (OSError, RuntimeError, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the exported program {str(path)!r} cannot be read: it is damaged, or was written by another version of torch "
            f"than {torch.__version__}"
        ) from error
    preprocessing, said = _input(path, program)
    if name := training_node(program.graph):
        raise ModelError(f"{str(path)!r} was exported in training mode ({name}); call model.eval() before torch.export.export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about its own way of calling itself
        return torch.export.unflatten(_moved(program, find_device(device), path)), preprocessing, said


def _moved(program: torch.export.ExportedProgram, device: torch.device, path: Path) -> torch.export.ExportedProgram:
    """Move a program to ``device``: not its weights alone, since its operations name the device that it was exported on.

    Raises:
        ModelError: this torch cannot do it.
    """
    if {tensor.device for tensor in (*program.state_dict.values(), *program.tensor_constants.values())} <= {device}:
        return program
    try:
        from torch.export.passes import move_to_device_pass

        return move_to_device_pass(program, device)
    except (ImportError, RuntimeError) as error:
        raise ModelError(
            f"the program {str(path)!r} cannot be moved to {device}: {first_line(error)}; export it there, or give its device"
        ) from error


def _input(path: Path, program: torch.export.ExportedProgram) -> tuple[Preprocessing, str]:
    """How the network wants its pictures, as far as the shape that it was exported for tells.

    Raises:
        ModelError: it takes something else than one picture.
    """
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shapes = [tuple(node.meta["val"].shape) for node in inputs]
    batch, channels, height, width = shapes[0] if len(shapes) == 1 and len(shapes[0]) == 4 else (0, 0, 0, 0)
    # a size that was left open is no int
    if (isinstance(batch, int) and batch != 1) or channels != 3:
        raise ModelError(
            f"{str(path)!r} was exported for inputs of shape {', '.join(map(str, shapes))}; relume gives one picture, "
            "(1, 3, height, width)"
        )
    if not isinstance(height, int) or not isinstance(width, int) or (height, width) == (224, 224):
        return IMAGENET, ASSUMED
    side = min(height, width)
    crop = height if height == width else (height, width)
    said = f"it takes {height}×{width} pixels, to which pictures are resized and cropped, with ImageNet's mean and std"
    return Preprocessing(resize=side if height == width else (height, width), crop=crop), said
