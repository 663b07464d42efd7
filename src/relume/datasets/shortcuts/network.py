"""The network of a run, as the search asks it: probabilities of pictures, and activations one stage before the target layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from relume.datasets.shortcuts.suspects import Picture
from relume.engine.reading import Reading
from relume.engine.trace import Trace
from relume.errors import InputError
from relume.models.opened import Opened
from relume.targets.activation import activated, resolve_activation
from relume.targets.outputs import class_scores

__all__ = ["Network", "stage_before"]

#: Several pictures, in a list or along the first axis.
Pictures: TypeAlias = Sequence[Picture] | Picture

#: Pictures that run at once.
_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """An opened network that is asked with pictures.

    Attributes:
        opened: the network.
        size: height and width of its input.
        layer: the layer whose activations are read; None for none.
    """

    opened: Opened
    size: tuple[int, int]
    layer: str | None = None

    def input_of(self, picture: Picture) -> Tensor:
        """Return the network's input of a picture, ``(C, height, width)``; a smaller picture is enlarged."""
        view, (height, width) = Image.fromarray(picture), self.size
        view = view if view.size == (width, height) else view.resize((width, height), Image.Resampling.BICUBIC)
        return self.opened.preprocessing.tensor(view).to(self.opened.dtype or torch.float32)

    def trace(self, pictures: Pictures, layers: Sequence[str] = ()) -> Trace:
        """Run the network once."""
        images = torch.stack([self.input_of(picture) for picture in pictures]).to(self.opened.device)
        return Trace.run(self.opened.model, images, Reading(output=self.opened.output, layers=layers))

    def probabilities(self, pictures: Pictures) -> NDArray[np.float32]:
        """Compute the probability of each class in each picture, ``(N, classes)``."""
        batches = (pictures[i : i + _BATCH] for i in range(0, len(pictures), _BATCH))
        return np.concatenate([_probabilities(self.trace(batch), self.opened)[0] for batch in batches])

    def look(self, pictures: Pictures) -> tuple[NDArray[np.float32], bool, Tensor | None]:
        """Ask for a batch of pictures.

        Returns:
            The probabilities; True if one class excludes the others; and the activations ``(N, channels, rows, columns)``.

        Raises:
            InputError: the network's scores are no probabilities.
        """
        trace = self.trace(pictures, () if self.layer is None else (self.layer,))
        activations = [layer.map(layer.output.detach()).float().cpu() for layer in trace.layers]
        return *_probabilities(trace, self.opened), activations[0] if activations else None


def _probabilities(trace: Trace, opened: Opened) -> tuple[NDArray[np.float32], bool]:
    """Return the probabilities of all classes, and True if they add up to one."""
    scores = class_scores(trace.outputs, len(trace.images))
    activation, are_probabilities = resolve_activation(opened.activation, scores)
    if activation == "none" and not are_probabilities:
        raise InputError(
            "the network's scores are no probabilities as far as is known; run it with activation='softmax' or 'sigmoid'"
        )
    values = activated(scores.detach().float(), activation).cpu().numpy()
    return values, activation == "softmax" or bool(np.allclose(values.sum(1), 1, atol=1e-3))


def stage_before(network: Network, picture: Picture, layer: str) -> str:
    """Choose the layer one stage before another: what it returns differs more from picture to picture of one class.

    On each level of its name, from the outermost, the layers beside it that ran before are tried, the nearest first: the first
    that has more places or fewer channels is it. Where all have the same form, as in a transformer, it is the one in the middle
    of those that ran before. The layer itself where none did.
    """
    trace = network.trace([picture], [layer])
    (own,) = (layer_.map(layer_.output) for layer_ in trace.layers)
    names = trace.candidates[trace.candidates.index(layer) + 1 :] if layer in trace.candidates else ()
    path = layer.split(".")
    levels = [".".join(path[:depth]) for depth in range(len(path))]
    beside = [[name for name in names if name.rpartition(".")[0] == level] for level in levels]
    wanted = [name for level in beside for name in level]
    if not wanted:
        return layer
    maps = {kept.name: kept.map(kept.output) for kept in network.trace([picture], wanted).layers}
    for name in wanted:
        if maps[name].shape[1] < own.shape[1] or maps[name][0, 0].numel() > own[0, 0].numel():
            return name
    longest = max(beside, key=len)
    return longest[len(longest) // 2]
