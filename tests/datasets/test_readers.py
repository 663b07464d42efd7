"""Other tools read the parts of a run by the lines that docs/rows.md has for them."""

import importlib
from pathlib import Path

import numpy as np
import pyarrow.parquet  # noqa: F401 - pyarrow does not import it
import pytest

import relume
from relume.demo import draw_scene

PAGE = (Path(__file__).parents[2] / "docs" / "rows.md").read_text()
LINES = PAGE.partition("```py\n")[2].partition("```")[0].splitlines()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The folder that a run of three pictures lies in, and the map of the second."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "pets").mkdir()
    for i in range(3):
        draw_scene(i, ["cat"]).picture.save(folder / "pets" / f"{i}.png")
    run = relume.run("demo", folder / "pets", folder / "run", methods=["guided_backprop"], store="maps", part_size=2)
    return folder, run.explanation("1.png")["guided_backprop"][0].numpy()


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[2].partition(".")[0])
def test_the_documented_line_reads_a_map(line, stored, monkeypatch, tmp_path):
    folder, expected = stored
    library = line.removeprefix("row = ").partition(".")[0]
    module = importlib.import_module(library)
    if library == "datasets":
        monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path)
        monkeypatch.setattr(module.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(folder)
    row = eval(line.removeprefix("row = "), {library: module})
    codes = np.frombuffer(row["guided_backprop_map"], np.int8).reshape(row["guided_backprop_shape"]).astype(np.float32)
    values = row["guided_backprop_scale"] * np.sign(codes) * (np.abs(codes) / 127) ** 6
    np.testing.assert_allclose(values, expected, rtol=1e-5)
