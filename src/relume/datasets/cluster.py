"""A cluster of Ray: how a run connects to one, or starts one on this machine, and what it asks of it before it begins."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from relume import __version__
from relume.errors import InputError
from relume.text import first_line

if TYPE_CHECKING:
    from relume.datasets.storage import Storage

__all__ = ["check_nodes", "check_shared", "connected", "in_words", "places"]

#: CPUs that Ray Data needs beside those of the actors: for reading and writing, and to leave out what is done.
SPARE = 2

#: Seconds that a server has to answer, that an earlier run has to let go of its CPUs, and that a node has to see the run.
_ANSWER, _RELEASE, _NODE = 5, 30, 40

#: Ray sends no statistics, says what it does in its own logs alone, and does not connect again by itself once it is left.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}


@contextmanager
def connected(address: str | None, actors: int | None) -> Iterator[None]:
    """Connect to the cluster at an address; without one to that in ``RAY_ADDRESS``, or to one that is begun on this machine.

    A process that is connected already stays so.

    Raises:
        InputError: Ray is not installed, no cluster answers there, or it runs another version of Ray.
    """
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if before[name] is None})
    try:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise InputError("runs on a cluster need Ray, which is not installed; run: pip install 'relume[ray]'") from error
        is_ours = not ray.is_initialized()
        if not is_ours and address is not None:
            raise InputError(f"this process is connected to a cluster already; leave {address!r} out, or call ray.shutdown()")
        if not is_ours:
            yield
            return
        with _without_stderr():
            _connect(address or os.environ.get("RAY_ADDRESS"), actors)
        try:
            with _silent():
                yield
        finally:
            gc.collect()  # what is left of Ray Data ends when it is freed; without Ray it would end this process with code 1
            ray.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drop what Ray's C++ prints on stderr of this process."""
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def _silent() -> Iterator[None]:
    """Leave to Ray's own logs what Ray Data says of its progress, and the news of each process that is killed."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with patch("ray._private.worker.print_to_stdstream", create=True):
            yield
    finally:
        logger.setLevel(level)


def _connect(address: str | None, actors: int | None) -> None:
    """Connect to a cluster, or begin one that has as many CPUs as the actors need: they are counted, and not reserved."""
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        ray.init(address="local", num_cpus=(actors or os.cpu_count() or 1) + SPARE, include_dashboard=False, **quiet)
        return
    _check_answer(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise _unreachable(address, first_line(error)) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise InputError(f"the cluster at {address!r} cannot be used: {first_line(error)}") from error
        there, here = (
            f"Ray {ray} and Python {python}" for ray, python in re.findall(r"Ray: (\S+)\s+Python: (\S+)", str(error))
        )
        raise InputError(
            f"the cluster at {address!r} runs {there}, and this process {here}; install the same on both"
        ) from error


def _check_answer(address: str) -> None:
    """Refuse an address where no cluster answers; Ray itself would ask for minutes, and then end the process."""
    if address.startswith("ray://"):
        raise InputError(
            f"{address!r} is for Ray's client, by which no data are worked on; run this on a node of the cluster with "
            "--address auto, or by ray job submit"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", or what Ray refuses at once
    import ray

    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER).close()
        ray._raylet.GcsClient(address=address)  # as ray.init does, but with an end
    except (OSError, OverflowError, ray.exceptions.RpcError) as error:
        raise _unreachable(address, first_line(error)) from error


def _unreachable(address: str, reason: str) -> InputError:
    return InputError(
        f"no cluster of Ray answers at {address!r}: {reason.rstrip('.')}; check the address, which is that of the head node, "
        "such as 10.0.0.1:6379, or auto on a node of the cluster"
    )


def places(actors: int | None) -> tuple[int, int]:
    """Return how many actors there are, and how many GPUs each has: 1, or 0 if the cluster has none.

    Raises:
        InputError: the cluster is too small for the actors, or others use it.
    """
    import ray

    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    actors = actors or min(gpus or cpus, max(1, cpus - SPARE))
    needed = actors + SPARE
    if gpus and actors > gpus:
        raise InputError(f"{actors} actors need a GPU each, and the cluster has {gpus}; ask for fewer, or add nodes")
    if cpus < needed:
        raise InputError(
            f"the cluster has {cpus} CPUs, and {actors} actors need {needed}: one each, and {SPARE} to read and write; "
            "ask for fewer actors, or add nodes (CPUs are counted only: ray start --num-cpus may say more than there are)"
        )
    end = time.monotonic() + _RELEASE  # a run that was killed holds what it had for some seconds
    while (free := ray.available_resources()).get("CPU", 0) < needed or free.get("GPU", 0) < (actors if gpus else 0):
        if time.monotonic() > end:
            words = f"{int(free.get('CPU', 0))} CPUs and {int(free.get('GPU', 0))} GPUs"
            raise InputError(
                f"{actors} actors need {needed} CPUs{f' and {actors} GPUs' if gpus else ''}, and others use the cluster: "
                f"{words} are free; ask for fewer actors, or wait"
            )
        time.sleep(0.5)
    return actors, int(gpus > 0)


def check_shared(place: Storage, run: str) -> None:
    """Refuse to work in a process that does not see a run, or has another version of relume.

    Args:
        place: the place of the run.
        run: the hash of its configuration.

    Raises:
        InputError: it does not see it.
    """
    try:
        with place.open("run.json") as file:
            record = json.loads(file.read())
    except (OSError, ValueError) as error:
        raise InputError(
            f"it does not see the run in {str(place)!r} ({first_line(error)}); name a place that all share"
        ) from error
    if record["configuration_hash"] != run:
        raise InputError(f"it sees another run in {str(place)!r}; name a place that all nodes share")
    if (version := record["versions"]["relume"]) != __version__:
        raise InputError(f"it has relume {__version__}, and the run was begun with {version}; install the same on all nodes")


def check_nodes(place: Storage, run: str) -> None:
    """Ask each node of the cluster whether it sees a run.

    Raises:
        InputError: one does not, or does not say.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(check_shared)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = [look.options(scheduling_strategy=there).remote(place, run) for there in places]
    ray.wait(answers, num_returns=len(answers), timeout=_NODE)
    for node, answer in zip(nodes, answers, strict=True):
        try:
            ray.get(answer, timeout=0)
        except Exception as error:
            raise InputError(f"the node {node['NodeManagerAddress']} cannot take part: {in_words(error)}") from error


def in_words(error: BaseException) -> str:
    """Return an error of Ray as a sentence: its last line is the error of the other process that it is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"^[\w.]*\w(Error|Exception): ", "", lines[-1])
