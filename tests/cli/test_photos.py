"""Folders as photos: what is found in them, in which order, and what is left out."""

import os
from pathlib import Path

import pytest
from PIL import Image

from relume.models.photos import find_photos
from tests.helpers.commands import complaints, relume_command

CHEAP = {
    "explain": ["--method", "gradient"],
    "compare": ["--method", "gradient"],
    "audit": ["--method", "gradient", "--checks", "edges"],
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree with a folder for each class, and everything that is no photo of it."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/10.png",
        "photos/2.PNG",
        "photos/cats/1.png",
        "photos/dogs/1.png",
        "photos/dogs/old/3.jpeg",
        "photos/.hidden.png",
        "photos/.cache/4.png",
        "photos/out/5.png",
        "elsewhere/6.png",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 30), 60).convert("RGB").save(name)
    for name in ("notes.txt", "weights.pth", "film.mpg", "drawing.eps", "table.h5", "paper.pdf"):
        Path("photos", name).write_text("no picture")
    Path("photos/loop").symlink_to(Path.cwd() / "photos")
    Path("photos/folder.png").mkdir()
    Path("nothing").mkdir()
    return Path("photos")


FOUND = ["photos/2.PNG", "photos/10.png", "photos/cats/1.png", "photos/dogs/1.png", "photos/dogs/old/3.jpeg"]


def test_what_is_found_in_a_folder(tree):
    assert [str(path) for path in find_photos([tree], Path("photos/out"))] == FOUND
    assert str(find_photos([tree], Path("out"))[-1]) == "photos/out/5.png"


def test_files_and_folders_mix_and_each_photo_is_once(tree):
    given = [Path("elsewhere/6.png"), Path("photos/10.png"), tree, Path("./elsewhere/../photos/2.PNG"), Path("missing.png")]
    found = [str(path) for path in find_photos([*given, *given], tree / "out")]
    assert found == ["elsewhere/6.png", "photos/10.png", "photos/2.PNG", *FOUND[2:], "missing.png"]


def test_what_looks_like_a_photo_in_a_folder_is_never_skipped_without_a_word(tree):
    """A link to nothing and a damaged file; not what is no file, or needs another program."""
    (tree / "cats" / "gone.png").symlink_to("nowhere.png")
    (tree / "cats" / "words.jpg").write_text("no picture")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tree / "cats" / "pipe.png")
    result = relume_command("explain", tree / "cats", *CHEAP["explain"], "--output", "maps")
    assert result.exit_code == 1
    assert complaints(result) == [
        "relume: there is no file 'photos/cats/gone.png'; check the path",
        "relume: 'photos/cats/words.jpg' is not a picture in a format that Pillow reads; convert it to PNG or JPEG",
        "relume: 2 of 3 photos could not be explained",
    ]


def test_a_folder_whose_files_cannot_be_looked_at_ends_in_lines(tree, monkeypatch):
    real = Path.stat

    def refused(self, **options):
        if self.name == "1.png" and "dogs" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", refused)
    assert [str(path) for path in find_photos([tree], tree / "out")] == FOUND


def test_folders_without_pictures_stay_to_fail(tree):
    assert find_photos([Path("nothing"), tree / "loop"], tree / "out")[0] == Path("nothing")


@pytest.mark.parametrize("command", CHEAP)
def test_every_command_takes_folders(tree, command):
    result = relume_command(command, tree, "nothing", "elsewhere/6.png", *CHEAP[command], "--output", "photos/out")
    assert result.exit_code == 1, result.output
    assert complaints(result) == [
        "relume: the folder 'nothing' holds no pictures that Pillow reads, and no recordings; name another, or the files",
        f"relume: 1 of 7 photos could not be {'audited' if command == 'audit' else 'explained'}",
    ]
    for path in (*FOUND, "elsewhere/6.png"):
        assert (Path(path).name if command == "audit" and "1.png" not in path else path) in result.stdout
    again = relume_command(command, tree, *CHEAP[command], "--output", "photos/out")
    assert again.exit_code == 0  # and what the first run wrote is no photo
    assert "photos/out/" not in again.stdout.partition("→")[0]


def test_a_folder_that_may_not_be_read_is_a_sentence(tree, monkeypatch):
    real = os.scandir

    def refused(path):
        if str(path).endswith("dogs"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    def listed(path):
        return iter([Path(entry.path) for entry in refused(path)])

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(Path, "iterdir", listed)
    assert [str(path) for path in find_photos([tree], tree / "out")] == [*FOUND[:3], "photos/dogs"]
    result = relume_command("explain", tree, *CHEAP["explain"], "--output", "photos/out")
    assert result.exit_code == 1
    assert complaints(result)[0] == (
        "relume: the folder 'photos/dogs' cannot be read: Permission denied; check its permissions"
    )
