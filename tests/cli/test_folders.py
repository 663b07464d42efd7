"""Where results of photos go over several runs, and photos with odd names and odd contents, through the command."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relume
from relume.demo import draw_scene
from relume.errors import OutputError
from relume.explanation import saving
from relume.explanation.result import Explanation
from relume.explanation.saving import ResultFolders
from relume.pages import owner
from relume.targets import Regression
from tests.helpers.commands import complaints, relume_command


def explain(*photos, output):
    # one by one, since the last bits of a map may depend on the photos beside it
    options = ["--method", "gradient", "--evidence", "none", "--batch-size", 1]
    return relume_command("explain", *photos, *options, "--output", output)


@pytest.fixture
def scene(tmp_path):
    def write(name, seed=0, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_scene(seed).picture.save(path, **options)
        return path

    return write


def sources(output):
    """The files that each folder is about."""
    found = {}
    for facts in output.glob("*/*/explanation.json"):
        found.setdefault(facts.parent.parent.name, set()).add(json.loads(facts.read_text())["provenance"]["file"])
    return found


def test_photos_of_one_name_never_share_a_folder_over_runs(scene, tmp_path):
    photos = [scene("a/dog.png"), scene("b/dog.png", 1), scene("b/DOG.jpg", 2)]
    out = tmp_path / "out"
    for photo in photos:
        assert explain(photo, output=out).exit_code == 0
    expected = {"dog": {str(photos[0])}, "dog-2": {str(photos[1])}, "DOG-3": {str(photos[2])}}
    assert sources(out) == expected
    before = {p: p.read_bytes() for p in (out / "dog").rglob("*.safetensors")}
    assert explain(*reversed(photos), output=out).exit_code == 0
    assert sources(out) == expected
    assert {p: p.read_bytes() for p in (out / "dog").rglob("*.safetensors")} == before


def test_questions_of_one_name_never_share_a_folder(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1))
    both = relume.compare(network, torch.rand(1, 3, 4, 4), [Regression(2), Regression(-2)], ["gradient"], evidence=None)
    folder = saving.save_all(both.explanations, tmp_path / "out")
    titles = [Explanation.load(folder / name).title() for name in ("the-value-towards-2", "the-value-towards-2-2")]
    assert titles == [e.title() for e in both]


def test_the_same_photo_by_another_path_replaces_its_own_folder(scene, tmp_path, monkeypatch):
    photo = scene("a/dog.png")
    assert explain(photo, output=tmp_path / "out").exit_code == 0
    monkeypatch.chdir(photo.parent)
    assert explain("../a/dog.png", output=tmp_path / "out").exit_code == 0
    assert sources(tmp_path / "out") == {"dog": {"../a/dog.png"}}


def folder_of(output, name, path, content="{}"):
    """A folder with the facts of the photo at ``path``."""
    (output / name / "0-cat").mkdir(parents=True)
    facts = content if path is None else json.dumps({"provenance": {"path": os.path.realpath(path)}})
    (output / name / "0-cat" / "explanation.json").write_text(facts)


OTHERS = {
    "a file": lambda out: (out / "dog").write_text("mine"),
    "a folder of the user's": lambda out: shutil.copytree(out.parent / "notes", out / "dog"),
    "facts that cannot be read": lambda out: folder_of(out, "dog", None, "[[["),
    "facts of something else": lambda out: folder_of(out, "dog", None, "[]"),
    "another photo": lambda out: folder_of(out, "dog", out / "other" / "dog.png"),
    "another photo, in other letters": lambda out: folder_of(out, "DOG", out / "other" / "dog.png"),
    "two photos": lambda out: (
        folder_of(out, "dog", out / "dog.png"),
        shutil.copytree(out.parent / "x" / "y", out / "dog" / "y"),
    ),
}


@pytest.mark.parametrize("there", OTHERS)
def test_what_is_not_of_this_photo_is_left_alone(tmp_path, there):
    out = tmp_path / "out"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("mine")
    folder_of(tmp_path / "x", "y", tmp_path / "y.png")
    (tmp_path / "x" / "y" / "0-cat" / "explanation.json").rename(tmp_path / "x" / "y" / "explanation.json")
    out.mkdir()
    OTHERS[there](out)
    assert ResultFolders(out).of(out / "dog.png") == out / "dog-2"


def test_each_folder_is_read_once_however_many_photos_have_its_name(tmp_path, monkeypatch):
    read, owned = [], saving._owner
    monkeypatch.setattr(saving, "_owner", lambda entry: read.append(entry) or owned(entry))
    photos = [tmp_path / str(i) / "dog.png" for i in range(12)]
    names = [f"dog{f'-{i + 1}' if i else ''}" for i in range(12)]
    for name, photo in zip(names, photos, strict=True):
        folder_of(tmp_path / "out", name, photo)
    folders = ResultFolders(tmp_path / "out")
    assert [folders.of(photo).name for photo in photos] == names
    assert len(read) == len({*read}) == 12


def test_an_empty_folder_is_taken_and_a_renamed_one_is_kept(tmp_path):
    (tmp_path / "dog").mkdir()
    folder_of(tmp_path, "dog that I keep", tmp_path / "dog.png")
    assert ResultFolders(tmp_path).of(tmp_path / "dog.png") == tmp_path / "dog"


def test_a_folder_with_a_number_is_found_again_where_the_first_is_gone(tmp_path):
    folder_of(tmp_path, "dog-7", tmp_path / "b" / "dog.png")
    folders = ResultFolders(tmp_path)
    assert folders.of(tmp_path / "a" / "dog.png") == tmp_path / "dog"
    assert folders.of(tmp_path / "b" / "dog.png") == tmp_path / "dog-7"
    assert folders.of(tmp_path / "b" / "dog.png") == tmp_path / "dog-2"  # the same photo twice in one run
    assert folders.of(tmp_path / "dog-7.png") == tmp_path / "dog-7-2"


def test_a_folder_that_another_run_made_meanwhile_is_left_alone(tmp_path):
    folders = ResultFolders(tmp_path)
    folder_of(tmp_path, "dog", tmp_path / "b" / "dog.png")
    assert folders.of(tmp_path / "a" / "dog.png") == tmp_path / "dog-2"


def test_two_runs_that_see_a_new_folder_free_at_the_same_moment_do_not_share_it(tmp_path, monkeypatch):
    one, other = ResultFolders(tmp_path / "out"), ResultFolders(tmp_path / "out")
    real = saving.write_targets

    def slow(folder, files):
        """While the first run writes, the other one begins."""
        monkeypatch.setattr(saving, "write_targets", real)
        monkeypatch.setattr(other, "_is_free", lambda name: True)  # as it saw the folder a moment ago
        assert other.write(tmp_path / "b" / "dog.png", {"a": b"b"}).name == "dog-2"
        return real(folder, files)

    monkeypatch.setattr(saving, "write_targets", slow)
    assert one.write(tmp_path / "a" / "dog.png", {"a": b"a"}).name == "dog"
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        tmp_path / "out" / "dog" / "a": b"a",
        tmp_path / "out" / "dog-2" / "a": b"b",
    }
    assert len(list((tmp_path / "out").rglob("*"))) == 4


def test_a_write_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(OutputError):
        ResultFolders(tmp_path / "out").write(tmp_path / "dog.png", {"a/b": b"", "a": b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(owner._start(os.getpid()) is None, reason="when a process began is not told here")
def test_what_a_killed_run_left_is_removed_before_folders_are_given(tmp_path):
    host, _, start = owner.prefix().removeprefix(".relume-").rstrip("-").split("-")
    (tmp_path / "dog" / f".relume-{host}-4999999-{start}-abcd" / "new").mkdir(parents=True)
    (tmp_path / f".relume-{host}-4999999-{start}-abcd").mkdir()  # of a command that writes beside the folders of photos
    assert ResultFolders(tmp_path).of(tmp_path / "dog.png") == tmp_path / "dog"
    assert [p.name for p in tmp_path.rglob("*")] == ["dog"]


def test_long_names_are_cut_and_stay_apart(tmp_path):
    folders = ResultFolders(tmp_path)
    one, two = (folders.of(tmp_path / name) for name in ("a" + "ü" * 120 + "1.png", "a" + "ü" * 120 + "2.png"))
    assert (one.name, two.name) == ("a" + "ü" * 99, "a" + "ü" * 99 + "-2")


def test_an_output_that_cannot_be_listed_is_one_sentence(scene, tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    photo = scene("dog.png")
    monkeypatch.setattr(Path, "iterdir", refuse)
    result = explain(photo, output=tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"cannot see what is in '{tmp_path}': Permission denied; name another folder" in result.stderr


# --- Odd photos ---


#: Runs one command after another in one process, as each would run in its own, with a zero byte after each.
COMMANDS = """
import ast, sys
from relume.cli import main
for words in ast.literal_eval(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    print(end="\\0", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_go_through_the_command(scene, tmp_path):
    """As bytes, on terminals and pages that hold text alone."""
    photo = scene(os.fsdecode(b"caf\xe9\x1b.png"))
    options = ["--method", "gradcam", "--evidence", "none", "--output"]
    commands = {
        "explain": [*options, tmp_path / "one"],
        "compare": [*options, tmp_path / "two"],
        "audit": ["--method", "gradcam", "--checks", "coverage", "--output", tmp_path / "three"],
    }
    words = [[command, str(photo), *map(str, rest)] for command, rest in commands.items()]
    result = subprocess.run([sys.executable, "-c", COMMANDS, repr(words)], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    said = result.stdout.split(b"\0")
    assert len(said) == len(commands) + 1
    for command, output in zip(commands, said, strict=False):
        assert b"caf\\udce9\\x1b.png" in output, command
    assert b"\xe9" not in result.stdout + result.stderr
    (saved,) = (tmp_path / "one").glob("*/*/explanation.json")
    assert os.fsencode(saved.parent.parent.name) == b"caf\xe9\x1b"
    assert Explanation.load(saved.parent).provenance["file"] == str(photo)
    assert json.loads((tmp_path / "three" / "audit.json").read_bytes())["audits"][0]["provenance"]["file"] == str(photo)
    for page in ("two/compare.html", "three/index.html"):
        assert "caf\\udce9\\x1b.png" in (tmp_path / page).read_text(encoding="utf-8")


def test_a_folder_of_odd_files_ends_in_a_line_for_each(scene, tmp_path):
    good = scene("good.png")
    rng = np.random.default_rng(0)
    scene("animated.gif", save_all=True, append_images=[draw_scene(1).picture])
    Image.fromarray(rng.integers(0, 4096, (40, 60)).astype(np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:200])
    scene("printer.eps")
    (tmp_path / "words.jpg").write_text("no picture")
    odd = [tmp_path / name for name in ("empty.jpg", "cut.png", "printer.eps", "words.jpg", "missing.png")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        odd.append(tmp_path / "pipe.png")
    result = explain(*odd, good, tmp_path / "animated.gif", tmp_path / "deep.png", output=tmp_path / "out")
    assert result.exit_code == 1
    *lines, last = complaints(result)
    assert last == f"relume: {len(odd)} of {len(odd) + 3} photos could not be explained"
    for path, line in zip(odd, lines, strict=False):
        assert repr(str(path)) in line
    first, dark = lines[len(odd) :]
    assert first == f"relume: '{tmp_path}/animated.gif': the first of several pictures in it is taken"
    assert dark.startswith(f"relume: '{tmp_path}/deep.png': none of its 16-bit values is above 4095")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["animated", "deep", "good"]
    (facts,) = (tmp_path / "out" / "animated").glob("*/explanation.json")
    assert json.loads(facts.read_text())["photos"][0]["notes"] == ["the first of several pictures in it is taken"]


@pytest.mark.parametrize("option", ["--crop", "--resize"])
def test_a_size_that_no_memory_holds_is_refused_before_a_photo_is_read(scene, tmp_path, option):
    result = explain(scene("good.png"), option, "100000", output=tmp_path / "out")
    assert result.exit_code == 2
    (line,) = complaints(result)
    assert "makes pictures of 100000×100000 pixels, and a network's input has at most 64 million; give less" in line
