"""Fixtures: the real weights and photographs, a browser where there is one, and a snapshot of everything a model is."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from playwright.sync_api import sync_playwright

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


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


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
