"""``relume report``: what it writes and says, its exit codes, and a run that lies at a URL."""

import fsspec
import pytest

from tests.helpers.commands import complaints, relume_command, sentence
from tests.helpers.written import item, peak, write_run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs of 22 cats, of whose second the maps point elsewhere."""
    monkeypatch.chdir(tmp_path)
    write_run("BEFORE", [item(f"{i}") for i in range(22)])
    write_run("RUN", [item(f"{i}", heat=peak(3, 2)) for i in range(22)], missing=1)


def report(*args):
    return relume_command("report", *args, "--no-shortcuts")


@pytest.mark.usefixtures("runs")
def test_what_it_writes_and_says(tmp_path):
    result = report("RUN")
    assert result.exit_code == 0
    assert "accuracy" in result.stdout
    assert "→ RUN/report/index.html  open it in a browser" in result.stdout
    assert complaints(result)[0].startswith("relume: the run is not finished: this is about the 22 of 23 pictures")
    assert {path.name for path in (tmp_path / "RUN" / "report").iterdir()} == {"index.html", "summary.csv", "suspects.parquet"}


@pytest.mark.usefixtures("runs")
def test_a_pipeline_gates_on_conditions(tmp_path):
    result = report("RUN", "--against", "BEFORE", "--fail-if", "moved>0.2", "--fail-if", "changed>0", "--output", "page")
    assert result.exit_code == 3
    assert complaints(result)[-1].startswith("relume: moved is 1.")
    assert complaints(result)[-1].endswith(": moved>0.2")
    assert "What changed" in (tmp_path / "page" / "index.html").read_text()
    assert report("RUN", "--against", "BEFORE", "--fail-if", "changed>0").exit_code == 0


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["NONE"], "there is no run in 'NONE', for it has no run.json; check the path"),
        (["RUN", "--fail-if", "moved>0.2"], "give --against too"),
        (["RUN", "--fail-if", "nonsense>0.2"], "there is no measure 'nonsense'"),
        (["RUN", "--against", "page"], "there is no run in 'page'"),
        (["RUN", "--output", "RUN/run.json"], "RUN/run.json' is not a folder; name another"),
    ],
)
def test_what_is_wrong_is_one_sentence(args, words, tmp_path):
    result = report(*args)
    assert result.exit_code == 2
    assert words in sentence(result, 2)
    assert not (tmp_path / "RUN" / "report").exists()


def test_a_run_at_a_url_has_its_report_there():
    write_run("memory://runs/RUN", [item(f"{i}") for i in range(3)])
    result = report("memory://runs/RUN")
    assert result.exit_code == 0
    assert "→ memory://runs/RUN/report/index.html" in result.stdout
    assert fsspec.filesystem("memory").cat("/runs/RUN/report/index.html").startswith(b"<!doctype html>")
