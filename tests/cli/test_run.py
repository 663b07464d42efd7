"""``relume run``: what it says, an interruption, and one sentence for everything that is wrong."""

import functools
import json
import signal

import pytest
from PIL import Image

import relume
from relume.cli import run as command
from relume.datasets import local
from relume.demo import draw_scene
from tests.helpers.commands import complaints, relume_command, sentence


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Nine scenes, from the folder that holds them, and parts of four rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(9):
        draw_scene(seed, ["cat"]).picture.save(f"photos/{seed}.png")
    monkeypatch.setattr(local, "run", functools.partial(local.run, part_size=4))


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
def test_an_interruption_finishes_the_part_and_a_second_does_not(monkeypatch):
    explained_rows, batches = local.explained_rows, []

    def interrupted(*args):
        batches.append(args)
        if len(batches) in (1, 5, 6):
            signal.raise_signal(signal.SIGINT)
        return explained_rows(*args)

    monkeypatch.setattr(local, "explained_rows", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for rows in (4, 8):  # batches 1 and 2, then 3 to 6
            result = run()
            assert result.exit_code == 130
            assert len(relume.Run.load("RUN")) == rows
    finally:
        signal.signal(signal.SIGINT, before)
