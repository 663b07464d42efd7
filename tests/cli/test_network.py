"""The options that open a network, on the command line: what is explained is what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relume
from relume.models.libraries import import_torchvision
from relume.models.sources import open_model
from relume.pictures.preprocessing import Preprocessing
from tests.helpers.commands import relume_command
from tests.helpers.networks import ResNet20

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(ROOT)  # where `tests` can be imported


@pytest.fixture
def _downloaded(monkeypatch):
    """Random weights in place of those that torchvision would download."""
    models = import_torchvision().models
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_a, **_k: models.vit_b_32(weights=None).state_dict())


@pytest.mark.parametrize("photo", ["airplane_0000", "automobile_0000"])
def test_a_checkpoint_and_its_architecture_on_the_command_line(realdata, tmp_path, photo):
    """The CIFAR network is right about these pictures only if weights, sizes, mean and std are."""
    path = realdata / "images" / "cifar10" / f"{photo}.jpg"
    weights = realdata / "weights" / "cifar_resnet20.safetensors"
    options = [
        "--model",
        weights,
        "--arch",
        "tests.helpers.networks:ResNet20",
        "--resize",
        "32",
        "--crop",
        "32",
        "--method",
        "gradient",
    ]
    result = relume_command("explain", path, *options, "--interpolation", "bicubic", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "tests.helpers.networks:ResNet20 was imported and run" in result.stderr.splitlines()
    (folder,) = (p for p in (tmp_path / photo).iterdir() if p.is_dir())
    facts = json.loads((folder / "explanation.json").read_text())
    assert facts["samples"][0]["target"] == (0 if photo.startswith("airplane") else 1)
    assert (facts["model"], facts["provenance"]["weights"]) == ("tests.helpers.networks:ResNet20", str(weights))
    assert facts["provenance"]["notes"][0] == "tests.helpers.networks:ResNet20 was imported and run"
    wanted = Preprocessing(resize=32, crop=32, interpolation="bicubic").as_dict()
    assert facts["provenance"]["preprocessing"] == json.loads(json.dumps(wanted))


def test_the_overrides_are_what_the_network_is_given(tmp_path):
    torch.save(ResNet20().state_dict(), tmp_path / "c.pth")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    options = ["--resize", "40,50", "--crop", "32", "--mean", "0.1,0.2,0.3", "--std", "1,2,3", "--interpolation", "nearest"]
    result = relume_command(
        "explain", tmp_path / "p.png", "--model", tmp_path / "c.pth", "--arch", "tests.helpers.networks:ResNet20", *options,
        "--method", "gradient", "--target", "4", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "out" / "p" / "4" / "explanation.json").read_text())
    wanted = Preprocessing((40, 50), 32, "nearest", (0.1, 0.2, 0.3), (1, 2, 3))
    opened = open_model(str(tmp_path / "c.pth"), arch="tests.helpers.networks:ResNet20")
    score = opened.model(relume.preprocess_image(tmp_path / "p.png", wanted)[None]).detach()[0, 4]
    assert facts["samples"][0]["score"] == pytest.approx(float(score), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--resize", "big"], "--resize takes whole numbers between commas; got 'big'"),
        (["--crop", "1,2,3"], "crop has 3 numbers, 1, 2, 3, and this has 2 axes; give one for each"),
        (["--crop", "0"], "crop is a number of pixels"),
        (["--mean", "0.5,0.5"], "mean and std are finite numbers, one for each channel"),
        (["--interpolation", "cubic"], "there is no interpolation 'cubic'"),
        (["--model-args", "{"], "--model-args is no JSON"),
        (["--model-args", "[1]"], "--model-args is a JSON object of names and values; got [1]"),
        (["--arch", "demo"], "an architecture is for a checkpoint, and 'demo' is none"),
    ],
)
@pytest.mark.parametrize("name", ["explain", "evaluate"])
def test_options_that_cannot_be_are_a_sentence(name, options, says, tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "p.png")
    result = relume_command(
        name, *([tmp_path / "p.png"] if name == "explain" else ["--scenes", "1"]), *options, "--output", tmp_path
    )
    assert result.exit_code == 2
    said = [line for line in result.stderr.splitlines() if line.startswith("relume: ")]
    assert len(said) == 1
    assert says in said[0]
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("_downloaded")
def test_a_size_that_the_network_does_not_take_is_a_sentence(tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "p.png")
    result = relume_command(
        "explain", tmp_path / "p.png", "--model", "torchvision:vit_b_32", *["--crop", "96"], "--output", tmp_path
    )
    assert result.exit_code == 2
    said = result.stderr.splitlines()[-1]
    assert said.startswith(
        f"relume: '{tmp_path}/p.png': the network failed: Wrong image height! Expected 224 but got 96! (raised by the network"
    )
    assert said.endswith("on an input of shape (1, 3, 96, 96)); --resize and --crop set that shape")


def test_evaluate_opens_as_explain_does(tmp_path):
    demo = open_model("demo")
    torch.save(
        {"state_dict_ema": {f"module.{key}": tensor for key, tensor in demo.model.state_dict().items()}}, tmp_path / "c.pth"
    )
    result = relume_command(
        "evaluate", "--scenes", "2", "--model", tmp_path / "c.pth", "--arch", "demo", "--resize", "120", "--crop", "120",
        "--method", "gradient", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    device, *notes = result.stderr.splitlines()
    assert (device, notes) == ("demo on cpu", ["used the EMA weights under 'state_dict_ema'", "removed the prefix 'module.'"])
    facts = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert facts["provenance"]["notes"] == notes
    assert facts["provenance"]["preprocessing"]["crop"] == 120


# --- Which part of what it returns ---------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


SIDES = ["--resize", "32", "--crop", "32"]


def test_every_command_takes_the_part_that_holds_the_scores(photo, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "masks.csv").write_text("picture,mask,class\nphoto.png,mask.png,3\n")
    options = ["--model", "tests.helpers.networks:Embedding", *SIDES]
    calls = {
        "explain": [photo, "--method", "gradient", "--output", tmp_path / "explained"],
        "compare": [photo, "--method", "gradient", "--output", tmp_path / "compared"],
        "audit": [photo, "--method", "gradient", "--checks", "edges,faithfulness", "--output", tmp_path / "audited"],
        "evaluate": ["--data", photo.parent, "--method", "gradient", "--output", tmp_path / "evaluated"],
    }
    for name, args in calls.items():
        refused = relume_command(name, *args, *options)
        assert (refused.exit_code, refused.stdout) == (2, ""), name
        assert "the network returned [0] (1, 10), [1] (1, 5), and [0] and [1] can each be the scores" in " ".join(
            refused.stderr.split()
        )
        assert "(--scores 0 or --scores 1 in the command)" in " ".join(refused.stderr.split())
    found = relume_command("explain", *calls["explain"], *options, "--scores", "1")
    assert found.exit_code == 0, found.output
    (facts,) = (tmp_path / "explained").rglob("explanation.json")
    assert len(relume.Explanation.load(facts.parent).scores[0]) == 5
    assert json.loads(facts.read_text())["provenance"]["output"] == "1"
    audited = relume_command("audit", *calls["audit"], *options, "--scores", "1")
    assert audited.exit_code == 0, audited.output
    assert json.loads((tmp_path / "audited" / "audit.json").read_text())["audits"][0]["pictures"][0]["class"] < 5
    for name in ("compare", "evaluate"):
        found = relume_command(name, *calls[name], *options, "--scores", "1")
        assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())["provenance"]["output"] == "1"


def test_the_doctor_takes_it_too(photo):
    found = relume_command("check", "tests.helpers.networks:Embedding", photo, *SIDES, "--json")
    assert all(
        "(--scores 0 or --scores 1 in the command)" in trouble for trouble in json.loads(found.stdout)["methods"].values()
    )
    found = relume_command("check", "tests.helpers.networks:Embedding", photo, *SIDES, "--scores", "1", "--json")
    assert set(json.loads(found.stdout)["methods"].values()) == {None}
    found = relume_command("check", "tests.helpers.networks:Embedding", photo, *SIDES, "--scores", "logits", "--json")
    troubles = json.loads(found.stdout)["methods"].values()
    assert all("no output 'logits', but a tuple of [0], [1]; name one of these" in trouble for trouble in troubles)


def test_the_doctor_says_why_a_layer_is_chosen(photo):
    shown = " ".join(relume_command("check", "tests.helpers.networks:UNet", photo, *SIDES).stdout.split())
    assert "layer decoder1 (the last with spatial axes before the network's own prediction, 5×32×32) others: head" in shown
    shown = " ".join(relume_command("check", "tests.helpers.networks:Small", photo, *SIDES).stdout.split())
    assert "layer body (the last with spatial axes before pooling) others: " in shown
