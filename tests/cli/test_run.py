"""``relume run``: what it says, an interruption, and one sentence for everything that is wrong."""

import functools
import json
import shutil
import signal
import socket
import sys

import pytest
from PIL import Image

import relume
from relume.cli import run as command
from relume.datasets import engines
from relume.demo import draw_scene
from tests.helpers.commands import complaints, relume_command, sentence


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Nine scenes, from the folder that holds them, and parts of four rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(9):
        draw_scene(seed, ["cat"]).picture.save(f"photos/{seed}.png")
    monkeypatch.setattr(command, "INTERVAL", 3600)  # where the machine is busy, there would be a line about the progress
    monkeypatch.setattr(engines, "run", functools.partial(engines.run, part_size=4))


def run(*args, source="photos"):
    return relume_command("run", source, "--model", "demo", "--method", "gradcam", "--output", "RUN", "--batch-size", 2, *args)


@pytest.mark.usefixtures("photos")
def test_what_it_writes_and_says(tmp_path, monkeypatch):
    (tmp_path / "photos" / "10.png").write_text("no picture")
    monkeypatch.setattr(command, "INTERVAL", 0)
    result = run("--target", "cat", "--shard", "1/2", "--store", "facts", "--limit", 10)
    assert result.exit_code == 1
    assert result.stdout == "6 of 10 rows  → RUN\n"
    assert complaints(result)[1].startswith("2 of 6 rows, ")
    assert complaints(result)[1].endswith(" s left")
    assert complaints(result)[-1].startswith("relume: 1 of 6 rows have an error, such as '10.png': '")
    result = run("--target", "cat", "--shard", "2/2", "--store", "facts", "--limit", 10)
    assert result.stdout == "10 of 10 rows  → RUN\n"
    table = relume.Run.load("RUN").table(["id", "class_name"])
    assert table["id"].to_pylist() == [*(f"{i}.png" for i in range(9)), "10.png"]
    assert set(table["class_name"].to_pylist()[:9]) == {"cat"}


@pytest.mark.usefixtures("photos")
def test_a_run_of_the_command_goes_on_in_python_and_empty_maps_are_said(tmp_path):
    for name in ("white", "grey"):
        Image.new("RGB", (9, 9), name).save(tmp_path / f"{name}.png")
    result = run("--no-calibration", source="*.png")
    (words,) = complaints(result)
    assert words.startswith(
        "relume: every map of Grad-CAM is empty: its weighted sum is nowhere positive at layer 'layer3'; name"
    )
    assert result.exit_code == 0
    assert len(engines.run("demo", "*.png", "RUN", methods=["gradcam"])) == 2


@pytest.mark.usefixtures("photos")
def test_an_interruption_finishes_the_part_and_a_second_does_not(monkeypatch):
    explained, batches = engines.explained, []

    def interrupted(*args):
        batches.append(args)
        for _ in range({1: 1, 3: 2}.get(len(batches), 0)):
            signal.raise_signal(signal.SIGINT)
        return explained(*args)

    monkeypatch.setattr(engines, "explained", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(2):
            result = run()
            assert result.exit_code == 130
            assert complaints(result) == [
                "relume: finishing the part that was begun; interrupt again to lose it",
                "relume: stopped after 4 of 9 rows, which are whole; the same command goes on from there",
            ]
            assert len(relume.Run.load("RUN")) == 4
    finally:
        signal.signal(signal.SIGINT, before)
    assert run().stdout == "9 of 9 rows  → RUN\n"


@pytest.mark.usefixtures("photos")
def test_one_sentence_for_everything_that_is_wrong(tmp_path):
    assert run("--limit", 1).exit_code == 0
    assert "was begun otherwise: limit was 1 and is 2; give what" in sentence(run("--limit", 2), 2)
    record = tmp_path / "RUN" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 2}))
    assert "is of format 2, and this version of relume reads 1" in sentence(run("--limit", 1), 2)
    shutil.rmtree("RUN")
    (tmp_path / "empty").mkdir()
    assert "'empty' holds no pictures" in sentence(run(source="empty"), 2)
    assert "'nowhere'" in sentence(run(source="nowhere"), 2)
    assert "no class is called 'cow'" in sentence(run("--target", "cow"), 2)
    for more in (["--target", "cat,dog"], ["--target", "cat", "--ask", "regression:up"]):
        assert "and 2 were given; give --target or --ask, once" in sentence(run(*more), 2)
    assert "--shard is I/N, such as 1/4 to 4/4; got '3'" in sentence(run("--shard", "3"), 2)
    assert "shards are counted from 1" in sentence(run("--shard", "5/4"), 2)
    assert "'photos/0.png' is not a folder" in sentence(run("--output", "photos/0.png"), 2).replace(f"{tmp_path}/", "")


@pytest.mark.usefixtures("photos")
def test_sources_and_runs_in_s3(s3, monkeypatch):
    s3.put("photos", "bucket/photos", recursive=True)
    result = run("--output", "s3://bucket/RUN", "--limit", 6, source="s3://bucket/photos")
    assert (result.exit_code, result.stdout) == (0, "6 of 6 rows  → s3://bucket/RUN\n")
    assert relume.Run.load("s3://bucket/RUN").table(["path"])["path"].to_pylist() == [
        f"s3://bucket/photos/{i}.png" for i in range(6)
    ]
    assert "cannot write a run to 's3://nowhere/RUN': The spec" in sentence(run("--output", "s3://nowhere/RUN"), 2)
    with socket.socket() as port:  # which nobody listens to
        port.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port.getsockname()[1]}")
        type(s3).clear_instance_cache()
        assert "'s3://bucket/RUN' cannot be reached: Could not connect" in sentence(run("--output", "s3://bucket/RUN"), 2)
        assert "'s3://bucket/photos' cannot be reached: Could" in sentence(run(source="s3://bucket/photos"), 2)


def test_without_pyarrow_it_says_what_to_install(monkeypatch):
    for name in ("relume.datasets", "relume.datasets.loading"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert sentence(run(), 2).endswith("need pyarrow, which is not installed; run: pip install 'relume[run]'")
