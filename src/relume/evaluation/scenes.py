"""Drawn scenes as samples: ``scenes`` or ``scenes:NUMBER``."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relume.demo.scenes import CLASSES, Scene, draw_scene
from relume.demo.truth import TRAINING_SEEDS
from relume.errors import InputError
from relume.evaluation.samples import Loader, Sample, sample_of

if TYPE_CHECKING:
    from relume.models.opened import Opened

__all__ = ["scenes"]

#: How many scenes there are if no number is given.
COUNT = 500

#: The distance between the scenes of two seeds.
SPREAD = 1_000_000


@dataclass(frozen=True, slots=True)
class _Scenes:
    """The first ``count`` held-out scenes of at least two classes, from ``seed`` million on, as functions."""

    count: int
    seed: int
    opened: Opened

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Loader]:
        drawn = (draw_scene(number) for number in itertools.count(self.seed * SPREAD))
        fitting = itertools.islice((scene for scene in drawn if len(scene.classes) > 1), self.count)
        return (functools.partial(_sample, scene, self.opened) for scene in fitting)


def _sample(scene: Scene, opened: Opened) -> Sample:
    assert opened.labels is not None, "checked before"
    masks = [(opened.labels.index(thing.name), thing.mask) for thing in scene.things]
    return sample_of(f"scene {scene.seed}", scene.picture, masks, opened)


def scenes(count: str, opened: Opened, seed: int = 0) -> _Scenes:
    """Draw ``count`` held-out scenes of at least two classes, from ``seed`` million on; :data:`COUNT` if it is empty.

    Raises:
        InputError: the network does not know the classes of the scenes, ``count`` is no number of scenes, or the seed leads
            into those that the demo network was trained on.
    """
    unknown = set(CLASSES) - set(opened.labels or ())
    if unknown:
        raise InputError(
            f"{opened.name} does not know what is in the scenes ({', '.join(sorted(unknown)[:3])}, …); "
            "give a folder of photos with masks"
        )
    if not 0 <= seed < TRAINING_SEEDS // SPREAD:
        raise InputError(f"a seed of scenes is a number from 0 to {TRAINING_SEEDS // SPREAD - 1}; got {seed}")
    if count and not (count.isdecimal() and int(count)):
        raise InputError(f"write scenes:NUMBER, such as scenes:100; got 'scenes:{count}'")
    return _Scenes(int(count or COUNT), seed, opened)
