"""The columns of rows: which there are, and the explanations made of them again."""

import dataclasses

import pytest
import torch

import relume
from relume.datasets.columns import explanation_of, maps_of, row_of, schema_of
from relume.datasets.request import RunRequest
from relume.demo import draw_scene
from relume.engine.coverage import Coverage
from relume.errors import InputError
from relume.explanation.belief import verdicts_of
from relume.measures import MEASURES
from tests.helpers.networks import small_of


def test_columns_follow_from_the_request():
    names = schema_of(RunRequest(methods=["gradcam", "gradient"], store="facts")).names
    assert "gradcam_map" in names  # it is small
    assert "gradient_scale" not in names
    more = schema_of(RunRequest(methods=["gradcam", "gradient"], store="saliency", masks=True)).names
    measures = {f"{key}_{name}" for key in ("gradcam", "gradient") for name in MEASURES}
    assert {*more} - {*names} == {"gradient_saliency", "gradient_scale", "gradient_shape"} | measures
    noise = relume.Method("gradient_local", relume.METHODS["gradient"].needs, relume.METHODS["gradient"].compute)
    with pytest.raises(InputError, match="'gradient_local_noise'"):
        schema_of(RunRequest(methods=["gradient", noise], masks=True))


@pytest.mark.parametrize("evidence", ["quick", "full", None])
def test_an_explanation_is_made_of_its_row_again(evidence):
    demo, photo = relume.open_model("demo", "cpu"), draw_scene(7, ["cat", "dog"]).picture
    e = demo.explain(photo, "cat", evidence=evidence)
    request = RunRequest(store="maps", exact=True, options={"evidence": evidence})
    known = {"model": e.model, "labels": e.labels}
    again = explanation_of(row_of(e, request), maps_of(schema_of(request)), known, demo.input_of(photo))
    assert all(torch.equal(again[key], e[key]) for key in e.maps)
    assert again.infos == e.infos
    assert (again.title(), again.top(), again.layer, again.reached) == (e.title(), e.top(), e.layer, e.reached)
    assert [again.remark(key) for key in e.maps] == [e.remark(key) for key in e.maps]
    assert again.evidence == e.evidence
    assert again.doubt("gradcam") == e.doubt("gradcam")
    assert again.picture("gradcam").tobytes() == e.picture("gradcam").tobytes()


@pytest.mark.parametrize("unguided", [0, 1])
def test_verdicts_are_those_of_the_explanation(unguided):
    calibration, request = relume.Calibration.demo(), RunRequest()
    e = relume.open_model("demo", "cpu").explain(draw_scene(7, ["cat", "dog"]).picture, "cat")
    coverage = Coverage.of(dict([(("rectifier", True, ""), 3), (("rectifier", False, "why"), 1)][: 1 + unguided]), {})
    belief = verdicts_of(request.methods, calibration, coverage, e.layer)
    e = dataclasses.replace(e, coverage=coverage, belief=belief)
    row, maps = row_of(e, request), maps_of(schema_of(request))
    again = explanation_of(row, maps, {"model": e.model}, None, calibration)
    assert [again.verdict(key) for key in e.maps] == [e.verdict(key) for key in e.maps]
    assert (e.verdict("guided_gradcam").level == "unguided") == bool(unguided)
    without = explanation_of(row, maps, {"model": e.model}, None)
    assert without.verdict("gradcam").text == "Points at its object, by the calibration that run.json names."


def test_a_signal_without_classes_has_a_row_too():
    network = small_of(1)
    e = relume.explain(network, torch.rand(1, 2, 40), lambda outputs: outputs[:, 0], ["gradient"])
    request = RunRequest(methods=["gradient"])
    row = row_of(e, request)
    assert row["target"] is row["class_name"] is None
    again = explanation_of(row, maps_of(schema_of(request)), {"model": "small"}, None)
    assert again["gradient"].shape == (1, 1, 40)
    assert again.infos["gradient"].note == "the saliency is kept, not the map"
    torch.testing.assert_close(again.saliency("gradient"), e.saliency("gradient"), rtol=0.05, atol=0)
    assert float(again.score) == float(e.score)
