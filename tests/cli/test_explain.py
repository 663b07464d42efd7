"""The command: what it writes, what it says, and one clear sentence for everything that is wrong."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file, save_file

import relume
from relume.cli import app
from relume.demo import draw_scene
from relume.explanation.belief import PREDICTION, UNCALIBRATED
from relume.models.labels import find_class, parse_targets, read_labels
from relume.models.libraries import import_torchvision
from relume.models.sources import open_model
from relume.pictures.photo import load_photo, load_picture
from relume.pictures.preprocessing import IMAGENET
from tests.helpers.commands import complaints, relume_command, sentence

SPEC = "torchvision:squeezenet1_1"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random weights of a real architecture, labels, and photos: good ones and all the bad ones."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(1)
    model = import_torchvision().models.squeezenet1_1(weights=None)
    save_file(model.state_dict(), folder / "weights.safetensors")
    torch.save(model.state_dict(), folder / "weights.pth")
    save_file(
        {k: v for k, v in model.state_dict().items() if "features.3" not in k} | {"odd.one": torch.zeros(2)},
        folder / "other.safetensors",
    )
    torch.save({"model": model}, folder / "pickled.pth")
    (folder / "damaged.pth").write_bytes((folder / "weights.pth").read_bytes()[:5000])
    (folder / "empty.pth").write_bytes(b"")
    torch.save({1: torch.zeros(2)}, folder / "numbered.pth")
    save_file({k: v.int() for k, v in model.state_dict().items()}, folder / "integers.safetensors")
    (folder / "damaged.safetensors").write_bytes(b"\x00" * 100)
    names = [f"thing {i}" for i in range(1000)]
    names[7:10] = ["tabby, tabby cat", "crane, bird", "crane, derrick"]
    (folder / "labels.txt").write_text("\n".join(names))
    (folder / "empty.txt").write_text("")
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for name in ("one.jpg", "two.png", "three.png"):
        picture.save(folder / name)
    (folder / "sub").mkdir()
    picture.save(folder / "sub" / "one.png")
    (folder / "bare").mkdir()
    (folder / "words.jpg").write_text("not a picture")
    (folder / "cut.jpg").write_bytes((folder / "one.jpg").read_bytes()[:2000])
    picture.resize((1, 1)).save(folder / "pixel.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    return folder


@pytest.fixture
def explain(files, tmp_path):
    def run(*args, model=SPEC, weights="weights.safetensors", output=tmp_path / "out"):
        options = ["--model", model, "--output", output]
        if weights:
            options += ["--weights", files / weights]
        return relume_command("explain", *args, *options)

    return run


def test_what_it_writes(explain, files, tmp_path):
    result = explain(
        files / "one.jpg", "--target", "3,tabby", "--method", "all", "--labels", files / "labels.txt", "--layer", "features.12"
    )
    assert result.exit_code == 0, result.output
    out = tmp_path / "out" / "one"
    assert sorted(p.name for p in out.iterdir()) == ["3-thing-3", "7-tabby", "overview.png"]
    opened = open_model("torchvision:squeezenet1_1", weights=files / "weights.safetensors")
    x = IMAGENET.tensor(IMAGENET.view(load_picture(files / "one.jpg")))[None]
    for folder, target in (("3-thing-3", 3), ("7-tabby", 7)):
        e = relume.explain(opened.model, x, target, list(relume.METHODS), "features.12")
        raw = load_file(out / folder / "maps.safetensors")
        assert raw.keys() == relume.METHODS.keys()
        assert all(torch.equal(raw[m], e[m]) for m in raw)
        facts = json.loads((out / folder / "explanation.json").read_text())
        assert facts["samples"][0]["target"] == target
        assert facts["samples"][0]["score"] == pytest.approx(float(e.score[0]))
        assert len(facts["samples"][0]["top"]) == 5
        assert (facts["layer"], facts["model"], facts["coverage"]["guided"]) == ("features.12", SPEC, 26)
        assert facts["provenance"]["file"] == str(files / "one.jpg")
        assert facts["provenance"]["preprocessing"]["crop"] == 224
        for method in relume.METHODS:
            with Image.open(out / folder / f"{method}.png") as picture:
                assert picture.size == (160, 120)  # the photo's own
        signed = np.asarray(Image.open(out / folder / "guided_backprop.png")).astype(int)
        expected = np.asarray(e.with_photos([files / "one.jpg"]).picture("guided_backprop")).astype(int)
        assert np.array_equal(signed, expected)


def test_what_it_says(explain, files, tmp_path):
    result = explain(files / "one.jpg", files / "two.png", "--labels", files / "labels.txt")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == str(files / "one.jpg")
    assert "%  thing" in lines[1]
    assert any(line.startswith("  explained: thing") for line in lines)
    assert f"  → {tmp_path / 'out' / 'two'}" in lines
    layer = "layer classifier.2 (the last with spatial axes before pooling; --layer names another)"
    assert lines[-4:] == [layer, "26 relu guided", UNCALIBRATED.text, f"{PREDICTION.capitalize()}."]


def test_many_photos_take_a_line_each(explain, files, tmp_path):
    photos = [files / n for n in ("one.jpg", "two.png", "three.png", "pixel.png", "deep.png")]
    lines = explain(*photos, "--method", "gradient").stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == [str(p) for p in photos]
    assert lines[0].endswith(f"→ {tmp_path / 'out' / 'one'}")
    assert lines[5:] == ["", "26 relu guided", UNCALIBRATED.text, f"{PREDICTION.capitalize()}."]


def test_no_target_explains_the_prediction_and_torch_checkpoints_load(explain, files, tmp_path):
    assert explain(files / "one.jpg", "--method", "gradient").exit_code == 0
    again = explain(files / "one.jpg", "--method", "gradient", weights="weights.pth", output=tmp_path / "again")
    assert again.exit_code == 0
    one, other = (sorted((tmp_path / o).rglob("maps.safetensors")) for o in ("out", "again"))
    assert one[0].read_bytes() == other[0].read_bytes()
    opened = open_model("torchvision:squeezenet1_1", weights=files / "weights.safetensors")
    predicted = int(opened.model(IMAGENET.tensor(IMAGENET.view(load_picture(files / "one.jpg")))[None]).argmax())
    assert one[0].parent.name.startswith(f"{predicted}-")


def test_photos_of_one_name_get_folders_of_their_own(explain, files, tmp_path):
    assert explain(files / "one.jpg", files / "sub" / "one.png", "--method", "gradient").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one", "one-2"]


@pytest.mark.parametrize("photo", ["pixel.png", "cmyk.jpg", "deep.png", "turned.jpg"])
def test_odd_photos_are_explained(explain, files, photo, tmp_path):
    result = explain(files / photo)
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "out").rglob("guided_gradcam.png"))


@pytest.mark.parametrize(
    ("photo", "says"),
    [
        ("missing.jpg", "there is no file"),
        ("bare", "the folder '.*bare' holds no pictures that Pillow reads"),
        ("words.jpg", "is not a picture in a format"),
        ("cut.jpg", "cannot be read: .*truncated"),
    ],
)
def test_a_bad_photo_fails_alone(explain, files, tmp_path, photo, says):
    result = explain(files / "one.jpg", files / photo, files / "two.png", "--method", "gradient")
    assert result.exit_code == 1
    lines = complaints(result)
    assert len(lines) == 2
    assert lines[0].startswith("relume: ")
    assert re.search(says, lines[0])
    assert lines[1] == "relume: 1 of 3 photos could not be explained"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one", "two"]
    assert "one.jpg" in result.stdout
    assert "two.png" in result.stdout


USAGE = {
    "class out of range": (["--target", "1000"], {}, "class 1000 is out of range: the network has 1000 classes, 0 to 999"),
    "no number": (["--target=--1"], {}, "the class name '--1' cannot|no class is called '--1'"),
    "negative class": (["--target=-1"], {}, "class -1 is out of range"),
    "unknown label": (["--target", "taby", "--labels", "LABELS"], {}, "no class is called 'taby'; did you mean 'tabby'"),
    "hopeless label": (["--target", "xqzw", "--labels", "LABELS"], {}, "no class is called 'xqzw'; give a class index"),
    "ambiguous label": (
        ["--target", "derrick,crane", "--labels", "LABELS"],
        {},
        r"several classes are called 'crane': 8 \(crane, bird\), 9",
    ),
    "empty target": (["--target", ","], {}, "names no class"),
    "unknown model": ([], {"model": "torchvision:resnet5"}, "or detector 'resnet5'; did you mean resnet50"),
    "unknown source": ([], {"model": "resnet50"}, "is of no known source; write demo, torchvision:NAME"),
    "unknown layer": (["--layer", "features.99"], {}, "no layer 'features.99'; candidates: features.9, features.8"),
    "flat layer": (["--layer", "classifier.3"], {}, r"layer 'classifier.3' returned shape \(1, 1000, 1, 1\), not a map"),
    "unknown method": (["--method", "gradcamm"], {}, "no method 'gradcamm'; did you mean 'gradcam'"),
    "other weights": (
        [],
        {"weights": "other.safetensors"},
        "6 missing .features.3.squeeze.weight.*1 not in the network .odd.one",
    ),
    "weights of another network": (
        [],
        {"model": "torchvision:resnet18"},
        "do not fit torchvision:resnet18: .*missing .conv1.weight",
    ),
    "weights of another shape": (
        [],
        {"model": "torchvision:squeezenet1_0"},
        r"of another shape \(features.0.weight \(64, 3, 3, 3\) for \(96, 3, 7, 7\)",
    ),
    "no weights": ([], {"weights": "nowhere.pth"}, "there is no weights file"),
    "pickled": ([], {"weights": "pickled.pth"}, "is not a checkpoint of plain tensors"),
    "damaged": ([], {"weights": "damaged.pth"}, "damaged.pth' cannot be read|is damaged"),
    "empty checkpoint": ([], {"weights": "empty.pth"}, "the weights file '.*empty.pth' is empty; it may have been cut short"),
    "a folder of weights": ([], {"weights": "sub"}, "the weights file '.*sub' is a folder; name a file in it"),
    "no spec": ([], {"model": ""}, "the model '' is of no known source; write demo"),
    "a folder as model": (
        [],
        {"model": "src", "weights": None},
        "the model 'src' is a folder; write hf:src if save_pretrained",
    ),
    "a folder of labels": (["--labels", "src"], {}, "the labels file 'src' is a folder; name a file in it"),
    "no device": (["--device", "gpu"], {}, "a device is auto, cpu, cuda, cuda:NUMBER or mps; got gpu, and torch .* sees cpu"),
    "another device": (
        ["--device", "cuda:99"],
        {},
        "there is no device 'cuda:99' here: torch .* sees cpu.*; name one of these",
    ),
    "text checkpoint": ([], {"weights": "labels.txt"}, "cannot be read|is not a checkpoint"),
    "numbered": ([], {"weights": "numbered.pth"}, "holds no named tensors"),
    "integers": ([], {"weights": "integers.safetensors"}, "52 with integers for floats .features.0.weight"),
    "damaged safetensors": ([], {"weights": "damaged.safetensors"}, "damaged.safetensors' cannot be read"),
    "no labels": (["--labels", "nowhere.txt"], {}, "there is no labels file 'nowhere.txt'; check the path"),
    "empty labels": (["--labels", "EMPTY"], {}, "the labels file '.*empty.txt' is empty"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors(explain, files, tmp_path, case):
    args, options, says = USAGE[case]
    args = [files / {"LABELS": "labels.txt", "EMPTY": "empty.txt"}[a] if a in ("LABELS", "EMPTY") else a for a in args]
    said = sentence(explain(files / "one.jpg", *args, **options), 2)
    assert re.search(says, said), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "classes"),
    [("7", [7]), ("7,7,9", [7, 9]), ("tabby", [7]), ("TABBY CAT", [7]), ("tabby, tabby cat", [7]), ("derrick, 3", [9, 3])],
)
def test_targets_by_index_and_by_name(text, classes):
    labels = [f"thing {i}" for i in range(7)] + ["tabby, tabby cat", "crane, bird", "crane, derrick"]
    assert parse_targets(text, labels) == classes


def test_a_whole_label_goes_before_a_synonym():
    assert find_class("crane", ["crane, bird", "crane"]) == 1


def test_a_word_suggests_the_classes_that_hold_it_before_those_that_look_alike():
    labels = ["bat", "catamaran", "Egyptian cat", "cart", "tiger cat, Felis tigris", "cattle", "lynx, catamount", "CAT-5 cable"]
    with pytest.raises(relume.errors.TargetError) as caught:
        find_class("Cat", labels)
    assert str(caught.value) == (
        "no class is called 'Cat'; did you mean 'tiger cat', 'CAT-5 cable', 'Egyptian cat', 'cattle' or 'catamaran'?"
    )
    with pytest.raises(relume.errors.TargetError, match=r"did you mean .lynx.\?$"):
        find_class("lynxx", labels)


def test_a_name_without_labels_is_refused():
    with pytest.raises(relume.errors.TargetError, match="cannot be looked up without labels"):
        parse_targets("tabby", None)


def test_an_unwritable_output(explain, files, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = sentence(explain(files / "one.jpg", output=tmp_path / "file" / "out"), 2)
    assert "is not a folder; name another" in said
    assert (tmp_path / "file").read_text() == "in the way"


def test_weights_that_cannot_be_downloaded(explain, files, monkeypatch):
    from urllib.error import URLError

    def offline(*_args, **_kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(files / "cache"))
    said = sentence(explain(files / "one.jpg", weights=None), 2)
    assert "could not be downloaded (Name or service not known); bring squeezenet1_1-b8a52dc0.pth" in said


def test_weights_that_are_not_finite(explain, files, tmp_path):
    state = load_file(files / "weights.safetensors")
    state["features.0.bias"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    said = sentence(explain(files / "one.jpg", weights=tmp_path / "nan.safetensors"), 2)
    assert "the weight 'features.0.bias' holds 1 NaN" in said


def test_results_stay_inside_the_output(explain, files, tmp_path):
    for name in ("...png", "..png", "..."):
        (files / "odd").mkdir(exist_ok=True)
        (files / "odd" / name).write_bytes((files / "two.png").read_bytes())
    photos = sorted((files / "odd").iterdir())
    assert explain(*photos, "--method", "gradient").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["photo", "photo-2", "photo-3"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_pictures_of_an_earlier_run_do_not_stay_beside_facts_that_are_not_theirs(explain, files, tmp_path):
    assert explain(files / "one.jpg", "--target", "3", "--method", "all").exit_code == 0
    (folder,) = (tmp_path / "out" / "one").glob("3*")
    (folder / "notes.txt").write_text("mine")
    assert explain(files / "one.jpg", "--target", "3", "--method", "gradcam", "--layer", "features.3").exit_code == 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "explanation.json",
        "gradcam.png",
        "maps.safetensors",
        "notes.txt",
        "photo.jpg",
        "tensors.safetensors",
    ]


def test_labels_must_be_one_for_each_class(explain, files, tmp_path):
    (tmp_path / "more.txt").write_text("background\n" + (files / "labels.txt").read_text())
    said = sentence(explain(files / "one.jpg", "--labels", tmp_path / "more.txt"), 2)
    assert "1001 labels were given for a network of 1000 classes" in said


def test_labels_with_a_mark_and_odd_characters(tmp_path):
    (tmp_path / "labels.txt").write_bytes("\ufefftench\r\nfish\u2028bowl\r\ncost $a$ $\\frac{$\r\n".encode())
    labels = read_labels(tmp_path / "labels.txt")
    assert [label.strip() for label in labels] == ["tench", "fish\u2028bowl", "cost $a$ $\\frac{$"]
    assert find_class("tench", labels) == 0


@pytest.mark.parametrize("label", ["cost $a$ $\\frac{$ 5", "虎猫", "x" * 400, "../../up", "//"])
def test_odd_labels_are_drawn_and_filed(explain, files, tmp_path, label):
    names = (files / "labels.txt").read_text().split("\n")
    names[3] = label
    (tmp_path / "odd.txt").write_text("\n".join(names), encoding="utf-8")
    result = explain(files / "one.jpg", "--target", "3", "--labels", tmp_path / "odd.txt", "--method", "gradient")
    assert (result.exit_code, complaints(result)) == (0, [])
    (folder,) = (p for p in (tmp_path / "out" / "one").iterdir() if p.is_dir())
    assert folder.name.startswith("3")
    assert json.loads((folder / "explanation.json").read_text())["samples"][0]["target_name"] == label


def test_an_output_that_fails_for_one_photo_fails_alone(explain, files, tmp_path):
    assert explain(files / "two.png", "--method", "gradient").exit_code == 0
    (tmp_path / "out" / "two" / "overview.png").unlink()
    (tmp_path / "out" / "two" / "overview.png").mkdir()
    result = explain(files / "one.jpg", files / "two.png", files / "three.png", "--method", "gradient")
    assert result.exit_code == 1
    assert "1 of 3 photos could not be explained" in result.stderr
    assert "'overview.png' there is a folder" in result.stderr
    assert (tmp_path / "out" / "three" / "overview.png").exists()


def test_options_are_checked_before_any_photo(explain, files):
    assert "no method 'zzz'" in sentence(explain("nope.jpg", "--method", "zzz"), 2)
    assert "no layer 'nolayer'" in sentence(explain("nope.jpg", "--layer", "nolayer", "--method", "gradient"), 2)
    assert explain(files / "one.jpg", "--method", "all,gradcam").exit_code == 0


def test_an_interrupted_run_says_how_far_it_came(explain, files, tmp_path, monkeypatch):
    def interrupted(path):
        if path.name == "two.png":
            raise KeyboardInterrupt
        return load_photo(path)

    monkeypatch.setattr("relume.pictures.formats.table.load_photo", interrupted)
    result = explain(files / "one.jpg", files / "two.png", "--method", "gradient", "--batch-size", "1")
    assert result.exit_code == 130
    assert "stopped after 1 of 2 photos" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["one"]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_weights_from_a_file_make_the_network_that_a_download_makes(tmp_path, name):
    model = import_torchvision().models.get_model(name, weights=None, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    assert open_model(f"torchvision:{name}", weights=tmp_path / "weights.pth").model.transform_input


def test_missing_options_are_usage():
    assert relume_command("explain").exit_code == 2
    assert "PHOTO" in relume_command("explain").stderr
    assert relume_command("nonsense").exit_code == 2


def test_help_has_examples_for_every_command():
    assert relume_command("--version").stdout == f"relume {relume.__version__}\n"
    assert "..." not in relume_command("--help").stdout.partition("Commands:")[2]  # each fits into its line
    for command in app.registered_commands:
        name = command.callback.__name__
        shown = relume_command(name, "--help").stdout
        assert "Examples:" in shown
        assert f"\n  relume {name} " in shown


def test_every_option_has_a_help_text_and_one_default():
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        context = typer.Context(command, info_name=name)
        for parameter in command.get_params(context):
            said = parameter.get_help_record(context)[1]
            assert parameter.help, (name, parameter.name)
            assert said.count("default: ") <= 1, said


def test_it_runs_as_a_module_and_help_loads_no_torch():
    code = """if True:
        import runpy, sys
        sys.argv = ["relume", "--help"]
        try:
            runpy.run_module("relume", run_name="__main__")
        except SystemExit:
            pass
        assert not {"torch", "matplotlib", "numpy"} & sys.modules.keys()
    """
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "explain" in shown.stdout


def test_methods_in_competition_are_those_of_the_library(tmp_path):
    draw_scene(7, ["cat", "dog"]).picture.save(tmp_path / "scene.png")
    args = ["explain", tmp_path / "scene.png", "--target", "cat", "--method", "guided_backprop", "--competing", "2"]
    result = relume_command(*args, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (folder,) = (path.parent for path in (tmp_path / "out").rglob("competing_guided_backprop.png"))
    back = relume.Explanation.load(folder)
    e = open_model("demo", "cpu").explain(tmp_path / "scene.png", "cat", [relume.Competing("guided_backprop", 2)])
    assert torch.equal(back["competing_guided_backprop"], e["competing_guided_backprop"])
    assert back.provenance["competing"] == {"rivals": 2}
    says = sentence(relume_command(*args, "--smooth", "2"), 2)
    assert "--smooth and --competing each make another map of every method; give one of them" in says
