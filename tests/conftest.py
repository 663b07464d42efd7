"""Fixtures: the real weights and photographs where they are, and a snapshot of everything a model is."""

import os
from pathlib import Path

import pytest
import torch

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata():
    if not REALDATA.is_dir():
        # on CI the data is there, and its absence would hide what those tests check
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no real data at {REALDATA}")
    return REALDATA


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
