"""Run the slow tests, each once for each state of the source, and write the result into ``docs/slow-tests.md``.

``make test-slow`` calls it. A test that passed is not run again until a file of ``src`` or ``tests``, Python or torch changed,
so that a run that was interrupted, or in which a test failed, goes on where it stopped.
"""

import datetime as dt
import hashlib
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / ".slow" / "passed.json"
PAGE = ROOT / "docs" / "slow-tests.md"


def fingerprint(root: Path) -> str:
    """Return a digest of every file of ``src`` and ``tests`` and of the versions of Python and torch."""
    digest = hashlib.sha256(f"{platform.python_version()} {version('torch')}".encode())
    for path in sorted([*(root / "src").rglob("*"), *(root / "tests").rglob("*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Results:
    """Seconds that each passed test took, on disk as soon as it passed; those of another state of the source are dropped."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source, self.passed = path, source, {}
        if path.is_file() and (stored := json.loads(path.read_text()))["source"] == source:
            self.passed = stored["passed"]

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed[report.nodeid] = round(report.duration, 1)
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(json.dumps({"source": self.source, "passed": self.passed}, indent=1))


def table(passed: dict[str, float]) -> str:
    """Return the page of the docs."""
    today, total = dt.datetime.now(dt.UTC).date(), sum(passed.values())
    versions = f"Python {platform.python_version()} and torch {version('torch')}"
    rows = "\n".join(f"| `{name}` | {seconds:.0f} |" for name, seconds in sorted(passed.items()))
    return f"""# Slow tests

`make test-slow` runs what `make test` leaves out: tests that repeat hundreds of times what a short test beside them does. It
goes on where it stopped, and it wrote this page.

All {len(passed)} passed on {today}, with {versions}, in {total:.0f} s.

| test | seconds |
|---|---:|
{rows}
"""


def main(*options: str) -> int:
    """Run what has not passed yet; write the page when all have."""
    results = Results(RESULTS, fingerprint(ROOT))
    print(f"{len(results.passed)} passed before and are not run again")
    skipped = [word for name in results.passed for word in ("--deselect", name)]
    code = pytest.main(["-m", "slow", "--timeout=3600", *skipped, *options], plugins=[results])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return code
    if not options:  # which may have chosen some of the tests
        PAGE.write_text(table(results.passed))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
