"""The notebook, run top to bottom as a reader would, and the one in the repository shows what that gives."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import relume

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def run():
    notebook = nbformat.read(TOUR, as_version=4)
    os.environ.setdefault("PYTHONPATH", str(Path(relume.__file__).parents[1]))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    return notebook


def shown(notebook):
    """For each cell of code, the kinds of output it has, and the text that does not hang on a machine's last digit."""
    return [
        [(output.output_type, *sorted(output.get("data", {}))) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_it_runs_and_shows_what_the_stored_one_shows(run):
    assert shown(run) == shown(nbformat.read(TOUR, as_version=4))
    pages = [o.data["text/html"] for c in run.cells for o in c.get("outputs", ()) if "text/html" in o.get("data", {})]
    assert len(pages) == 6
    assert all("<img" in page and "<script" not in page for page in pages)


def test_its_last_word_is_that_nothing_was_lost(run):
    texts = [o.data.get("text/plain") for c in run.cells for o in c.get("outputs", ()) if "data" in o]
    assert "tensor(True)" in texts
    assert not [o for c in run.cells for o in c.get("outputs", ()) if o.get("name") == "stderr"]
