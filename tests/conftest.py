"""Fixtures: the real weights and photographs, a browser where there is one, and what holds for every test."""

import gc
import os
import shutil
from pathlib import Path

import pytest
import torch
from playwright.sync_api import sync_playwright

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


def pytest_collection_finish():
    """Let the garbage collector pass over what the imports made: each collection, and many tests ask for some, looks at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def realdata():
    if not REALDATA.is_dir():
        # on CI the data is there, and its absence would hide what those tests check
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no real data at {REALDATA}")
    return REALDATA


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if path is None:
        # .ci/run installs it, and its absence would hide what those tests check
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def new_page(chromium):
    """Open an empty page with some options; pages of the same options share a context, which takes half a second to begin."""
    contexts = {}

    def new_page(**options):
        options = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"} | options
        key = repr(sorted(options.items()))
        if key not in contexts:
            contexts[key] = chromium.new_context(**options)
        return contexts[key].new_page()

    return new_page


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _without_the_users_calibrations(monkeypatch):
    """The command finds no calibration in the cache of whoever runs the tests."""
    monkeypatch.setattr("relume.cli.calibrations.directory", lambda: Path(os.devnull))


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    """Opened networks run on the CPU also where there is a GPU: tests hold them against tensors that lie there."""
    monkeypatch.setattr("relume.models.devices._devices", lambda: ["cpu"])


@pytest.fixture
def s3(monkeypatch):
    """A real S3 server, one for all tests of a process, to which ``s3://`` leads; an empty bucket ``bucket`` in it."""
    from tests.helpers import objects

    files = objects.use(monkeypatch)
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    return files
