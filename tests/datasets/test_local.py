"""The engine of one machine: whatever ends a run, the next one goes on, and the rows are those of a run that nothing ended."""

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import relume
from relume.datasets.lock import SILENCE, locked
from relume.demo import draw_scene
from relume.errors import InputError, OutputError, TargetError
from relume.models.opened import Opened
from relume.pages import owner
from relume.pictures import Preprocessing
from tests.helpers.networks import Small
from tests.helpers.runs import Scenes, assert_same, begin_scenes, kill_after, left_over, run_scenes

COUNT = 60
told = pytest.mark.skipif(owner._start(os.getpid()) is None, reason="when a process began is not told here")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_scenes(COUNT, tmp_path_factory.mktemp("undisturbed") / "run")


@told
def test_a_run_that_is_killed_twice_is_as_one_that_was_not(undisturbed, tmp_path):
    """The first time as a whole, then while it does one of two shards; the other shard is done at once."""
    chance, folder = random.Random(0), tmp_path / "run"
    first = begin_scenes(COUNT, folder, stop=2 * chance.randint(3, 6) + 1)  # while it writes a part
    first.communicate()
    assert len(left_over(tmp_path)) == 2  # and its lock
    second = begin_scenes(COUNT, folder, (2, 2), chance.randint(1, 4))
    run_scenes(COUNT, folder, shard=(1, 2))
    second.communicate()
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, -signal.SIGKILL)
    assert len(relume.Run.load(folder)) < COUNT
    run = run_scenes(COUNT, folder, shard=(2, 2))
    assert_same(run, undisturbed)
    assert not left_over(tmp_path)
    assert [row["id"] for row in run if row["error"]] == [str(i) for i in range(COUNT) if i % 10 == 9]
    assert run.explanation("3")["gradcam"].shape == (1, 16, 16)


def test_lost_and_damaged_parts_are_done_again_and_no_others(tmp_path):
    before = run_scenes(20, tmp_path / "run")
    rows, parts = before.table(), sorted((tmp_path / "run" / "parts").iterdir())
    times = [part.stat().st_mtime_ns for part in parts]
    parts[0].write_bytes(parts[0].read_bytes()[:-50])
    pq.write_table(pq.read_table(parts[1]).slice(1), parts[1])
    parts[2].unlink()
    assert_same(run_scenes(20, tmp_path / "run"), before)
    assert relume.Run.load(tmp_path / "run").table().equals(rows)
    assert [part.stat().st_mtime_ns == time for part, time in zip(parts, times, strict=True)] == [False, False, False, True]


def test_another_configuration_is_refused_with_the_difference(undisturbed):
    with pytest.raises(InputError, match=r"was begun otherwise: request.methods was \['gradcam'\] and is \['gradient'\]; give"):
        run_scenes(COUNT, undisturbed.folder, methods=["gradient"])
    with pytest.raises(InputError, match="request.target was None and is 4, limit was None and is 8"):
        run_scenes(COUNT, undisturbed.folder, target="cat", limit=8)
    opened = relume.open_model("demo", "cpu")
    with torch.no_grad():
        next(opened.model.parameters()).add_(1)
    with pytest.raises(InputError, match=r"otherwise: weights was '\w+… and is '\w+…, source was 'scenes' and is 'others'"):
        relume.run(opened, Scenes(3, "others"), undisturbed.folder, methods=["gradcam"], part_size=6, evidence=None)


def test_damage_to_what_a_run_is_is_refused(tmp_path):
    run = run_scenes(3, tmp_path / "run")
    run_scenes(2, tmp_path / "other")
    record = (run.folder / "run.json").read_text()
    (run.folder / "run.json").write_text(json.dumps(json.loads(record) | {"format": 2}))
    with pytest.raises(InputError, match="is of format 2"):
        run_scenes(3, run.folder)
    (run.folder / "run.json").write_text(record)
    (tmp_path / "other" / "manifest.parquet").replace(run.folder / "manifest.parquet")
    with pytest.raises(InputError, match=r"was begun otherwise: manifest was '\w+… and is '\w+…; give"):
        run_scenes(3, run.folder)
    (run.folder / "manifest.parquet").unlink()
    assert run_scenes(3, run.folder).manifest["id"].to_pylist() == ["0", "1", "2"]  # it is listed again
    (run.folder / "run.json").unlink()
    with pytest.raises(InputError, match=r"has parts of a run but no run\.json"):
        run_scenes(3, run.folder)


@told
def test_two_processes_do_not_do_the_same_parts(tmp_path):
    with locked(tmp_path / "run", (1, 2)):
        for shard in ((1, 2), (1, 1), (2, 3)):
            with pytest.raises(InputError, match=rf"process {os.getpid()} writes to .* too \(shard 1/2\); wait"):
                run_scenes(3, tmp_path / "run", shard=shard)
        run_scenes(3, tmp_path / "run", shard=(2, 2))
    code = "from relume.pages.owner import prefix; print(prefix() + 'lock_1_1_0')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    foreign = tmp_path / "run" / ".relume-00000000-7-0-lock_1_1_0"
    for lock in (tmp_path / "run" / ended, foreign):
        lock.touch()
    with pytest.raises(InputError, match="process 7 of another machine"):
        run_scenes(3, tmp_path / "run")
    silent = foreign.stat().st_mtime - SILENCE - 5
    os.utime(foreign, (silent, silent))
    assert len(run_scenes(3, tmp_path / "run")) == 3
    assert not left_over(tmp_path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    written, sync = [], os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 6:  # after the manifest, the record and one part, each with its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run_scenes(20, tmp_path / "run")
    monkeypatch.undo()
    assert not left_over(tmp_path)
    assert len(relume.Run.load(tmp_path / "run")) == 6
    assert len(run_scenes(20, tmp_path / "run")) == 20


def test_what_no_picture_can_meet_is_refused_before_anything_is_written(tmp_path):
    for options, error, words in (
        ({"target": 99}, TargetError, "class 99 is out of range"),
        ({"target": "cow"}, TargetError, "no class is called 'cow'"),
        ({"target_column": "class"}, InputError, "the source has no column 'class'; it has id, path"),
        ({"layer": "nowhere"}, relume.errors.LayerError, "nowhere"),
        ({"store": "all"}, InputError, "store is"),
        ({"shard": (0, 4)}, InputError, "counted from 1"),
        ({"limit": 0}, InputError, "limit is a number from 1 on; got 0"),
        ({"batch": 2}, TypeError, "unexpected keyword argument 'batch'"),
        ({"model": Opened("grey", Small(channels=1), Preprocessing(24, 24))}, RuntimeError, "to have 1 channels, but got 3"),
        (
            {"model": Opened("grey", Small(channels=1), Preprocessing(24, 24)), "target_column": "id"},
            RuntimeError,
            "1 channels",
        ),
    ):
        with pytest.raises(error, match=words):
            run_scenes(20, tmp_path / "run", **options)
    with pytest.raises(OutputError, match="is not a folder"):
        run_scenes(3, __file__)
    assert not (tmp_path / "run").exists()


def test_pictures_that_fail_first_stop_no_other_even_if_drawn_ones_fail_alike(tmp_path):
    class Particular(Small):
        def forward(self, x):
            if x.mean() < 2:
                raise ValueError("it is too dark")
            return super().forward(x)

    opened = Opened("particular", Particular().eval(), Preprocessing(24, 24))
    pictures = [Image.new("RGB", (24, 24), color) for color in ("black", "grey", "white")]
    run = opened.run(pictures, tmp_path / "run", methods=["gradient"], evidence=None)
    assert run.table(["error"])["error"].to_pylist() == ["it is too dark", "it is too dark", None]
    (tmp_path / "run" / "parts" / "part-000000.parquet").unlink()
    only = opened.run(pictures, tmp_path / "run", methods=["gradient"], evidence=None, batch_size=2)
    assert only.table(["error"]).equals(run.table(["error"]))  # those that are left may all be such


def test_a_list_of_other_pictures_is_another_run(tmp_path):
    demo, pictures = relume.open_model("demo", "cpu"), [draw_scene(seed, ["cat"]).picture for seed in range(3)]
    run = demo.run(pictures, tmp_path / "run", methods=["gradcam"])
    assert demo.run(pictures, tmp_path / "run", methods=["gradcam"], evidence="quick").table().equals(run.table())
    with pytest.raises(InputError, match="was begun otherwise: manifest was"):
        demo.run(pictures[:2], tmp_path / "run", methods=["gradcam"])
    assert run.explanation(2)["gradcam"].shape == (1, 16, 16)
    assert "its source 'list' cannot be opened again: it was given in Python" in run.explanation("2").provenance["input"]


def test_a_module_and_targets_in_a_column(tmp_path):
    demo, states = relume.open_model("demo", "cpu"), []
    known = {"preprocessing": demo.preprocessing, "labels": demo.labels, "methods": ["gradcam"], "loaders": 0}
    run = relume.run(demo.model, Scenes(5), tmp_path / "run", target_column="label", limit=3, progress=states.append, **known)
    assert run.table(["id", "class_name"]).to_pylist() == [{"id": str(i), "class_name": "cat"} for i in range(3)]
    assert [(state.done, state.total, state.written) for state in states] == [(0, 3, True), (3, 3, False), (3, 3, True)]
    assert run.record["model"] is None
    assert "BatchNorms folded" in run.record["provenance"]["prepared"]
    with pytest.raises(InputError, match="a module is given with its preprocessing"):
        relume.run(demo.model, Scenes(5), tmp_path / "run")
    with pytest.raises(InputError, match="and nothing else is"):
        relume.run(
            Opened("demo", demo.model, demo.preprocessing), Scenes(5), tmp_path / "run", preprocessing=demo.preprocessing
        )


@pytest.mark.filterwarnings("ignore:memory ran out")
def test_batches_that_memory_does_not_suffice_for_are_not_tried_again(tmp_path):
    class Large(Small):
        def forward(self, x):
            sizes.append(len(x))
            if len(x) > 2:
                raise MemoryError
            return super().forward(x)

    sizes, opened = [], Opened("large", Large().eval(), Preprocessing(24, 24))
    source = [draw_scene(seed).picture for seed in range(9)]
    run = opened.run(source, tmp_path / "run", methods=["gradient"], batch_size=5, part_size=8, evidence=None)
    assert run.table(["error"])["error"].null_count == 9
    assert [size for size in sizes if size > 1] == [5, 2, 2, 2]


def test_facts_are_explained_anew_as_they_were_or_not_at_all(tmp_path):
    """The network was opened with other labels and another size, which its spec does not say."""
    draw_scene(0, ["cat"]).picture.save(tmp_path / "0.png")
    demo = relume.open_model("demo", "cpu")
    smaller = dataclasses.replace(demo.preprocessing, resize=64, crop=64)
    changed = dataclasses.replace(demo, preprocessing=smaller, labels=tuple(map(str.upper, demo.labels)))
    run = relume.run(changed, tmp_path, tmp_path / "run", methods=["gradient"], store="facts", target="CAT")
    e = run.explanation("0.png")
    assert e["gradient"].shape == (1, 3, 64, 64)
    assert e.name(4) == "CAT"
    torch.save(Small(7).state_dict(), tmp_path / "small.pth")
    small, options = f"{Small.__module__}:Small", {"weights": tmp_path / "small.pth", "model_args": {"classes": 7}}
    network = relume.open_model(small, "cpu", **options)
    run = network.run(str(tmp_path / "*.png"), tmp_path / "args", methods=["gradient"], store="facts")
    assert run.explanation("0.png").scores.shape == (1, 7)
    with torch.no_grad():
        next(demo.model.parameters()).add_(1)
    trained = relume.run(demo, tmp_path, tmp_path / "trained", methods=["gradient"], store="facts")
    with pytest.raises(InputError, match="anew: 'demo' opens a network of other weights than the run's; run it with"):
        trained.explanation("0.png")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return run_scenes(2000, tmp_path_factory.mktemp("many") / "run")


@pytest.mark.slow
@told
@pytest.mark.parametrize(("shards", "place"), [(1, "{}/run"), (4, "{}/run"), (1, "s3://bucket/run")])
def test_two_thousand_scenes_survive_five_kills(many, shards, place, tmp_path, s3):
    """Killed wherever it is, in four shards and in S3 too; nothing lasts longer than the processes."""
    folder, chance = place.format(tmp_path), random.Random(shards)
    for _ in range(5):
        processes = [begin_scenes(2000, folder, (i + 1, shards)) for i in range(shards)]
        for process in processes:
            kill_after(process, chance.randint(2, 200 // shards))
    assert len(relume.Run.load(folder)) < 2000
    processes = [begin_scenes(2000, folder, (i + 1, shards)) for i in range(shards)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * shards
    assert_same(relume.Run.load(folder), many)
    assert not left_over(tmp_path)
    assert not [name for name in s3.find("bucket") if ".relume-" in name]
