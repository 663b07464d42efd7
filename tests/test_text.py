"""What relume writes as text: every JSON has its format."""

import json

import relume
from relume.demo import draw_scene
from relume.evaluation import evaluate
from relume.models.tiled import explain_tiled
from tests.helpers.commands import relume_command


def test_every_json_has_its_format(tmp_path):
    demo, photo, methods = relume.open_model("demo", "cpu"), tmp_path / "photos" / "0.png", ["gradcam"]
    photo.parent.mkdir()
    draw_scene(0, ["cat"]).picture.save(photo)
    demo.explain(photo, methods=methods).save(tmp_path / "explained")
    relume.audit(demo.model, demo.input_of(photo)[1][None], method="gradcam", checks=["edges"]).save(tmp_path / "audited")
    evaluate(demo, "scenes:1", methods).save(tmp_path / "evaluated")
    explain_tiled(demo, photo, tmp_path / "tiled", methods=methods, tiles=(96, 16))
    demo.calibrate("scenes:16", methods=methods, mosaics=4, output=tmp_path / "calibrated")
    relume.run(demo, photo.parent, tmp_path / "run", methods=methods)
    documents = {path.name: path.read_text() for path in tmp_path.rglob("*.json")}
    documents["check"] = relume_command("check", "demo", "--json", "--device", "cpu").stdout
    kinds = ("explanation", "audit", "evaluation", "tiles", "calibration", "run")
    assert {*documents} == {"check", *(f"{kind}.json" for kind in kinds)}
    assert {name: json.loads(text)["format"] for name, text in documents.items()} == dict.fromkeys(documents, 1)
