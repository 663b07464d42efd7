"""What only a fresh process can tell: the highest memory of one call, and the time to import a package."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from time import perf_counter, sleep

import psutil
import torch

from benchmarks.performance.contenders import CONTENDERS, TASKS
from benchmarks.performance.networks import Network
from benchmarks.performance.record import Import, Peak

__all__ = ["import_time", "peak"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MIB = 2**20


def peak(network: Network, task: str, contender: str, batch: int, rounds: int, device: str, threads: int) -> Peak:
    """Measure the most memory that one call adds, in a new process for each round."""
    images = 1 if CONTENDERS[contender].single else batch
    found = Peak(network=network.name, task=task, contender=contender, batch=images, mib=[], word="")
    try:
        for _ in range(rounds):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                found["mib"].append(pool.submit(_peak, network, task, contender, images, device, threads).result())
    except BrokenProcessPool:
        found["word"] = "killed"
    except Exception as error:  # noqa: BLE001 - however a tool fails, that is its result
        found["word"] = f"raises {type(error).__name__}"
    return found


def _peak(network: Network, task: str, key: str, batch: int, device: str, threads: int) -> float:
    """In the child: a call at batch 1 to load and choose everything, then the one that is measured."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    contender = CONTENDERS[key]
    model, images = network.build(calibrated=False).to(device), network.images(batch).to(device)
    opened = contender.opened(model, images)
    contender.ask(opened, network, images[:1], TASKS[task])

    def call() -> object:
        return contender.ask(opened, network, images, TASKS[task])

    return (_highest_on_gpu if device.startswith("cuda") else _highest)(call) / MIB


def _highest_on_gpu(call: Callable[[], object]) -> float:
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _highest(call: Callable[[], object]) -> float:
    """Bytes of resident memory at the highest, above those before: the kernel's own mark, which misses nothing."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what the warm-up freed would hide as much of what the call takes
        CLEAR.write_text("5")  # the mark falls to what is resident now
    except (OSError, AttributeError):
        return _sampled(call)
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _sampled(call: Callable[[], object]) -> float:
    """Where the kernel has no mark to reset: looked at each millisecond."""
    process, done = psutil.Process(), threading.Event()
    before = seen = process.memory_info().rss

    def watch() -> None:
        nonlocal seen
        while not done.is_set():
            seen = max(seen, process.memory_info().rss)
            sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return seen - before


def import_time(package: str, rounds: int) -> Import:
    """Fresh interpreters that import ``package``, in turn with bare ones; the first pair fills the disk's cache."""
    seconds: dict[str, list[float]] = {f"import {package}": [], "pass": []}
    for turn in range(rounds + 1):
        for code, taken in seconds.items():
            start = perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - this interpreter, and code from above
            if turn:
                taken.append(perf_counter() - start)
    probe = [sys.executable, "-c", f"import {package}, sys; print('torch' in sys.modules)"]
    loaded = subprocess.run(probe, check=True, capture_output=True, text=True).stdout.strip() == "True"  # noqa: S603
    return Import(package=package, seconds=seconds[f"import {package}"], bare=seconds["pass"], loads_torch=loaded)
