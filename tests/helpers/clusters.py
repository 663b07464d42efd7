"""Runs on Ray: a driver in a process of its own, which may be killed, and scenes that kill the process that reads them.

``python -m tests.helpers.clusters COUNT FOLDER ADDRESS ACTORS LETHAL`` runs scenes, and prints a line for each report.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

import relume
from tests.helpers.runs import Scenes, run_scenes

ACTOR = "ray::MapWorker(MapBatches(Explainer))"


@dataclass(frozen=True)
class Lethal(Scenes):
    """Scenes of which some kill every process that reads them; their ids are separated by commas."""

    lethal: str = ""

    def read(self, item):
        if item["id"] in self.lethal.split(","):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(item)


def begin_on_ray(count, folder, address="", actors=2, lethal=""):
    """Begin a run on Ray in a process of its own."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.helpers.clusters", *map(str, (count, folder, address, actors, lethal))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)


def rows_done(process, rows):
    """Wait until a run has explained so many rows."""
    for line in process.stdout:
        if int(line) >= rows:
            return int(line)
    raise AssertionError(process.stderr.read()[-3000:])


def finished(process, folder):
    """Wait until a run has ended well and without a word, and return it."""
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    return relume.Run.load(folder)


def actors():
    """The processes of all actors that explain."""
    return [process for process in psutil.process_iter(["cmdline"]) if ACTOR in " ".join(process.info["cmdline"] or ())]


def main(count, folder, address, actors, lethal):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell switches off in the background
    sys.stdout.reconfigure(line_buffering=True)
    run_scenes(
        int(count),
        folder,
        model="demo",
        source=Lethal(int(count), lethal=lethal),
        on="ray",
        address=address or None,
        actors=int(actors),
        part_size=20,
        progress=lambda state: sys.stdout.write(f"{state.done}\n"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
