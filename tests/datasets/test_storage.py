"""Storage: runs and sources in S3 and at other URLs are as those on disk, whatever ends a run or fails."""

import io
import os
import pickle
import sys

import pyarrow.parquet as pq
import pytest
import requests
from fsspec.registry import known_implementations
from PIL import Image

import relume
from relume.datasets import lock, open_source
from relume.datasets.storage import storage_of
from relume.demo import draw_scene
from relume.errors import InputError, OutputError, UnreachableError
from tests.helpers import objects
from tests.helpers.runs import assert_same, begin_scenes, kill_after, run_scenes

COUNT = 14


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_scenes(COUNT, tmp_path_factory.mktemp("undisturbed") / "run")


def png(colour=0):
    """Return the file of a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("place", ["folder", "memory://folder", "s3://bucket/folder"])
@pytest.mark.usefixtures("s3")
def test_all_storages_are_alike(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = pickle.loads(pickle.dumps(storage_of(place)))
    storage.check()
    assert (str(storage), storage.names(), storage.names("a")) == (place, [], [])
    storage.put("a/2", b"two")
    storage.put("a/1", b"0")
    storage.put("a/1", memoryview(b"one"))
    assert (storage.names(), storage.names("a")) == ([], ["1", "2"])
    assert (storage.read("a/1"), storage.read("a/1", 1, 1), storage.read("a/2", 2, 9)) == (b"one", b"n", b"o")
    with storage.open("a/2") as file:
        assert (file.seek(-1, io.SEEK_END), file.read(), file.tell()) == (2, b"o", 3)
    storage.touch("sign")
    first = storage.touched("sign")
    storage.touch("sign")
    assert first <= storage.touched("sign") < first + 60
    assert [storage.exists(name) for name in ("", "sign", "x")] == [True, True, False]
    for _ in range(2):
        storage.remove("sign")
    for read in (storage.read, storage.open):
        with pytest.raises(FileNotFoundError):
            read("sign")
    assert storage_of(f"{place}/a/1").read() == b"one"


def test_a_run_into_s3_is_as_one_on_disk(undisturbed, s3):
    run = run_scenes(COUNT, "s3://bucket/run")
    assert_same(run, undisturbed)
    assert run.folder == "s3://bucket/run"
    names = ["manifest.parquet", *(f"parts/part-00000{i}.parquet" for i in range(3)), "run.json"]
    assert sorted(s3.find("bucket/run")) == [f"bucket/run/{name}" for name in names]
    parts = [f"bucket/run/{name}" for name in names[1:4]]
    s3.pipe_file(parts[0], s3.cat_file(parts[0])[:-50])
    s3.rm_file(parts[2])
    time = s3.info(parts[1])["LastModified"]
    assert len(relume.Run.load("s3://bucket/run")) == 6
    assert_same(run_scenes(COUNT, "s3://bucket/run"), undisturbed)
    s3.invalidate_cache()
    assert s3.info(parts[1])["LastModified"] == time
    assert [row["id"] for row in run] == [str(i) for i in range(COUNT)]
    assert run.explanation("3")["gradcam"].shape == (1, 16, 16)
    with pytest.raises(InputError, match="'s3://bucket/run' was begun otherwise: limit was None and is 8"):
        run_scenes(COUNT, "s3://bucket/run", limit=8)
    s3.pipe_file("bucket/run/run.json", b'{"format": 2}')
    with pytest.raises(InputError, match=r"'s3://bucket/run/run.json' is of format 2"):
        relume.Run.load("s3://bucket/run")


def test_a_run_into_s3_that_is_killed_goes_on(undisturbed, s3):
    process = begin_scenes(COUNT, "s3://bucket/run")
    kill_after(process, 3)
    assert any("-lock_1_1_" in name for name in s3.find("bucket/run"))
    assert len(relume.Run.load("s3://bucket/run")) < COUNT
    assert_same(run_scenes(COUNT, "s3://bucket/run"), undisturbed)
    assert not any(".relume-" in name for name in s3.find("bucket/run"))


def test_a_server_that_goes_away_loses_nothing(undisturbed, s3, tmp_path, monkeypatch):
    """Neither rows that are to be written, nor pictures that are to be read, which are no rows with an error then."""
    for i in range(8):
        file = io.BytesIO()
        draw_scene(i, ["cat"]).picture.save(file, "PNG")
        s3.pipe_file(f"bucket/photos/{i}.png", file.getvalue())
    for source, output, error in (
        (None, "s3://bucket/run", OutputError),
        ("s3://bucket/photos", tmp_path / "run", UnreachableError),
    ):
        server = objects.started()
        objects.use(monkeypatch, server)

        def stop(state, server=server):
            if state.written and state.done:
                server.stop()

        run = run_scenes if source is None else run_photos
        with pytest.raises(error, match=r"s3://bucket.*(Could not connect|closed).*(go on|the same again)"):
            run(source or COUNT, output, progress=stop)
        objects.use(monkeypatch)
        left = relume.Run.load(output)
        assert len(left) == 6 if source is None else 2 <= len(left) < 8
        assert [row["id"] for row in left if row["error"]] == []
        finished = run(source or COUNT, output)
        if source is None:
            assert_same(finished, undisturbed)
        else:
            assert finished.table(["id", "error"])["error"].null_count == len(finished) == 8


def run_photos(source, output, **options):
    known = {"methods": ["gradcam"], "part_size": 2, "loaders": 1, "batch_size": 1, "evidence": None}
    return relume.run(relume.open_model("demo", "cpu"), source, output, **known, **options)


def test_two_processes_do_not_do_the_same_parts_in_s3(s3, monkeypatch):
    with lock.locked("s3://bucket/run", (1, 2)):
        with pytest.raises(InputError, match=r"writes to 's3://bucket/run' too \(shard 1/2\); wait"):
            run_scenes(3, "s3://bucket/run")
        run_scenes(3, "s3://bucket/run", shard=(2, 2))
    foreign = ".relume-00000000-7-0-lock_1_1_0"
    storage = storage_of("s3://bucket/run")
    storage.touch(foreign)
    with pytest.raises(InputError, match="process 7 of another machine"):
        run_scenes(3, "s3://bucket/run")
    sign = storage.touched(foreign)
    monkeypatch.setattr(lock, "SIGN", -1)
    with lock.locked("s3://bucket/other", (1, 1)) as still_there:
        (own,) = storage_of("s3://bucket/other").names()
        before = storage_of("s3://bucket/other").touched(own)
        still_there()
        assert storage_of("s3://bucket/other").touched(own) > before
    storage.put(foreign, repr(sign - lock.SILENCE - 5).encode())
    assert len(run_scenes(3, "s3://bucket/run")) == 3
    assert storage.names() == ["manifest.parquet", "run.json"]


def test_parts_of_any_name_are_read_once_each_and_in_order(undisturbed):
    """Those of another engine have names of their own, and rows in any order, some perhaps twice."""
    run = run_scenes(COUNT, "memory://any/run")
    storage, rows = storage_of("memory://any/run"), run.table()
    for part in ("parts/part-000001.parquet", "parts/part-000002.parquet"):
        storage.remove(part)
    for name, indices in (("9_0", [13, 7, 6, 8, 9]), ("9_1", [3, 11, 10, 12, 13])):
        file = io.BytesIO()
        pq.write_table(rows.take(indices), file)
        storage.put(f"parts/{name}.parquet", file.getvalue())
    assert len(run) == COUNT
    assert run.table() == rows
    assert_same(run, undisturbed)
    assert sorted(row["id"] for row in run) == sorted(map(str, range(COUNT)))
    assert run.explanation("12").target == undisturbed.explanation("12").target


def test_what_is_wrong_with_a_url_is_a_sentence(s3, monkeypatch):
    with pytest.raises(InputError, match=r"nothing at 's3://nowhere/photos': The specified bucket does not exist; check"):
        open_source("s3://nowhere/photos").manifest()
    with pytest.raises(
        OutputError, match="cannot write a run to 's3://nowhere/run': The specified bucket does not exist; name"
    ):
        run_scenes(3, "s3://nowhere/run")
    with pytest.raises(InputError, match="there is no run in 's3://nowhere/run'"):
        relume.Run.load("s3://nowhere/run")
    with pytest.raises(InputError, match="'abc://x' cannot be opened: Protocol not known: abc; check the address"):
        open_source("abc://x").manifest()
    monkeypatch.setitem(known_implementations, "lost", {"class": "lost_files.Files"})
    with pytest.raises(InputError, match="'lost://x' needs a package that is not installed; run: pip install lost_files"):
        open_source("lost://x").manifest()
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"needs fsspec, which is not installed; run: pip install 'relume\[run\]'"):
        storage_of("s3://bucket/run")


def test_credentials_that_are_wrong_are_a_sentence(s3, tmp_path):
    """Also where they were right when the pictures were listed: no picture is a row with an error then."""
    s3.pipe_file("bucket/photos/1.png", png())
    source = open_source("s3://bucket/photos")
    (item,) = source.manifest().to_pylist()
    requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", b"0", timeout=60)
    try:
        known = (
            "cannot be reached: The AWS Access Key Id you provided does not exist in our records; check its address, the cred"
        )
        for ask in (
            lambda: source.read(item),
            lambda: run_photos("s3://bucket/photos", tmp_path / "run"),
            lambda: run_scenes(3, "s3://bucket/run"),
            lambda: relume.Run.load("s3://bucket/run"),
        ):
            with pytest.raises(UnreachableError, match=known):
                ask()
        with pytest.raises(OutputError, match="cannot write 's3://bucket/x': The AWS Access Key Id"):
            storage_of("s3://bucket").put("x", b"")
    finally:
        requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", b"inf", timeout=60)
