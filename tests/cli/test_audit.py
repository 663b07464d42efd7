"""`relume audit`: its table, its files, its conditions and its errors."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import relume
from relume.auditing import CHECKS, measures_of
from relume.auditing.drawing import number
from relume.auditing.fail_if import Condition
from relume.demo import CLASSES, PREPROCESSING, draw_scene, load_network
from relume.errors import InputError
from tests.helpers.commands import complaints, relume_command, sentence
from tests.helpers.networks import small_of

CHEAP = ("--checks", "coverage,edges,classes,stability")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    file = tmp_path_factory.mktemp("scene") / "scene.png"
    draw_scene(7, ["cat", "dog"]).picture.save(file)
    return file


@pytest.fixture(scope="module")
def audited(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    methods = ["--method", "guided_backprop,gradcam"]
    result = relume_command("audit", scene, *CHEAP, *methods, "--target", "dog", "--output", folder)
    assert result.exit_code == 0, result.output
    return folder, result.stdout


def assert_said(folder, text, keys, target):
    """Assert that the table says the measures of these keys, and a verdict, for each method; return what the file says."""
    facts = json.loads((folder / "audit.json").read_text())
    assert [audit["method"] for audit in facts["audits"]] == ["guided_backprop", "gradcam"]
    words = " ".join(text.split())
    for audit in facts["audits"]:
        (picture,) = audit["pictures"]
        assert picture["class"] == target
        assert picture["measures"].keys() == keys
        assert picture["verdict"]["text"] in words
        for value in picture["measures"].values():
            assert number(value) in text
    return facts


def test_it_says_every_measure_of_every_check_unless_some_are_chosen(scene, tmp_path):
    small = ["--model", "tests.helpers.networks:small_of", "--model-args", json.dumps({"axes": 2, "channels": 3}), "--crop", 32]
    result = relume_command("audit", scene, *small, "--method", "guided_backprop,gradcam", "--target", 1, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert_said(tmp_path, result.stdout, measures_of().keys(), 1)
    assert (tmp_path / "index.html").read_text().count("<svg ") > 6


def test_it_says_the_measures_and_a_verdict_for_each_method(audited, scene):
    folder, text = audited
    keys = measures_of({key: CHECKS[key] for key in CHEAP[1].split(",")}).keys()
    facts = assert_said(folder, text, keys, CLASSES.index("dog"))
    assert re.search(r"^Grad-CAM  layer layer3$", text, flags=re.MULTILINE)
    assert text.count("13 rectifiers guided, 0 not") == 2
    assert f"→ {folder / 'index.html'}" in text
    assert facts["audits"][0]["provenance"]["file"] == str(scene)
    assert facts["network"]["preprocessing"] == json.loads(json.dumps(PREPROCESSING.as_dict()))
    assert (facts["fail_if"], facts["broken"]) == ([], [])


def test_its_measures_are_those_of_the_library(audited, scene):
    image = PREPROCESSING.tensor(PREPROCESSING.view(Image.open(scene)))[None]
    report = relume.audit(load_network(), image, CLASSES.index("dog"), "gradcam", checks=["classes"], activation="sigmoid")
    (picture,) = json.loads((audited[0] / "audit.json").read_text())["audits"][1]["pictures"]
    assert picture["measures"]["classes"] == pytest.approx(report.measures["classes"][0], abs=1e-6)


def test_it_writes_a_figure_and_a_page(audited):
    folder, _ = audited
    assert {p.name for p in folder.iterdir()} == {"audit.json", "audit.png", "index.html"}
    with Image.open(folder / "audit.png") as figure:
        assert figure.width == 1890
        assert np.asarray(figure.convert("L")).std() > 20
    page = (folder / "index.html").read_text()
    assert "<svg " in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


@pytest.mark.parametrize(("method", "code"), [("guided_backprop", 3), ("gradcam", 0)])
def test_a_pipeline_fails_where_a_condition_holds(scene, tmp_path, method, code):
    condition = ["--fail-if", "classes > 0.8", "--fail-if", "stability<0.1"]
    result = relume_command("audit", scene, *CHEAP, "--method", method, *condition, "--output", tmp_path)
    assert result.exit_code == code, result.output
    facts = json.loads((tmp_path / "audit.json").read_text())
    assert facts["fail_if"] == ["classes>0.8", "stability<0.1"]
    if code:
        value = facts["audits"][0]["pictures"][0]["measures"]["classes"]
        assert complaints(result) == [f"relume: {scene}, guided_backprop: classes is {value:.2f}: classes>0.8"]
    else:
        assert complaints(result) == []
    assert f"auditing scene.png: {method}" in result.stderr.splitlines()  # nobody sees a bar in a pipe
    assert len(facts["broken"]) == (code == 3)


def test_what_cannot_be_judged_has_not_passed(tmp_path):
    Image.new("RGB", (128, 128), "red").save(tmp_path / "red.png")
    result = relume_command(
        "audit",
        tmp_path / "red.png",
        "--checks",
        "edges",
        "--method",
        "gradient",
        "--fail-if",
        "edges>0.9",
        "--output",
        tmp_path,
    )
    assert result.exit_code == 3, result.output
    assert "red.png, gradient: edges is undefined, so that edges>0.9 could not be judged" in result.stderr
    assert json.loads((tmp_path / "audit.json").read_text())["audits"][0]["pictures"][0]["measures"]["edges"] is None


@pytest.mark.parametrize("size", [(40,), (5, 6, 7)])
def test_a_recording_is_audited_as_a_photo_is(tmp_path, size):
    """A signal and a volume: nothing is drawn but the network's input, since they are no pictures."""
    values = np.random.default_rng(0).random((2, *size), np.float32)
    np.save(tmp_path / "recording.npy", values)
    network = ["--model", "tests.helpers.networks:small_of", "--model-args", json.dumps({"axes": len(size)})]
    args = [*network, "--checks", "coverage,edges", "--method", "gradient", "--output", tmp_path / "out"]
    result = relume_command("audit", tmp_path / "recording.npy", *args)
    assert result.exit_code == 0, result.output
    report = relume.audit(small_of(len(size)), torch.from_numpy(values)[None], method="gradient", checks=["edges"])
    (picture,) = json.loads((tmp_path / "out" / "audit.json").read_text())["audits"][0]["pictures"]
    assert picture["measures"]["edges"] == pytest.approx(report.measures["edges"][0], abs=1e-6)
    assert result.stdout.count("Canny's edges are defined in two axes, and were left out") == 1
    assert (tmp_path / "out" / "index.html").read_text().count("<img ") == 1 + 3


def test_the_same_seed_gives_the_same_measures_and_another_others(scene, tmp_path):
    def measures(seed):
        args = ["--checks", "stability", "--method", "gradient", "--seed", seed, "--output", tmp_path]
        assert relume_command("audit", scene, *args).exit_code == 0
        return json.loads((tmp_path / "audit.json").read_text())["audits"][0]["pictures"][0]["measures"]

    assert measures(1) == measures(1) != measures(2)


def test_smoothed_maps_are_audited_as_the_library_audits_them(scene, tmp_path):
    args = ["--checks", "stability", "--method", "gradient", "--smooth", "2", "--batch-size", "4", "--output", tmp_path]
    result = relume_command("audit", scene, *args)
    assert result.exit_code == 0, result.output
    assert "SmoothGrad, gradient" in result.stdout
    (audit,) = json.loads((tmp_path / "audit.json").read_text())["audits"]
    image = PREPROCESSING.tensor(PREPROCESSING.view(Image.open(scene)))[None]
    report = relume.audit(load_network(), image, None, relume.Smooth("gradient", 2), checks=["stability"])
    assert audit["method"] == report.method == "smooth_gradient"
    assert audit["pictures"][0]["measures"]["shift"] == pytest.approx(report.measures["shift"][0], abs=1e-6)


def test_weights_can_be_shuffled(scene, tmp_path, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)  # where `tests` can be imported
    small = ["--model", "tests.helpers.networks:Small", "--crop", "32"]
    args = [*small, "--checks", "randomisation", "--method", "gradient", "--how", "shuffle", "--output", tmp_path]
    assert relume_command("audit", scene, *args).exit_code == 0
    (audit,) = json.loads((tmp_path / "audit.json").read_text())["audits"]
    assert (audit["provenance"]["how"], audit["checks"]["randomisation"]["how"]) == ("shuffle", "shuffle")


def test_a_photo_that_cannot_be_read_is_left_out(scene, tmp_path):
    (tmp_path / "words.jpg").write_text("words")
    args = ["--checks", "edges", "--method", "gradcam"]
    result = relume_command("audit", tmp_path / "words.jpg", scene, *args, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "words.jpg' is not a picture" in result.stderr
    assert "1 of 2 photos could not be audited" in result.stderr
    assert "scene.png" in (tmp_path / "out" / "index.html").read_text()
    both = relume_command("audit", tmp_path / "words.jpg", scene, *args, "--fail-if", "edges>-1", "--output", tmp_path / "out")
    assert both.exit_code == 3
    alone = relume_command("audit", tmp_path / "words.jpg", *args, "--output", tmp_path / "none")
    assert alone.exit_code == 1
    assert not (tmp_path / "none").exists()


WRONG = {
    "check": (["--checks", "edges,colour"], "--checks are some of coverage, classes,"),
    "no check": (["--checks", ","], "got none"),
    "figure": (["--fail-if", "edge>0.1"], "there is no measure 'edge' to set a condition for; choose from classes,"),
    "syntax": (["--fail-if", "edges=0.1"], "a condition is a measure, one of <, >, <= and >=, and a number"),
    "number": (["--fail-if", "edges>much"], "got 'edges>much'"),
    "not a number": (["--fail-if", "edges>nan"], "got 'edges>nan'"),
    "left out": (["--checks", "edges", "--fail-if", "road<0"], "--fail-if road<0 needs the check faithfulness"),
    "targets": (["--target", "cat,dog"], "an audit is about one class of each image, and --target was 'cat,dog'"),
    "target": (["--target", "dragon"], "dragon"),
    "method": (["--method", "lime"], "there is no method 'lime'"),
    "smooth": (["--smooth", "0"], "--smooth takes the number of noisy copies, from 1 on; got 0"),
    "how": (["--how", "noise", "--checks", "edges"], "weights are made random by 'reset' or 'shuffle'; got 'noise'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_done_is_said_and_nothing_written(scene, tmp_path, wrong):
    args, says = WRONG[wrong]
    assert says in sentence(relume_command("audit", scene, *args, "--output", tmp_path / "out"), 2)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_audit_leaves_nothing(scene, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("relume.auditing.run.run_checks", interrupted)
    assert "stopped; nothing was written" in sentence(relume_command("audit", scene, "--output", tmp_path / "out"), 130)
    assert not (tmp_path / "out").exists()


SIGNS = [("<", [True, False, False]), (">", [False, False, True]), ("<=", [True, True, False]), (">=", [False, True, True])]


@pytest.mark.parametrize(("sign", "holds"), SIGNS)
def test_conditions_compare(sign, holds):
    condition = Condition.parse(f" cascade {sign} -0.5")
    assert condition == Condition("cascade", sign, -0.5)
    assert [condition.broken({"cascade": value}) is not None for value in (-0.6, -0.5, -0.4)] == holds
    assert "could not be judged" in condition.broken({})


def test_a_condition_is_a_condition():
    for text in ("", "cascade", "cascade>", ">0.5", "cascade>0.5 edges<1", "cascade!=1", "0.5<cascade"):
        with pytest.raises(InputError, match=r"a condition is a measure|there is no measure"):
            Condition.parse(text)


def test_the_help_names_every_check():
    words = " ".join(relume_command("audit", "--help").stdout.split())
    assert all(re.search(rf"\b{key}\b", words) for key in CHECKS)
