"""The versions that are claimed are the versions that are tested: pyproject.toml, the constraints files and the page agree."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
FILES = {"oldest": "constraints-oldest.txt", "pinned": "constraints.txt", "newest": "constraints-newest.txt"}


def pins(name):
    lines = (ROOT / FILES[name]).read_text().splitlines()
    return {canonicalize_name(n): v for n, v in (line.split("==") for line in lines if not line.startswith("#"))}


def floors():
    """Every lowest version that pyproject.toml claims."""
    required = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    return {
        canonicalize_name(r.name): next(iter(r.specifier)).version
        for r in map(Requirement, required)
        if r.specifier and r.name != "relume"
    }


def test_every_floor_is_what_the_oldest_environment_has():
    claimed = floors()
    assert {"torch", "numpy", "pillow", "torchvision", "timm", "transformers"} <= claimed.keys()
    tested = pins("oldest")
    assert {name: Version(v) for name, v in claimed.items()} == {name: Version(tested[name]) for name in claimed}


@pytest.mark.parametrize("name", FILES)
def test_the_page_names_the_versions(name):
    tested = pins(name)
    column = list(FILES).index(name) + 1
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
    named = {row[0]: row[column] for row in rows if canonicalize_name(row[0]) in floors()}
    assert {canonicalize_name(package) for package in named} == floors().keys()
    assert named == {package: tested[canonicalize_name(package)] for package in named}


def test_every_python_that_is_claimed_was_tested():
    claimed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| Python ")]
    assert set(claimed) == set(re.findall(r"3\.\d+", row))
