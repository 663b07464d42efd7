"""Mosaics of photographs that a network is sure of: how they are put together, and mosaics as samples.

Böhle et al. 2021, arXiv:2104.00032; Rao, Böhle & Schiele 2022, arXiv:2205.10435.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from relume.demo.scenes import CLASSES, draw_scene
from relume.engine.reading import Reading
from relume.engine.trace import Trace
from relume.errors import ImageError, InputError, RelumeError, TargetError
from relume.evaluation.samples import Loader, Sample
from relume.measures.localisation import cell_bounds, cell_masks
from relume.models.photos import find_photos, in_batches
from relume.targets.activation import activated, how_to_name, resolve_activation
from relume.targets.outputs import class_scores

if TYPE_CHECKING:
    from relume.models.opened import Opened

__all__ = [
    "CONFIDENCE",
    "LEAST",
    "Mosaic",
    "Prediction",
    "Wall",
    "arranged",
    "assembled",
    "mosaics",
    "pairs",
    "photographs",
]

#: The least probability of a photograph's predicted class.
CONFIDENCE = 0.9

#: Fewer mosaics than these are refused.
LEAST = 4

#: How often photographs are arranged anew, since a random choice may leave some over that fit no others.
ATTEMPTS = 20

#: The number of photographs that go through the network at once.
BATCH = 8

Progress: TypeAlias = Callable[[str, int, int], object]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one photograph.

    Attributes:
        photo: its number among the photographs.
        index: the predicted class.
        probability: how sure the network is.
        others: the other classes that the network does not rule out, if a photograph may show several.
    """

    photo: int
    index: int
    probability: float
    others: frozenset[int] = frozenset()

    def fits(self, others: Iterable[Prediction]) -> bool:
        """Tell whether it can stand in a mosaic beside ``others``: no photograph shows the class of another."""
        return all(self.index not in {o.index, *o.others} and o.index not in self.others for o in others)


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The photographs of a mosaic, row by row, and the class that is predicted for each.

    Example:
        >>> from relume.evaluation import Mosaic
        >>> Mosaic(photos=(7, 2, 5, 0), classes=(243, 19, 319, 985)).classes[0]
        243
    """

    photos: tuple[int, ...]
    classes: tuple[int, ...]


def photographs(photos: Any) -> Sequence[Any]:
    """List photographs: of a folder, of paths and folders, pictures as they are, or ``scenes:NUMBER``, drawn scenes of a thing.

    Raises:
        InputError: there is none.
    """
    if _are_scenes(photos):
        count = int(photos.partition(":")[2])
        return [draw_scene(seed, [CLASSES[seed % len(CLASSES)]]).picture for seed in range(count)]
    several = [photos] if isinstance(photos, str | Path) else [*photos]
    listed = [find_photos([one]) if isinstance(one, str | Path) else [one] for one in several]
    pictures = [picture for some in listed for picture in some]
    if not pictures:
        raise InputError("there are no photographs to build mosaics of; give a folder of them")
    return pictures


def _are_scenes(photos: Any) -> bool:
    return isinstance(photos, str) and re.fullmatch(r"scenes:\d+", photos) is not None


@dataclass(slots=True)
class Wall:
    """The photographs that mosaics are built of, as the network sees them, with its predictions.

    Attributes:
        opened: the network.
        photos: the photographs.
        confidence: the least probability.
        predictions: those of the photographs that the network is sure of.
        failed: why photographs could not be used, one sentence each.
        several: True if a photograph may show several classes.
        are_scenes: True if the photographs are drawn scenes.
        classes: how many classes the network has; 0 before it predicted any.

    Example:
        >>> import relume
        >>> from relume.evaluation import Wall
        >>> wall = Wall.of(relume.open_model("demo", "cpu"), "scenes:3")
        >>> [(p.photo, p.index) for p in wall.predictions]
        [(0, 0), (1, 1), (2, 2)]
    """

    opened: Opened
    photos: Sequence[Any]
    confidence: float
    predictions: list[Prediction] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    several: bool = False
    are_scenes: bool = False
    classes: int = 0
    _size: tuple[int, ...] | None = None

    @classmethod
    def of(cls, opened: Opened, photos: Any, confidence: float = CONFIDENCE, progress: Progress | None = None) -> Wall:
        """Predict the class of every photograph, each alone in its picture.

        Raises:
            InputError: nothing tells what the network's scores are, so there is no probability; the network gives no class
                scores for the whole picture; or inputs have different sizes, or are no pictures.
        """
        wall = cls(opened, photographs(photos), confidence, are_scenes=_are_scenes(photos))
        results = in_batches(range(len(wall.photos)), BATCH, lambda i: (i, wall.image(i)), wall._predict)
        for i, prediction in results:
            if isinstance(prediction, InputError) and not isinstance(prediction, ImageError):
                raise prediction
            if isinstance(prediction, RelumeError):
                wall.failed.append(str(prediction))
            elif isinstance(prediction, Exception):
                raise prediction
            elif prediction.probability >= confidence:
                wall.predictions.append(prediction)
            if progress is not None:
                progress("predicting", i + 1, len(wall.photos))
        return wall

    @property
    def unused(self) -> str:
        """The photographs that could not be used, in words: their number and a reason; empty if there are none."""
        count = len(self.failed)
        return f"{count} photograph{'s' * (count > 1)} could not be used, such as: {self.failed[0]}" if count else ""

    def image(self, i: int) -> Tensor:
        """Return the network's input of a photograph, ``(C, H, W)``.

        Raises:
            ImageError: it cannot be read.
            InputError: it is no picture, or has another size than the others.
        """
        image = self.opened.input_of(self.photos[i])[1]
        if image.ndim != 3:
            raise InputError(f"mosaics are of pictures, and photograph {i} has {image.ndim - 1} spatial axes")
        self._size = self._size or tuple(image.shape)
        if tuple(image.shape) != self._size:
            sizes = " and ".join(f"{w}×{h}" for _, h, w in (self._size, tuple(image.shape)))
            raise InputError(f"photographs of a mosaic have one size as the network sees them, not {sizes}; give a crop")
        return image

    def _predict(self, batch: Sequence[tuple[int, Tensor]]) -> list[Prediction]:
        """Predict the classes of photographs that run together."""
        images = torch.stack([image for _, image in batch]).to(self.opened.device)
        outputs = Trace.run(self.opened.model, images, Reading(output=self.opened.output)).outputs
        try:
            scores = class_scores(outputs, len(images))
        except TargetError as error:
            raise InputError(
                f"a calibration needs a network that gives a score for each class of the whole picture: {error}; detectors and "
                "segmentations are measured with boxes and masks: relume evaluate"
            ) from error
        self.classes = scores.shape[1]
        if self.classes < 2:
            raise InputError("a mosaic shows photographs of several classes, and this network has one: no calibration")
        activation, are_probabilities = resolve_activation(self.opened.activation, scores)
        if activation == "none" and not are_probabilities:
            raise InputError(
                "a calibration takes photographs that the network is sure of, and nothing tells what its scores are: "
                + how_to_name("activation='{}'", self.classes)
            )
        probabilities = activated(scores.detach().float(), activation).cpu()
        self.several = activation == "sigmoid" or not bool(torch.allclose(probabilities.sum(1), torch.ones(()), atol=1e-2))
        best = probabilities.max(1)
        return [
            Prediction(number, int(index), float(p), self._not_ruled_out(each, int(index)))
            for (number, _), each, p, index in zip(batch, probabilities, best.values, best.indices, strict=True)
        ]

    def _not_ruled_out(self, probabilities: Tensor, index: int) -> frozenset[int]:
        """Return the other classes that a photograph may show, where it may show several."""
        possible = (probabilities >= 1 - self.confidence).nonzero().flatten().tolist() if self.several else []
        return frozenset(possible) - {index}


def arranged(predictions: Sequence[Prediction], cells: int, count: int, rng: np.random.Generator) -> list[Mosaic]:
    """Arrange up to ``count`` mosaics of ``cells`` different classes, each photograph in one of them at most.

    Classes with the most photographs left come first, so that there are as many mosaics as can be; which photographs and which
    cells is random.

    Example:
        >>> import numpy as np
        >>> from relume.evaluation.mosaics import Prediction, arranged
        >>> sure = [Prediction(photo, photo % 4, 0.95) for photo in range(9)]
        >>> [sorted(mosaic.classes) for mosaic in arranged(sure, 4, 25, np.random.default_rng(0))]
        [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    best: list[Mosaic] = []
    for _ in range(ATTEMPTS):
        mosaics = _arranged(predictions, cells, count, rng)
        best = max(best, mosaics, key=len)
        if len(best) == min(count, len(predictions) // cells):
            break
    return best


def _arranged(predictions: Sequence[Prediction], cells: int, count: int, rng: np.random.Generator) -> list[Mosaic]:
    """Arrange mosaics one after the other, until no further one can be."""
    left: defaultdict[int, list[Prediction]] = defaultdict(list)
    for i in rng.permutation(len(predictions)):
        left[predictions[i].index].append(predictions[i])
    mosaics: list[Mosaic] = []
    while len(mosaics) < count:
        chosen: list[Prediction] = []
        for index in sorted(left, key=lambda index: (-len(left[index]), rng.random())):
            fitting = next((p for p in left[index] if p.fits(chosen)), None)
            if fitting is not None and len(chosen) < cells:
                chosen.append(fitting)
        if len(chosen) < cells:
            break
        for prediction in chosen:
            left[prediction.index].remove(prediction)
        mosaics.append(_placed(chosen, rng))
    return mosaics


def _placed(chosen: Sequence[Prediction], rng: np.random.Generator) -> Mosaic:
    """Put photographs into cells at random."""
    placed = [chosen[i] for i in rng.permutation(len(chosen))]
    return Mosaic(tuple(p.photo for p in placed), tuple(p.index for p in placed))


def pairs(predictions: Sequence[Prediction], count: int, rng: np.random.Generator) -> list[Mosaic]:
    """Arrange up to ``count`` mosaics of two photographs of a class and two of others; the class is that of most cells.

    Arias-Duart et al. 2022, arXiv:2109.15035. A photograph is in one of them at most.
    """
    left = [predictions[i] for i in rng.permutation(len(predictions))]
    mosaics: list[Mosaic] = []
    while len(mosaics) < count:
        chosen = next((four for p in left if (four := _pair(p, left))), None)
        if chosen is None:
            break
        left = [p for p in left if p not in chosen]
        mosaics.append(_placed(chosen, rng))
    return mosaics


def _pair(first: Prediction, left: Sequence[Prediction]) -> list[Prediction]:
    """Find a second photograph of a class, and two that show neither it nor each other's; nothing if there are none."""
    second = next((p for p in left if p.index == first.index and p is not first), None)
    if second is None:
        return []
    chosen = [first, second]
    for p in left:
        if len(chosen) < 4 and p.fits(chosen):
            chosen.append(p)
    return chosen if len(chosen) == 4 else []


def assembled(images: Sequence[Tensor], grid: int, *, large: bool) -> Tensor:
    """Put ``grid²`` images ``(C, H, W)`` together, row by row: as they are if ``large``, else each shrunk to its cell.

    Example:
        >>> import torch
        >>> from relume.evaluation import assembled
        >>> [tuple(assembled([torch.zeros(3, 8, 8)] * 4, 2, large=large).shape) for large in (True, False)]
        [(3, 16, 16), (3, 8, 8)]
    """
    if not large:
        heights, widths = (np.diff(cell_bounds(side, grid)).tolist() for side in images[0].shape[1:])
        sizes = itertools.product(heights, widths)
        images = [
            F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
            for image, size in zip(images, sizes, strict=True)
        ]
    rows = [torch.cat([*images[i : i + grid]], 2) for i in range(0, grid**2, grid)]
    return torch.cat(rows, 1)


def takes_large(opened: Opened, image: Tensor, grid: int) -> bool:
    """Tell whether a network takes a mosaic of ``grid × grid`` whole images, and gives as many scores as for one."""
    shapes = []
    for one in (image, image.repeat(1, grid, grid)):
        try:
            outputs = Trace.run(opened.model, one[None].to(opened.device), Reading(output=opened.output)).outputs
            shapes.append(class_scores(outputs, 1).shape)
        except Exception:  # noqa: BLE001 - a network fails in its own ways on a size that it does not take
            return False
    return shapes[0] == shapes[1]


def enough(wall: Wall, arrangement: Sequence[Mosaic], cells: int) -> None:
    """Refuse fewer than :data:`LEAST` mosaics."""
    if len(arrangement) >= LEAST:
        return
    if 0 < wall.classes < cells:
        raise InputError(f"a mosaic shows {cells} different classes, and this network has {wall.classes}: no calibration")
    classes = len({p.index for p in wall.predictions})
    unused = f"; {wall.unused}" if wall.failed else ""
    if wall.several:
        unused += "; a photograph stands beside another only if the network rules the other's class out for it"
    raise InputError(
        f"at least {LEAST} mosaics of {cells} different classes are needed, and these photographs make {len(arrangement)}: "
        f"{len(wall.predictions)} of {len(wall.photos)} are predicted with a probability of {wall.confidence:g} or more, as "
        f"{classes} classes{unused}; give more photographs, of more classes, or a lower confidence"
    )


def mosaics(folder: str, opened: Opened, seed: int = 0) -> list[Loader]:
    """Build mosaics of 2 × 2 photographs in ``folder``, as many as can be, whose truth is the cell of each class.

    Raises:
        InputError: fewer than :data:`LEAST` can be built; or as :meth:`Wall.of`.
    """
    if not folder.startswith("scenes:") and not Path(folder).exists():
        raise InputError(f"there is no folder {folder!r} to build mosaics of; write mosaics:FOLDER")
    wall = Wall.of(opened, folder)
    arrangement = arranged(wall.predictions, 4, len(wall.photos), np.random.default_rng(seed))
    enough(wall, arrangement, 4)
    large = takes_large(opened, wall.image(arrangement[0].photos[0]), 2)
    return [functools.partial(_sample, wall, mosaic, f"mosaic {i}", large=large) for i, mosaic in enumerate(arrangement)]


def _sample(wall: Wall, mosaic: Mosaic, name: str, *, large: bool) -> Sample:
    image = assembled([wall.image(i) for i in mosaic.photos], 2, large=large)
    return Sample(name, image, dict(zip(mosaic.classes, cell_masks(image.shape[1:], 2), strict=True)))
