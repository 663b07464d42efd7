"""The slow tests run once for each state of the source, and go on where they stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import slow

RUN = "import sys; from pathlib import Path; from tests import slow; slow.ROOT = Path.cwd(); slow.RESULTS = Path('passed.json')"
RUN += "; slow.PAGE = Path('page.md'); sys.exit(slow.main())"
TESTS = """
import pytest
from pathlib import Path

def run(name):
    with open("ran.txt", "a") as file:
        file.write(name + " ")

@pytest.mark.slow
def test_one():
    run("one")

@pytest.mark.slow
def test_two():
    run("two")
    assert Path("src/mended").exists()

def test_short():
    run("short")
"""


def test_a_run_goes_on_where_it_stopped(tmp_path):
    for folder in ("src", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -m 'not slow'\nmarkers = slow: slow\n")

    def run():
        root = str(Path(__file__).parents[1])
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {RUN}"]
        alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout", "PYTEST_ADDOPTS": ""}
        return subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, timeout=120, check=False).returncode

    ran = tmp_path / "ran.txt"
    assert (run(), ran.read_text()) == (1, "one two ")
    assert list(json.loads((tmp_path / "passed.json").read_text())["passed"]) == ["test_it.py::test_one"]
    assert not (tmp_path / "page.md").exists()
    assert (run(), ran.read_text()) == (1, "one two two ")  # the one that passed is not run again
    (tmp_path / "src" / "mended").touch()
    assert (run(), ran.read_text()) == (0, "one two two one two ")  # another source: all of them
    assert "All 2 passed" in (tmp_path / "page.md").read_text()
    assert (run(), ran.read_text()) == (0, "one two two one two ")


def test_the_fingerprint_knows_every_file(tmp_path):
    (tmp_path / "src").mkdir()
    empty = slow.fingerprint(tmp_path)
    (tmp_path / "src" / "weights.bin").write_bytes(b"1")
    one = slow.fingerprint(tmp_path)
    (tmp_path / "src" / "weights.bin").write_bytes(b"2")
    assert len({empty, one, slow.fingerprint(tmp_path)}) == 3
