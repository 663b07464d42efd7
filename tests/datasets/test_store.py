"""A run in its folder: parts whole or absent, damage noticed, and explanations from rows."""

import errno
import json
import os
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import relume
from relume.datasets import RunRequest, explained_rows, open_source
from relume.datasets.store import Run, clear_unfinished, parts, write_manifest, write_part, write_record
from relume.demo import draw_scene
from relume.errors import InputError, OutputError
from relume.measures import rank_correlation
from relume.pages.owner import prefix


@pytest.fixture(scope="module")
def demo():
    return relume.open_model("demo", "cpu")


@pytest.fixture
def run_of(demo, tmp_path):
    """Write a run of three items in two parts, the last one of which is no picture; return its folder."""

    def write(**options):
        request, items = RunRequest(**options), []
        for i in range(3):
            path = tmp_path / f"{i}.png"
            items.append({"id": path.name, "path": str(path), "label": None, "target": "cat" if i else None, "mask": None})
            path.write_bytes(b"no picture") if i == 2 else draw_scene(i, ["cat", "dog"]).picture.save(path)
        folder = tmp_path / "run"
        known = {"model": "demo", "source": str(tmp_path), "labels": demo.labels, "provenance": demo.provenance}
        write_record(folder, known | {"request": request.as_dict()})
        write_manifest(folder, pa.Table.from_pylist(items))
        for number, some in enumerate((items[:2], items[2:])):
            write_part(folder, number, explained_rows(demo, [(item, item["path"]) for item in some], request))
        return folder

    return write


def part(folder, number):
    return folder / "parts" / f"part-{number:06}.parquet"


def test_a_run_is_read_as_it_was_written(run_of):
    folder = run_of(methods=["gradcam"])
    run = Run.load(folder)
    assert len(run) == 3
    table = run.table(["id", "error"])
    for ids in (table["id"].to_pylist(), run.manifest["id"].to_pylist(), [row["id"] for row in run]):
        assert ids == ["0.png", "1.png", "2.png"]
    assert [error is None for error in table["error"].to_pylist()] == [True, True, False]
    assert json.loads((folder / "run.json").read_text())["format"] == 1
    assert pq.read_table(folder / "parts").select(["id"]).num_rows == 3  # by pyarrow alone
    with pytest.raises(InputError, match="a run has no column 'ids'; choose from id, path"):
        run.table(["ids"])
    with pytest.raises(InputError, match="'2.png' could not be explained: .*not a picture"):
        run.explanation("2.png")
    with pytest.raises(InputError, match="no row 'x.png'"):
        run.explanation("x.png")


@pytest.mark.parametrize("store", ["facts", "saliency", "maps"])
def test_explanations_are_those_of_the_rows(demo, run_of, store):
    folder = run_of(store=store)
    e = Run.load(folder).explanation("1.png")
    alone = demo.explain(folder.parent / "1.png", "cat")
    assert (e.title(), e.model) == (alone.title(), "demo")
    assert [(i, name) for i, name, _ in e.top()] == [(i, name) for i, name, _ in alone.top()]
    assert torch.equal(e.images, alone.images)
    assert e.photo().tobytes() == alone.photo().tobytes()
    torch.testing.assert_close(e["gradcam"], alone["gradcam"], rtol=0, atol=1e-4 * float(alone["gradcam"].max()))
    assert e["guided_backprop"].shape == (1, 1 if store == "saliency" else 3, 128, 128)
    saliency = e.saliency("guided_backprop").numpy(), alone.saliency("guided_backprop").numpy()
    assert rank_correlation(*saliency) > 0.999
    (folder.parent / "1.png").unlink()
    if store == "facts":
        with pytest.raises(InputError, match="keeps no maps, and '1.png' cannot be explained anew: there is no file"):
            Run.load(folder).explanation("1.png")
    else:
        bare = Run.load(folder).explanation("1.png")
        assert torch.equal(bare["guided_backprop"], e["guided_backprop"])
        assert "there is no file" in bare.provenance["input"]
        assert bare.picture("guided_backprop").size == (128, 128)


def test_a_run_of_facts_asked_by_objects_says_so(run_of):
    folder = run_of(store="facts", methods=[relume.Smooth("gradient", samples=2)])
    with pytest.raises(InputError, match="cannot be explained anew: it was asked with objects of Python"):
        Run.load(folder).explanation("1.png")


def test_columns_that_there_are_not_are_refused(run_of):
    run = Run.load(run_of(methods=["gradcam"]))
    assert next(run.rows(["id", "error"])) == {"id": "0.png", "error": None}
    for read in (run.table, lambda columns: next(run.rows(columns))):
        with pytest.raises(InputError, match="a run has no column 'nothing'; choose from id, path"):
            read(["id", "nothing"])
        with pytest.raises(InputError, match=r"columns are a list of names, such as \['id'\]; got 'id'"):
            read("id")


def test_a_row_is_looked_for_in_its_own_part_first(run_of):
    folder = run_of(methods=["gradcam"])
    record = json.loads((folder / "run.json").read_text())
    write_record(folder, record | {"configuration": {"part_size": 2}})
    whole = part(folder, 0).read_bytes()
    part(folder, 0).write_bytes(b"PAR1" + bytes(len(whole) // 2) + whole[len(whole) // 2 + 4 :])  # its footer is whole
    with pytest.raises(InputError, match="'2.png' could not be explained"):  # which the row in the other part says
        Run.load(folder).explanation("2.png")
    with pytest.raises(InputError, match="damaged"):
        Run.load(folder).explanation("0.png")


def test_a_damaged_part_is_missing_or_an_error(run_of):
    folder = run_of(methods=["gradcam"], store="facts")
    whole = part(folder, 0).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:-4] + b"????"):
        part(folder, 0).write_bytes(damaged)
        assert [*parts(folder)] == [1]
    flipped = bytearray(whole)
    flipped[whole.index(b"\xff\xd8\xff") + 500] ^= 1  # within a thumbnail
    part(folder, 0).write_bytes(flipped)
    assert [*parts(folder)] == [0, 1]  # the footer is whole
    for read in (Run.load(folder).table, lambda: [*Run.load(folder)]):
        with pytest.raises(InputError, match=r"part-000000.parquet' is missing or damaged: .*remove it"):
            read()


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table = pa.table({"id": ["a"]})
    write_part(tmp_path, 0, table)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"part-000001.parquet': No space left on device; nothing of it is left"):
        write_part(tmp_path, 1, table)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-000000.parquet"]


def test_what_a_killed_run_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path):
    write_part(tmp_path, 0, pa.table({"id": ["a"]}))
    code = "from relume.pages.owner import prefix; print(prefix() + '0')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    names = [ended, f"{prefix()}0"]
    for name in names:
        (tmp_path / "parts" / name).write_bytes(b"half")
    clear_unfinished(tmp_path)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted([names[1], "part-000000.parquet"])
    assert [*parts(tmp_path)] == [0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no run in"),
        ('{"format": 2}', "is of format 2, and this version of relume reads 1"),
        ("[]", "is of format None"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_no_run_of_this_version_is_refused(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        Run.load(tmp_path)


def test_a_run_without_rows_says_so(tmp_path):
    write_record(tmp_path, {})
    assert (len(Run.load(tmp_path)), [*Run.load(tmp_path)]) == (0, [])
    with pytest.raises(InputError, match="has no rows yet"):
        Run.load(tmp_path).table()


def test_a_picture_in_a_tar_is_read_again(demo, tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        draw_scene(0, ["cat"]).picture.save(tmp_path / "a.png")
        tar.add(tmp_path / "a.png", "a.png")
    source, request = open_source(tmp_path / "shard.tar"), RunRequest(methods=["gradient"])
    items = source.manifest().to_pylist()
    known = {"model": None, "source": source.spec, "labels": None, "provenance": demo.provenance}
    write_record(tmp_path / "run", known | {"request": request.as_dict()})
    write_manifest(tmp_path / "run", source.manifest())
    write_part(tmp_path / "run", 0, explained_rows(demo, [(item, source.read(item)) for item in items], request))
    e = Run.load(tmp_path / "run").explanation("a")
    assert e.photo().tobytes() == demo.explain(tmp_path / "a.png", methods=["gradient"]).photo().tobytes()
