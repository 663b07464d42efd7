"""Folders of results after a kill: all or nothing, and no folder of a process that lives is touched."""

import json
import os
import subprocess
import sys
import time

import pytest

from relume import errors
from relume.pages import owner
from relume.pages.folder import recover, write_folder

pytestmark = pytest.mark.skipif(owner._start(os.getpid()) is None, reason="when a process began is not told here")

BEFORE = {"a.txt": b"old", "sub/b.txt": b"old", "gone/c.txt": b"old", "mine.txt": b"mine"}
NEW = {"a.txt": b"new", "sub/b.txt": b"new", "fresh/deep/d.txt": b"new"}
AFTER = {**NEW, "mine.txt": b"mine"}

#: Runs a function of relume.pages.folder in a process that is killed at its nth operation on files; prints whether it came
#: so far.
KILLED = """
import os, shutil, signal, sys, pathlib, tempfile
from relume.pages import folder as report
stop, what, out = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
new = {"a.txt": b"new", "sub/b.txt": b"new", "fresh/deep/d.txt": b"new"}
left = stop
def count(function):
    def counted(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **kwargs)
    return counted
for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "write_bytes", "write_text"):
    setattr(pathlib.Path, name, count(getattr(pathlib.Path, name)))
for name in ("unlink", "rmdir", "mkdir"):
    setattr(os, name, count(getattr(os, name)))
if what == "write":
    report.write_folder(out, new, stale=["gone/c.txt"])
else:
    report.recover(out)
print("done")
"""


def killed(stop, what, out):
    """Whether it was killed before it was done."""
    run = subprocess.run([sys.executable, "-c", KILLED, str(stop), what, str(out)], capture_output=True, text=True, check=False)
    assert run.returncode in (0, -9), run.stderr
    return run.returncode != 0


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def folder_before(out):
    for path, content in BEFORE.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    return out


def test_a_write_killed_at_any_point_leaves_the_old_results_or_the_new(tmp_path):
    outcomes = []
    while True:
        out = folder_before(tmp_path / str(len(outcomes)))
        alive = not killed(len(outcomes), "write", out)
        recover(out)
        found = tree(out)
        assert found in (BEFORE, AFTER), len(outcomes)
        assert [p.name for p in out.iterdir() if p.name.startswith(".relume-")] == []
        outcomes.append(found == AFTER)
        if alive:
            break
    assert len(outcomes) > 15
    assert outcomes == sorted(outcomes), "the old results up to one point, the new ones from there on"
    assert (outcomes[0], outcomes[-1]) == (False, True)


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    """At which operation a write has moved the old files out and one of the new ones in."""
    for stop in range(15, 60):
        out = folder_before(tmp_path_factory.mktemp("out"))
        assert killed(stop, "write", out)
        if (out / "a.txt").is_file() and (out / "a.txt").read_bytes() == b"new":
            assert not (out / "sub" / "b.txt").exists()
            return stop
    return pytest.fail("a write has no middle")


def test_a_recovery_killed_at_any_point_can_be_done_again(tmp_path, middle):
    for stop in range(40):
        out = folder_before(tmp_path / str(stop))
        assert killed(middle, "write", out)
        alive = not killed(stop, "recover", out)
        recover(out)
        assert tree(out) == BEFORE, stop
        if alive:
            break
    assert alive
    assert stop > 5


def test_the_next_write_recovers_first(tmp_path, middle):
    out = folder_before(tmp_path / "out")
    assert killed(middle, "write", out)
    write_folder(out, {"a.txt": b"newest"})
    assert tree(out) == BEFORE | {"a.txt": b"newest"}


def left_by(out, name, **files):
    (out / name).mkdir(parents=True)
    for path, content in files.items():
        (out / name / path).write_text(content)
    return out / name


def test_only_folders_of_processes_that_are_gone_are_removed(tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = owner.prefix()
    host, pid, start = mine.removeprefix(".relume-").rstrip("-").split("-")
    assert pid == str(os.getpid())
    theirs = f".relume-{host}-{sleeper.pid}-{owner._start(sleeper.pid)}-abcd1234"
    names = {
        "mine": f"{mine}abcd1234",
        "theirs": theirs,
        "another host": f".relume-00000000-{sleeper.pid}-{start}-abcd1234",
        "unknown start": f".relume-{host}-{pid}-0-abcd1234",
        "the user's": ".relume-notes",
        "its number was given again": f".relume-{host}-{pid}-{start[:-1]}{'0' if start[-1] != '0' else '1'}-abcd1234",
        "no such process": f".relume-{host}-4999999-{start}-abcd1234",
    }
    for name in names.values():
        left_by(tmp_path, name)
    recover(tmp_path)
    there = {p.name for p in tmp_path.iterdir()}
    assert {key for key, name in names.items() if name not in there} == {"its number was given again", "no such process"}
    sleeper.kill()
    while owner._start(sleeper.pid) != "ended":  # a zombie until it is waited for, and gone all the same
        time.sleep(0.01)
    recover(tmp_path)
    assert not (tmp_path / theirs).exists()
    sleeper.communicate()


def test_where_the_system_does_not_tell_a_number_that_lives_may_be_the_process(monkeypatch):
    monkeypatch.setattr(owner, "_start", lambda pid: None)
    host = owner._host()
    assert owner.prefix() == f".relume-{host}-{os.getpid()}-0-"
    assert owner.is_gone(f".relume-{host}-4999999-0-abcd")
    assert not owner.is_gone(f".relume-{host}-{os.getpid()}-0-abcd")
    assert not owner.is_gone(f".relume-{host}-99999999999999999999-0-abcd")

    def hidden(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", hidden)  # another user's process, which /proc hides
    assert not owner.is_gone(f".relume-{host}-4999999-0-abcd")


def test_a_plan_that_is_damaged_stops_the_write_and_loses_nothing(tmp_path):
    host, _, start = owner.prefix().removeprefix(".relume-").rstrip("-").split("-")
    left = left_by(tmp_path, f".relume-{host}-4999999-{start}-abcd", **{"plan.json": "", "precious.txt": "old"})
    with pytest.raises(errors.OutputError, match="left by a killed run, cannot be read: see what is in it and remove it"):
        write_folder(tmp_path, {"a.txt": b"new"})
    assert not left.exists()
    assert [p.read_text() for p in tmp_path.rglob("precious.txt")] == ["old"]
    assert json.dumps([*tree(tmp_path)]).count("a.txt") == 0
