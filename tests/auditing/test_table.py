"""The table of checks: one added from outside the package is in everything that shows an audit."""

import json

import numpy as np
import pytest
import torch

import relume
from relume.auditing import CHECKS, Check, Limit, Measure, Strip, Tile, measures_of
from relume.auditing.checks.table import checks_of
from relume.auditing.drawing import heat
from relume.demo import draw_scene
from relume.errors import InputError
from relume.measures.similarity import Maps
from tests.helpers.commands import relume_command
from tests.helpers.networks import Small


def mirrored(subject):
    maps = subject.maps_of(images=subject.images.flip(-1))
    back = Maps(maps.raw[..., ::-1], maps.saliency[..., ::-1])
    return subject.maps.compare(back)["absolute"], back.saliency


def draw(result, _, i):
    return [Strip([Tile("mirrored back", f"similarity {result[0][i]:.2f}", heat(result[1][i]))], "its own")]


STEADY = Limit(0.9, "changes when the image is mirrored")
MEASURE = Measure("similarity when mirrored", "high", "The map is to mirror with the image.", lambda result: result[0], STEADY)
MIRROR = Check("The image mirrored", "A map is to mirror with the image.", mirrored, {"mirror": MEASURE}, draw)


@pytest.fixture
def _added():
    CHECKS["mirrored"] = MIRROR
    yield
    del CHECKS["mirrored"]


@pytest.mark.usefixtures("_added")
def test_a_check_from_outside_is_in_the_report_its_json_page_and_figure(tmp_path):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    report = relume.audit(Small().eval(), images, checks=["mirrored"])
    assert list(report.checks) == ["mirrored"]
    assert list(report.measures) == ["mirror"]
    assert np.isfinite(report.measures["mirror"]).all()
    assert "mirror  similarity when mirrored  ↑" in str(report)
    assert report.verdict.level == "unstable"
    assert "The map changes when the image is mirrored (similarity " in report.verdict.text
    report.save(tmp_path)
    (audit,) = json.loads((tmp_path / "audit.json").read_text())["audits"]
    assert audit["pictures"][0]["measures"]["mirror"] == pytest.approx(report.measures["mirror"][0])
    assert audit["limits"]["mirror"] == {"value": 0.9, "better": "high"}
    page = (tmp_path / "index.html").read_text()
    assert "The image mirrored" in page
    assert "mirrored back" in page
    words = [text.get_text() for text in report.figure().texts]
    assert {"The image mirrored", "mirrored back", "similarity when mirrored"} <= {*words}
    assert "mirror" in relume.audit(Small().eval(), images, method="gradient").measures  # all of them, and so it too
    assert "mirrored back" in report._repr_html_()


@pytest.mark.usefixtures("_added")
def test_a_check_from_outside_is_in_the_command(tmp_path):
    draw_scene(7, ["cat"]).picture.save(tmp_path / "scene.png")
    args = ["--method", "gradient", "--checks", "mirror", "--fail-if", "mirror<1.1", "--output", tmp_path / "out"]
    result = relume_command("audit", tmp_path / "scene.png", *args)
    assert result.exit_code == 3
    assert "similarity when mirrored" in result.stdout
    assert "mirror<1.1" in result.stderr


def test_a_name_is_that_of_a_check_or_of_its_measure():
    assert list(checks_of(["shift", "edges"])) == ["edges", "stability"]
    for key in measures_of():
        (check,) = checks_of([key])
        assert key in CHECKS[check].measures


def test_two_checks_have_no_measure_of_one_key():
    twice = Check("Twice", "", lambda _: None, {"edges": MEASURE})
    with pytest.raises(InputError, match="the check 'twice' has a measure 'edges', as another check has"):
        measures_of({"edges": CHECKS["edges"], "twice": twice})


def test_every_check_says_what_it_is():
    for key, check in CHECKS.items():
        assert check.title, key
        assert check.meaning.endswith("."), key
        assert check.citation, key
        for measure in check.measures.values():
            assert measure.meaning.endswith("."), key
