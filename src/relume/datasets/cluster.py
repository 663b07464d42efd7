"""A cluster of Ray: how a run connects to one, or starts one on this machine, and what it asks of it before it begins."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from relume.errors import InputError
from relume.text import first_line

__all__ = ["connected", "places"]

#: CPUs that Ray Data needs beside those of the actors: for reading and writing, and to leave out what is done.
SPARE = 2

#: Seconds that a server has to answer, and that an earlier run has to let go of its CPUs.
_ANSWER, _RELEASE = 5, 30

#: Ray sends no statistics, and says what it does in its own logs alone.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


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
        cores = os.cpu_count() or 1
        ray.init(address="local", num_cpus=max(cores, actors or cores) + SPARE, include_dashboard=False, **quiet)
        return
    _check_answer(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise _unreachable(address, first_line(error)) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise InputError(f"the cluster at {address!r} cannot be used: {first_line(error)}") from error
        versions = ", ".join(line.strip() for line in str(error).splitlines() if line.startswith("    "))
        raise InputError(
            f"the cluster at {address!r} runs another version of Ray or Python than this process "
            f"({versions}); install the same on both"
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
