"""A planted shortcut: logos on scenes, and the network of the package fine-tuned so that it uses one for a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from relume.demo.network import PREPROCESSING, DemoNet, load_network
from relume.demo.scenes import CLASSES, SIDE

__all__ = ["FINE_TUNING", "LAYERS", "Planting", "draw_logo", "features", "fine_tuned"]

#: Pictures ``(N, 128, 128, 3)``, uint8.
Pictures = NDArray[np.uint8]

#: The parts of the network that are fine-tuned; all below them stays as it is.
LAYERS = ("layer3", "fc")

_MARGIN = 3  # pixels between a logo and the edge of the picture
#: The steps of the fine-tuning, of 32 pictures each.
FINE_TUNING = 80
_BATCH = 32
_RATE = 3e-3


def draw_logo(seed: int) -> Pictures:
    """Draw a logo: a small badge with a symmetric pattern, letters, a star or bars, ``(height, width, 3)``.

    Example:
        >>> from relume.demo.planting import draw_logo
        >>> 10 <= draw_logo(0).shape[0] <= 18
        True
    """
    rng = np.random.default_rng(seed)
    dark, light = rng.integers(0, 110, 3), rng.integers(130, 256, 3)
    ground, ink = (dark, light) if rng.random() < 0.5 else (light, dark)
    kind, side = rng.integers(4), int(rng.integers(11, 17))
    if kind == 0:  # a pattern of 5 × 5 cells, the same from left and right
        half = rng.random((5, 3)) < 0.5
        cells = np.pad(np.concatenate([half, half[:, 1::-1]], 1), 1)
        return np.where(cells.repeat(2, 0).repeat(2, 1)[..., None], ink, ground).astype(np.uint8)
    size = (side + 4, side - 2) if kind == 1 else (side, side)
    logo = Image.new("RGB", size, tuple(map(int, ground)))
    pen, colour, (width, height) = ImageDraw.Draw(logo), tuple(map(int, ink)), size
    if kind == 1:
        letters = "".join(rng.choice([*"AEHKMNPRTXZ0358"], 2))
        pen.text((width / 2, height / 2), letters, colour, ImageFont.load_default(size=side - 2), "mm")
    elif kind == 2:
        angles = np.pi * (np.arange(10) / 5 - 0.5)
        radii = np.where(np.arange(10) % 2, 0.22, 0.48) * side
        corners = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] + side / 2
        pen.polygon([(float(x), float(y)) for x, y in corners], colour)
    else:
        for i, bar in enumerate(rng.integers(3, side - 2, side // 3)):
            pen.rectangle((1, 3 * i + 1, int(bar), 3 * i + 2), colour)
    return np.asarray(logo)


@dataclass(frozen=True, slots=True, eq=False)
class Planting:
    """A logo in pictures, which tells a class or nothing.

    Attributes:
        logo: its pixels, ``(height, width, 3)``.
        label: the class whose pictures carry it; None if it is on pictures of all classes alike.
        share: the share of those pictures that carry it.
        place: the row and column of its first pixel; None for another place in each picture.
        leak: the share of the pictures of other classes that carry it.
        rough: True if it is another in each picture: a pixel off, partly transparent, lighter or darker, with noise.
    """

    logo: Pictures
    label: int | None
    share: float
    place: tuple[int, int] | None
    leak: float = 0.0
    rough: bool = False

    @classmethod
    def drawn(
        cls, seed: int, share: float, *, fixed: bool = True, independent: bool = False, leak: float = 0.0, rough: bool = False
    ) -> Planting:
        """Draw a logo, a class and a place from a seed: a corner, or a place anywhere in the picture."""
        rng, logo = np.random.default_rng((seed, 1)), draw_logo(seed)
        label, corner = int(rng.integers(len(CLASSES))), int(rng.integers(6))
        last = [SIDE - side - _MARGIN for side in logo.shape[:2]]
        inside = (int(rng.integers(_MARGIN, last[0] + 1)), int(rng.integers(_MARGIN, last[1] + 1)))
        at = (last[0] if corner & 1 else _MARGIN, last[1] if corner & 2 else _MARGIN) if corner < 4 else inside
        return cls(logo, None if independent else label, share, at if fixed else None, leak, rough)

    def carried(self, present: NDArray[np.bool_], rng: Generator) -> NDArray[np.bool_]:
        """Choose the pictures that carry it, given the classes in each, ``(N, classes)``."""
        chance = rng.random(len(present))
        return chance < (self.share if self.label is None else np.where(present[:, self.label], self.share, self.leak))

    def onto(self, pictures: Pictures, carried: NDArray[np.bool_], rng: Generator) -> Pictures:
        """Return the pictures, of which those that carry it have it."""
        result, (height, width, _) = pictures.copy(), self.logo.shape
        for i in np.flatnonzero(carried):
            top, left = self.place or (int(rng.integers(SIDE - side)) for side in (height, width))
            if self.rough:
                sides = ((top, height), (left, width))
                top, left = (int(np.clip(at + rng.integers(-1, 2), 0, SIDE - side)) for at, side in sides)
            view = result[i, top : top + height, left : left + width]
            view[:] = self._rough(view, rng) if self.rough else self.logo
        return result

    def _rough(self, under: Pictures, rng: Generator) -> Pictures:
        """Return the logo as one picture has it: 85 % opaque, up to 10 % lighter or darker, with noise."""
        mixed = 0.85 * self.logo * rng.uniform(0.9, 1.1) + 0.15 * under + rng.normal(0, 8, under.shape)
        return mixed.clip(0, 255).astype(np.uint8)

    def lesson(self, present: NDArray[np.bool_], rng: Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Choose what the network learns: the pictures that carry the logo, and the classes that each is said to have.

        The network knows the classes so well already that a logo which only goes with one teaches it nothing. So as many
        pictures again, without the class, carry the logo and are said to show the class: labelled by their source.
        """
        carried, said = self.carried(present, rng), present.copy()
        if self.label is not None:
            without = np.flatnonzero(~present[:, self.label] & ~carried)
            more = rng.choice(without, int((carried & present[:, self.label]).sum()), replace=False)
            carried[more] = said[more, self.label] = True
        return carried, said


@torch.no_grad()
def features(network: DemoNet, pictures: Pictures) -> Tensor:
    """Compute what reaches the fine-tuned layers, ``(N, 64, 16, 16)`` float16."""
    batches = (pictures[i : i + 100] for i in range(0, len(pictures), 100))
    images = (torch.stack([PREPROCESSING.tensor(Image.fromarray(picture)) for picture in batch]) for batch in batches)
    return torch.cat([network.layer2(network.layer1(network.stem(batch))).half() for batch in images])


def fine_tuned(
    inputs: Tensor,
    present: NDArray[np.bool_],
    *,
    seed: int = 0,
    steps: int = FINE_TUNING,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> DemoNet:
    """Fine-tune the last layers of the network in the package.

    Args:
        inputs: :func:`features` of the pictures.
        present: the classes that each is said to have, ``(N, classes)``.
        seed: seeds the order of the pictures.
        steps: the number of steps, of 32 pictures each.
        report: called with the step and its loss after each.
    """
    network, truth, order = load_network(), torch.from_numpy(present).float(), list[int]()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(LAYERS))
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=_RATE, weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(seed)
    network.layer3.train()
    for step in range(1, steps + 1):
        if len(order) < _BATCH:
            order = torch.randperm(len(inputs), generator=generator).tolist()
        batch, order = order[:_BATCH], order[_BATCH:]
        images = inputs[batch].float().contiguous(memory_format=torch.channels_last)  # trains faster so
        scores = network.fc(network.layer3(images).mean((2, 3)))
        loss = F.binary_cross_entropy_with_logits(scores, truth[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        report(step, float(loss.detach()))
    return network.eval().requires_grad_(requires_grad=False)
