"""The commands on what ships in the package: demo, evaluate, and explain without --model."""

import json
import re
import shlex

import numpy as np
import pytest
import typer
from PIL import Image
from safetensors.torch import load_file

from relume.cli import app
from relume.demo import CLASSES, draw_scene
from relume.evaluation import COLUMNS
from relume.evaluation import run as evaluation_module
from relume.measures import Estimate
from tests.helpers.commands import relume_command, sentence

METHODS = ["gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam"]
TITLES = ["gradient", "deconvnet", "guided backpropagation", "Grad-CAM", "Guided Grad-CAM"]


# --- relume demo ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    result = relume_command("demo", "--output", folder)
    assert result.exit_code == 0, result.output
    return folder, result.stdout


def test_demo_explains_cat_and_dog_by_every_method(shown):
    folder, _ = shown
    assert {p.name for p in folder.iterdir()} == {"4-cat", "6-dog", "overview.png", "scene.png"}
    for target in ("4-cat", "6-dog"):
        maps = load_file(folder / target / "maps.safetensors")
        assert set(maps) == set(METHODS)
        assert all((folder / target / f"{m}.png").is_file() for m in METHODS)
    with Image.open(folder / "scene.png") as picture:
        assert picture.tobytes() == draw_scene(0, ["cat", "dog"]).picture.tobytes()
    with Image.open(folder / "overview.png") as overview:
        assert overview.width > 2 * overview.height  # two rows of six


def test_demo_says_scores_coverage_and_what_to_try_next(shown):
    folder, text = shown
    for name in ("cat", "dog"):
        score, probability = re.search(
            rf"^{name} +(-?\d+\.\d\d) +(\d+\.\d)% *$", text.replace("−", "-"), flags=re.MULTILINE
        ).groups()
        facts = json.loads((folder / ("4-cat" if name == "cat" else "6-dog") / "explanation.json").read_text())
        assert facts["samples"][0]["score"] == pytest.approx(float(score), abs=0.006)
        assert 100 / (1 + np.exp(-float(score))) == pytest.approx(float(probability), abs=0.2)
    assert "layer layer3 (the last with spatial axes before pooling" in text
    assert "13 relu guided" in text
    assert str(folder / "overview.png") in text
    for command in re.findall(r"^  relume (.*)$", text, flags=re.MULTILINE):
        name, *args = shlex.split(command)
        typer.main.get_command(app).commands[name].make_context(name, args)  # every option of it exists
    assert f"relume explain {folder / 'scene.png'} --target cat --method all" in text


def test_what_demo_says_to_try_next_works(shown, tmp_path):
    folder, _ = shown
    result = relume_command("explain", folder / "scene.png", "--target", "cat", "--method", "all", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "cat (4)" in result.stdout
    assert "explained: cat (4)" in result.stdout
    demo, *opened = result.stderr.splitlines()
    assert demo == (
        "no --model was given, so this is the demo network, which knows drawings of twelve things and nothing of photographs; "
        "for those, name another: --model torchvision:resnet50"
    )
    lines = ["demo on cpu", "calibration of the demo network, made from drawn scenes"]
    assert opened == lines
    one, other = (load_file(d / "4-cat" / "maps.safetensors") for d in (folder, tmp_path / "scene"))
    for key in METHODS:
        np.testing.assert_allclose(one[key], other[key], rtol=1e-4, atol=1e-6)
    named = relume_command("explain", folder / "scene.png", "--model", "demo", "--output", tmp_path)
    assert named.exit_code == 0
    assert named.stderr.splitlines() == lines


def test_another_seed_is_another_scene(tmp_path, shown):
    assert relume_command("demo", "--seed", "5", "--output", tmp_path).exit_code == 0
    assert (tmp_path / "scene.png").read_bytes() != (shown[0] / "scene.png").read_bytes()


def test_what_is_wrong_with_a_demo_is_said(tmp_path):
    assert "not below zero; got -1" in sentence(relume_command("demo", "--seed", "-1", "--output", tmp_path / "new"), 2)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert "is not a folder" in sentence(relume_command("demo", "--output", tmp_path / "file"), 2)


# --- relume evaluate -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    result = relume_command("evaluate", "--scenes", "10", "--method", ",".join(METHODS), "--output", folder)
    assert result.exit_code == 0, result.output
    return json.loads((folder / "evaluation.json").read_text()), result.stdout, folder


def test_evaluate_prints_and_writes_every_figure(measured):
    written, text, folder = measured
    assert {p.name for p in folder.iterdir()} == {"evaluation.json", "evaluation.md", "evaluation.png"}
    keys = ("model", "weights", "layer", "data", "seed")
    assert [written["provenance"][key] for key in keys] == ["demo", None, "layer3", "scenes:10", 0]
    assert written["samples"] == 10
    assert "Model demo; layer layer3; data scenes:10." in text
    rows = [*METHODS, "sobel_edges", "centred_gaussian", "uniform", "random", "blurred_target_mask"]
    titles = [*TITLES, "Sobel edges", "centred Gaussian", "uniform", "random", "blurred target mask"]
    assert list(written["measures"]) == rows
    assert written["titles"] == dict(zip(rows, titles, strict=True))
    for name in rows:
        assert written["measures"][name].keys() == COLUMNS.keys()
        printed = re.findall(rf"^{re.escape(written['titles'][name])}  +(.*?) *$", text, flags=re.MULTILINE)
        groups = dict.fromkeys(column.group for column in COLUMNS.values())
        expected = [[written["measures"][name][k] for k, column in COLUMNS.items() if column.group == g] for g in groups]
        assert [re.split("  +", line) for line in printed] == [
            ["–" if f["mean"] is None else Estimate(f["mean"], f["low"], f["high"], 2).brief() for f in row] for row in expected
        ]
    assert f"→ {folder}" in text
    assert max(len(line) for line in text.splitlines() if "→" not in line) <= 100


def test_evaluate_finds_what_the_literature_says(measured):
    """On a few scenes, what stands far apart: guided backpropagation is fine but blind to the class, Grad-CAM the reverse."""
    measures = measured[0]["measures"]

    def mean(name, column):
        return measures[name][column]["mean"]

    assert mean("guided_backprop", "class_correlation") > 0.6
    assert mean("gradcam", "class_correlation") < 0.3
    assert mean("guided_gradcam", "right_thing") > mean("guided_backprop", "right_thing") + 0.05
    assert mean("gradcam", "correlation_length") > 2 * mean("guided_backprop", "correlation_length")
    assert mean("guided_gradcam", "noise") < mean("guided_backprop", "noise") < mean("gradient", "noise")
    assert mean("guided_gradcam", "mass_accuracy") > 2 * mean("sobel_edges", "mass_accuracy")


def test_evaluate_takes_few_methods_and_a_layer_and_is_the_same_again(tmp_path):
    args = ("--scenes", "3", "--method", "gradcam", "--layer", "layer2", "--output", tmp_path)
    result = relume_command("evaluate", *args)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["provenance"]["layer"] == "layer2"
    assert "gradcam" in written["measures"]
    assert "gradient" not in written["measures"]
    assert relume_command("evaluate", *args).exit_code == 0
    assert json.loads((tmp_path / "evaluation.json").read_text()) == written


def test_evaluate_on_pictures_with_masks(tmp_path):
    scene = draw_scene(1, ["cat", "fish"])
    scene.picture.save(tmp_path / "one.png")
    lines = ["picture,mask,class"]
    for thing in scene.things:
        Image.fromarray(thing.mask).save(tmp_path / f"{thing.name}.png")
        lines.append(f"one.png,{thing.name}.png,{thing.name}")
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "masks.csv").write_text("\n".join(lines) + "\n")
    result = relume_command("evaluate", "--data", tmp_path)
    assert result.exit_code == 0, result.output
    assert "1 image, 2 classes explained" in result.stdout
    assert "Intervals from fewer than 10 images" in result.stdout
    (tmp_path / "masks.csv").write_text("\n".join([*lines, "broken.png,cat.png,cat"]) + "\n")
    result = relume_command("evaluate", "--data", tmp_path)
    assert result.exit_code == 1
    assert "1 image, 2 classes explained" in result.stdout
    assert "broken.png' is not a picture" in result.stderr
    assert "1 of 2 photos could not be used" in result.stderr
    (tmp_path / "masks.csv").write_text("picture,mask,class\nbroken.png,cat.png,cat\n")
    result = relume_command("evaluate", "--data", tmp_path)
    assert result.exit_code == 1
    assert "none of 1 photos could be used" in result.stderr


def test_what_is_wrong_with_an_evaluation_is_said(tmp_path):
    assert "masks.csv' cannot be read" in sentence(relume_command("evaluate", "--data", tmp_path), 2)
    assert "a seed of scenes is a number from 0 to 4293; got 5000" in sentence(relume_command("evaluate", "--seed", "5000"), 2)
    assert "give one of the two" in sentence(relume_command("evaluate", "--data", tmp_path, "--scenes", "5"), 2)
    (tmp_path / "labels.txt").write_text("\n".join(["header", *CLASSES]))
    few = relume_command("evaluate", "--scenes", "3", "--labels", tmp_path / "labels.txt")
    assert "13 labels were given for a network of 12 classes" in sentence(few, 2)
    assert "no method 'cam'" in sentence(relume_command("evaluate", "--method", "cam"), 2)
    assert "'layer9'" in sentence(relume_command("evaluate", "--layer", "layer9"), 2)
    (tmp_path / "file").touch()
    assert "is not a folder" in sentence(relume_command("evaluate", "--output", tmp_path / "file"), 2)


def test_an_interrupted_evaluation_says_so(tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation_module, "compare", interrupted)
    assert "stopped; nothing was written" in sentence(
        relume_command("evaluate", "--scenes", "3", "--output", tmp_path / "new"), 130
    )
    assert not (tmp_path / "new").exists()
