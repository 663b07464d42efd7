"""Which calibration the command takes: the one named, the one in the cache by fingerprint, the demo network's own, or none."""

import dataclasses
import json

import pytest

import relume
from relume.cli import calibrations
from relume.cli.calibrations import directory
from relume.demo import draw_scene
from relume.explanation.belief import UNCALIBRATED
from tests.helpers.commands import relume_command, sentence


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrations, "directory", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def scene(tmp_path):
    draw_scene(7, ["cat", "dog"]).picture.save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


@pytest.fixture
def explained(scene, tmp_path):
    def run(*args):
        result = relume_command("explain", scene, "--method", "gradcam", "--output", tmp_path / "out", *args)
        return " ".join(result.output.split()), result

    return run


def of_mosaics(count):
    return dataclasses.replace(relume.Calibration.demo(), mosaics=count)


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    for value, place in ((str(tmp_path), tmp_path), ("", tmp_path / "home" / ".cache"), ("here", tmp_path / "home" / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert directory() == place / "relume" / "calibrations"


def test_the_command_says_which_file_it_took_and_every_result_what_it_says(cache, explained, tmp_path):
    words, _ = explained()
    assert "On this network, in " in words  # the demo network's own
    path = calibrations.remember(of_mosaics(31))
    assert calibrations.cached(relume.Calibration.demo().fingerprint) == path / "calibration.json"
    words, result = explained()
    assert "in 31 mosaics of" in words
    assert f"calibration {path / 'calibration.json'}" in result.stderr
    named = of_mosaics(17).save(tmp_path / "named")
    words, _ = explained("--calibration", named)
    assert "in 17 mosaics of" in words
    words, _ = explained("--no-calibration")
    assert UNCALIBRATED.text in words
    assert "mosaics" not in words
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out").rglob("explanation.json"))
    assert record["samples"][0]["verdict"]["gradcam"]["level"] == "uncalibrated"


def test_compare_audit_and_run_say_it_too(cache, scene, tmp_path):
    calibrations.remember(of_mosaics(31))
    options = ("--method", "gradcam", "--output")
    relume_command("compare", scene, *options, tmp_path / "compared")
    assert "in 31 mosaics of" in (tmp_path / "compared" / "compare.html").read_text()
    relume_command("audit", scene, "--checks", "edges", *options, tmp_path / "audited")
    (audited,) = json.loads((tmp_path / "audited" / "audit.json").read_text())["audits"]
    assert "in 31 mosaics of" in audited["verdict"]["text"]
    assert audited["provenance"]["calibration"]["mosaics"] == 31
    relume_command("run", tmp_path / "*.png", *options, tmp_path / "run")
    run = relume.Run.load(tmp_path / "run")
    assert run.table(["gradcam_verdict"])["gradcam_verdict"].to_pylist() == [audited["verdict"]["level"]]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["configuration"]["request"]["options"]["calibration"]["mosaics"] == 31
    relume_command("run", tmp_path / "*.png", "--store", "facts", *options, tmp_path / "facts")
    for name in ("run", "facts"):  # read from its row, and explained anew
        assert relume.Run.load(tmp_path / name).explanation("scene.png").verdict("gradcam").text == audited["verdict"]["text"]


def test_a_damaged_file_in_the_cache_stops_nothing(cache, explained):
    (calibrations.remember(of_mosaics(31)) / "calibration.json").write_text("{")
    words, result = explained()
    assert result.exit_code == 0
    assert UNCALIBRATED.text in words
    assert "left out: '" in result.stderr
    assert "is no calibration" in " ".join(result.stderr.split())


def test_what_is_no_calibration_of_this_network_is_refused(cache, scene, explained, tmp_path):
    other = dataclasses.replace(relume.Calibration.demo(), fingerprint="0" * 64).save(tmp_path / "other")
    for args, says in (
        (("--calibration", other), "the calibration is of a network with other weights"),
        (("--calibration", tmp_path / "missing"), "write one by relume calibrate"),
        (("--calibration", other, "--no-calibration"), "give one of them"),
    ):
        _, result = explained(*args)
        assert says in sentence(result, 2)
