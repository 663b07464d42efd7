"""The record of a run: plain data as it is stored in JSON, and what tables and figure read from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TypedDict

__all__ = [
    "Import",
    "Peak",
    "Point",
    "Rate",
    "Record",
    "Timing",
    "fastest_peer",
    "find",
    "gemm_rate",
    "median",
    "quartiles",
    "timing",
]


class Timing(TypedDict):
    """What one contender did with one task.

    ``error`` is the largest relative error of its maps, None where it gave none; ``word`` says why it was not timed, and is
    empty where it was; ``detail`` is the message of what it raised. ``seconds`` are per image, one for each round.
    """

    task: str
    contender: str
    error: float | None
    word: str
    detail: str
    seconds: list[float]


class Rate(TypedDict):
    """A kernel's operations (multiply-adds count two) and its seconds, one for each round."""

    flops: int
    seconds: list[float]


class Point(TypedDict):
    """A network at one size of input: every contender's timings, and what they are held against in the same rounds.

    ``flops`` are those of one forward and one data-only backward pass of an image (multiply-adds count two); ``saved`` are the
    bytes that the graph of a plain forward pass of the batch keeps. ``reference`` has seconds per image, ``opening`` those that
    each contender took to make its network ready, once.
    """

    group: str
    network: str
    batch: int
    side: int
    layers: int
    flops: int
    saved: int
    against: str
    reference: dict[str, list[float]]
    opening: dict[str, float]
    rates: dict[str, Rate]
    runs: list[Timing]


class Peak(TypedDict):
    """The highest memory of a contender in each of some fresh processes, MiB above the loaded model; ``word`` if it failed."""

    network: str
    task: str
    contender: str
    batch: int
    mib: list[float]
    word: str


class Import(TypedDict):
    """Wall seconds of fresh processes that import a package, and of bare ones; whether torch was loaded by it."""

    package: str
    seconds: list[float]
    bare: list[float]
    loads_torch: bool


class Record(TypedDict):
    """A whole run."""

    machine: dict[str, str | int | float | bool]
    versions: dict[str, str]
    labels: dict[str, str]
    peers: list[str]
    points: list[Point]
    memory: list[Peak]
    imports: list[Import]


def median(samples: list[float]) -> float | None:
    """Return the median, None if there are no values."""
    return statistics.median(samples) if samples else None


def quartiles(samples: list[float]) -> tuple[float, float]:
    """Return the first and the third quartile; a single sample is both."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def find(record: Record, group: str, network: str, batch: int | None = None) -> Point | None:
    """Find the point of ``network`` in ``group``, at ``batch`` if one is given."""
    fits = (p for p in record["points"] if p["group"] == group and p["network"] == network and batch in (None, p["batch"]))
    return next(fits, None)


def timing(point: Point | None, task: str, contender: str) -> Timing | None:
    """Find the run of ``task`` by ``contender``."""
    runs: Iterable[Timing] = () if point is None else point["runs"]
    return next((run for run in runs if (run["task"], run["contender"]) == (task, contender)), None)


def fastest_peer(record: Record, point: Point, task: str) -> tuple[str, float] | None:
    """Return the peer with the lowest median among those that are right, and its seconds per image."""
    timed = [(run["contender"], median(run["seconds"])) for run in point["runs"] if run["task"] == task]
    right = [(name, seconds) for name, seconds in timed if name in record["peers"] and seconds is not None]
    return min(right, key=lambda pair: pair[1], default=None)


def gemm_rate(point: Point) -> tuple[str, float] | None:
    """Return the fastest kernel of those timed in the same rounds, and its operations per second."""
    rates = [(name, rate["flops"] / statistics.median(rate["seconds"])) for name, rate in point["rates"].items()]
    return max(rates, key=lambda pair: pair[1], default=None)
