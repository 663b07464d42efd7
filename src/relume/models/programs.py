"""Networks in a file, ``FILE.pt`` or ``FILE.pt2``: TorchScript archives and exported programs."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.engine.recorded_graphs import training_node
from relume.errors import ModelError
from relume.models.checkpoints import archive_kind
from relume.models.devices import find_device
from relume.models.opened import ASSUMED, Opened
from relume.models.sources import ModelRequest
from relume.pictures.preprocessing import IMAGENET, Preprocessing
from relume.text import first_line

__all__ = ["open_program"]

NO_LAYERS = "layers inside TorchScript cannot be read: ask for gradient, deconvnet or guided_backprop"


class Scripted(nn.Module):
    """A TorchScript network, run operation by operation.

    TorchScript would otherwise fuse operations after some runs, and hide the rectifiers among them.
    """

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        """Hold ``network``."""
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any) -> Any:
        """Run the network."""
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.network(*inputs)


def open_program(request: ModelRequest) -> Opened:
    """Open the network in a file, on the device that the request names.

    Raises:
        ModelError: the file is damaged, was exported in a form that cannot be explained, or came with weights or arguments.
    """
    path = Path(request.spec)
    kind = "TorchScript" if archive_kind(path) == "torchscript" else "an exported program"
    for name, value in (("weights", request.weights), ("arguments", request.args)):
        if value:
            raise ModelError(f"{str(path)!r} is {kind}, a network with its weights, and takes no {name}; leave that out")
    warning = f"{path.name} is {kind}: code, which is run as you gave it; open only files that you trust"
    if kind == "TorchScript":
        return Opened(request.spec, _scripted(path, find_device(request.device)), IMAGENET, notes=(warning, NO_LAYERS, ASSUMED))
    model, preprocessing, note = _exported(path, request.device)
    return Opened(request.spec, model, preprocessing, notes=(warning, note))


def _scripted(path: Path, device: torch.device) -> nn.Module:
    """Load a TorchScript archive."""
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated in favour of torch.export, which is no news for who was given such a file
            warnings.filterwarnings("ignore", r".*torch\.jit")  # a DeprecationWarning, from torch 2.14 on a FutureWarning
            return Scripted(torch.jit.load(path, map_location=device)).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ModelError(f"the TorchScript archive {str(path)!r} cannot be read: {first_line(error)}") from error


def _exported(path: Path, device: str | torch.device) -> tuple[nn.Module, Preprocessing, str]:
    """Load an exported program with the modules it was exported from, so that Grad-CAM finds its layers.

    Returns:
        The network, how it wants its pictures, and that in words.
    """
    try:
        with warnings.catch_warnings():
            # torch before 2.13 warns about every archive, and copies what is in it
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            program = torch.export.load(path)
    except (OSError, RuntimeError, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the exported program {str(path)!r} cannot be read: it is damaged, or was written by another version of torch "
            f"than {torch.__version__}"
        ) from error
    preprocessing, note = _input(path, program)
    if name := training_node(program.graph):
        raise ModelError(f"{str(path)!r} was exported in training mode ({name}); call model.eval() before torch.export.export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns about its own calls
        return torch.export.unflatten(_moved(program, find_device(device), path)), preprocessing, note


def _moved(program: torch.export.ExportedProgram, device: torch.device, path: Path) -> torch.export.ExportedProgram:
    """Move a program to ``device``, with its operations, which name the device that it was exported on.

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
    """Read from the shape that a program was exported for how it wants its pictures, and say that in words.

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
    note = f"it takes {height}×{width} pixels, to which pictures are resized and cropped, with ImageNet's mean and std"
    return Preprocessing(resize=side if height == width else (height, width), crop=crop), note
