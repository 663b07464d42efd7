"""Repeated patches that a network uses: those that were planted come first, and what cannot be searched is said."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import relume
from relume.datasets import of_dataset
from relume.datasets.shortcuts import find_suspects
from relume.demo import train
from relume.demo.planting import Planting
from tests.helpers.planted import LOGOS, PLACE, pictures, planted_run


def test_planted_logos_come_first(tmp_path):
    drawn, carried = pictures(303)
    run, opened, source = planted_run(tmp_path / "run", drawn)
    suspects = find_suspects(run, opened, source)
    same, anywhere = suspects.same_place[0], suspects.any_place[0]
    assert (same.class_name, same.where, same.flagged, same.rank) == ("red", "same place", True, 1)
    assert (anywhere.class_name, anywhere.where, anywhere.flagged) == ("green", "any place", False)
    assert (same.place[1], same.place[0]) == PLACE
    np.testing.assert_array_equal(same.patch[same.mask], LOGOS[0][: same.mask.shape[0], : same.mask.shape[1]][same.mask])
    for suspect, kind in ((same, 0), (anywhere, 1)):
        assert {int(id_) for id_ in suspect.found} == {i for i in np.flatnonzero(carried) if i % 3 == kind}
        assert suspect.rise == pytest.approx(suspect.p_after - suspect.p_before)
        assert suspect.rise > 0.5
        factors = suspect.rise, min(suspect.sameness / 100, 1), suspect.share_in - suspect.share_out
        assert suspect.strength == pytest.approx(np.prod(factors))
        for one in suspect.pasted:
            left, top, right, bottom = one.box
            changed = (one.before != one.after).any(-1)
            assert changed[top:bottom, left:right].sum() == changed.sum() > 0
    assert "A repeated patch that the network uses" in str(same)
    assert suspects.classes == ("red", "green", "blue")
    assert suspects.left_out == ()


def test_without_logos_nothing_is_flagged(tmp_path):
    drawn, _ = pictures(120, share=0.0)
    suspects = find_suspects(*planted_run(tmp_path / "run", drawn))
    assert not [one for one in suspects.same_place if one.flagged]
    assert suspects.left_out == ("patches at any place: there are fewer than 300 pictures",)


@pytest.mark.parametrize(
    ("count", "options", "reason"),
    [
        (30, {}, "no class has 20 pictures, so none was searched"),
        (24, {"target": 1}, "the run explains one class only, and patches are compared with pictures of others"),
        (6, {"methods": ["gradient"], "layer": None}, "the run has no map of a layer; run it with Grad-CAM"),
    ],
)
def test_a_run_that_cannot_be_searched_says_why(tmp_path, count, options, reason):
    run, opened, source = planted_run(tmp_path / "run", pictures(count)[0], **options)
    suspects = find_suspects(run, opened, source)
    assert len(suspects) == suspects.pictures == 0
    assert suspects.left_out[-1].startswith(reason)


def test_pictures_in_files_are_read_again_from_any_folder(tmp_path, monkeypatch):
    """A folder that was named from where the run was begun; its pictures have paths from the root on."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    drawn, _ = pictures(66)
    for i, picture in enumerate(drawn):
        Image.fromarray(picture).save(f"photos/{i}.png")
    _, opened, _ = planted_run(tmp_path / "other", drawn[:1])
    run = opened.run("photos", tmp_path / "run", methods=["gradcam"], layer="second", evidence=None, loaders=0)
    monkeypatch.chdir("/")
    assert find_suspects(run, opened).pictures == 66


def test_a_network_or_pictures_that_are_not_there_are_said(tmp_path):
    run, opened, source = planted_run(tmp_path / "run", pictures(66)[0])
    assert find_suspects(run).left_out[-1].startswith("the network cannot be opened again: ")
    assert find_suspects(run, opened).left_out[-1].startswith("the pictures cannot be read again: ")
    gone = of_dataset([None] * 66, "drawn")
    assert find_suspects(run, opened, gone).left_out == (
        "66 pictures, which could not be read again as they were",
        "no class has 20 pictures, so none was searched",
    )
    unknown = dataclasses.replace(opened, activation="none")
    assert find_suspects(run, unknown, source).left_out[-1].startswith("the network's scores are no probabilities")


@pytest.mark.slow
def test_the_shortcut_of_the_demo_world_is_first(tmp_path):
    for name, content in train.shortcut_files(0, lambda _step, _loss: None).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    opened = relume.open_model("demo", "cpu", weights=tmp_path / "scenes.safetensors")
    run = relume.run(opened, f"tree:{tmp_path / 'scenes'}", tmp_path / "run", methods=["gradcam"])
    first = find_suspects(run).same_place[0]
    assert first.class_index == Planting.drawn(0, 0.5).label
    assert first.flagged
    assert np.mean(["-logo" in id_ for id_ in first.found]) > 0.8
