"""Signals with ground truth: wave forms planted in noise, drift, steps and clicks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import signal

from relume.demo.truth import Array, RecordedScene, draw_recorded

__all__ = ["SIGNAL_CLASSES", "draw_signal"]

LENGTH = 512


def _chirp(time: Array, cycles: float) -> Array:
    """Begin slow and end fast."""
    return np.sin(np.pi * cycles * (time + 0.35 * time**2))


def _ripple(time: Array, cycles: float) -> Array:
    return np.sin(np.pi * cycles * time)


def _saw(time: Array, cycles: float) -> Array:
    teeth: Array = signal.sawtooth(np.pi * cycles * time)
    return teeth


#: The wave forms, of time in [-1, 1], about a number of cycles long.
WAVES: Mapping[str, Callable[[Array, float], Array]] = MappingProxyType({"chirp": _chirp, "ripple": _ripple, "saw": _saw})
SIGNAL_CLASSES: tuple[str, ...] = tuple(WAVES)


def draw_signal(seed: int, names: Sequence[str] | None = None) -> RecordedScene:
    """Draw the signal of a seed, ``(1, 512)``: always the same for the same arguments.

    A chirp, whose cycles become shorter, a steady ripple and a saw, which rises slowly and falls at once, are planted in noise.
    Drift, steps and clicks belong to no class.

    Args:
        seed: any number not below zero.
        names: the classes of its wave forms; one to three different ones if None.

    Raises:
        InputError: a negative seed, an unknown class, or not one to three wave forms.

    Example:
        >>> from relume.demo import SIGNAL_CLASSES, draw_signal
        >>> SIGNAL_CLASSES
        ('chirp', 'ripple', 'saw')
        >>> scene = draw_signal(7, ["saw"])
        >>> scene.values.shape, scene.things[0].mask.shape, len(scene.things[0].box)
        ((1, 512), (512,), 2)
    """
    return draw_recorded(seed, names, SIGNAL_CLASSES, _background, (32, 56), _thing)


def _thing(name: str, centre: Array, size: float, rng: Generator) -> tuple[Array, NDArray[np.bool_]]:
    time = (np.arange(LENGTH) + 0.5 - centre) / size
    mask = np.abs(time) <= 1
    wave = WAVES[name](time, rng.uniform(4, 7)) * np.where(mask, 1 - time**2, 0) ** 0.5
    return rng.uniform(0.8, 1.6) * wave, mask


def _background(rng: Generator) -> Array:
    """Draw drift, steps and clicks, and grain over them."""
    time = np.arange(LENGTH)
    values = rng.uniform(0, 0.8) * np.sin(2 * np.pi * (rng.uniform(0.3, 2) * time / LENGTH + rng.random()))
    for start in rng.uniform(0, LENGTH, rng.integers(3)):
        values = values + rng.uniform(-1, 1) * (time >= start)
    values[rng.integers(LENGTH, size=rng.integers(6))] += rng.choice([-2.5, 2.5])
    return (values + rng.normal(0, rng.uniform(0.1, 0.35), LENGTH))[None]
