"""relume check, and what else relume explain can be asked: contrasts, units, the letter of the papers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import relume
from relume.checkup import check
from relume.demo import CLASSES, PREPROCESSING, draw_scene, load_network
from relume.targets import Contrast, Neuron
from tests.helpers.commands import relume_command, sentence


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    draw_scene(0, ["cat", "dog"]).picture.save(path)
    return path


# --- relume check --------------------------------------------------------------------------------------------------------


def test_check_says_what_works(scene):
    result = relume_command("check", "demo", scene)
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines() if line[:1] != " "}
    assert lines["network"].startswith("demo: DemoNet, 477,660 parameters, float32 on cpu")
    assert lines["rectifiers"] == "13 relu guided"
    assert lines["layer"] == "layer3 (the last with spatial axes before pooling)"
    assert "others: layer2, layer1, stem" in result.stdout
    assert lines["labels"].startswith("12: bird, boat, butterfly")
    assert lines["cost"].startswith("1 forward and 3 backward passes; ")
    assert result.stdout.count("✓") == len(relume.METHODS)


def test_check_as_json():
    facts = json.loads(relume_command("check", "demo", "--json", "--layer", "layer2").stdout)
    assert (facts["model"], facts["layer"], facts["labels"]) == ("demo", "layer2", list(CLASSES))
    assert facts["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert facts["methods"] == dict.fromkeys(relume.METHODS)
    assert facts["coverage"]["guided"] == 13
    assert (facts["forward_passes"], facts["backward_passes"]) == (1, 3)


def test_check_says_what_does_not_work_and_why():
    class Smooth(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.conv(x).tanh().mean((2, 3)))

    found = check(Smooth(), torch.randn(1, 3, 8, 8))
    assert found.troubles.keys() == {"deconvnet"} | {key for key in relume.METHODS if key.startswith("guided_")}
    assert all("no rectifier ran" in why for why in found.troubles.values())
    assert (found.layer, found.backward_passes, found.training) == ("conv", 1, True)
    assert found.outputs == "(1, 2)"


NETWORKS = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, returned):
        super().__init__()
        self.conv, self.fc, self.returned = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), returned
    def forward(self, x):
        return self.returned(self.fc(self.conv(x).relu().mean((2, 3))))
def two():
    return Net(lambda y: (y, 2 * y))
def flat():
    return Net(lambda y: y[:, 0])
def words():
    return Net(lambda y: "cat")
"""


@pytest.mark.parametrize(
    ("name", "returns", "activation", "targets"),
    [
        ("two", "[0] (1, 2), [1] (1, 2)", *["not known until --scores names the scores"] * 2),
        ("words", "a str", "not known: no class scores are seen in what it returns", "a callable: no other target fits"),
    ],
)
def test_check_of_a_network_whose_scores_are_not_known(scene, tmp_path, monkeypatch, name, returns, activation, targets):
    (tmp_path / "nets_without_scores.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = relume_command("check", f"nets_without_scores:{name}", scene)
    assert result.exit_code == 1, result.output
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines() if line[:1] != " "}
    assert (lines["returns"], lines["activation"], lines["targets"]) == (returns, activation, targets)
    assert lines["network"].startswith(f"nets_without_scores:{name}: Net")  # and no picture in place of :two:
    assert "cost" not in lines
    assert result.stdout.count("✗") == 1
    assert f"✗ {', '.join(relume.METHODS)}: " in " ".join(result.stdout.split())
    assert relume_command("check", f"nets_without_scores:{name}", scene, "--json").exit_code == 1


def test_check_adds_up_what_the_graph_keeps():
    """One ReLU of a thousand floats keeps its result, and nothing else of this network keeps anything but weights."""
    found = check(nn.Sequential(nn.Flatten(), nn.ReLU()), torch.randn(1, 1, 10, 100))
    assert found.kept_bytes == 4000


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_form_is_told():
    net, x = load_network(), torch.randn(1, 3, 128, 128)
    assert check(net, x).form == "DemoNet"
    assert check(nn.DataParallel(net), x).form == "DemoNet, inside DataParallel"
    traced = check(torch.jit.trace(net, x), x)
    assert traced.form == "TorchScript of DemoNet"
    assert "TorchScript" in traced.troubles["gradcam"]
    assert check(torch.fx.symbolic_trace(net), x).form.endswith("graph of operations")


def test_check_of_what_cannot_be_opened(tmp_path):
    assert "no known source" in sentence(relume_command("check", "nonsense"), 2)
    assert "no file" in sentence(relume_command("check", "demo", tmp_path / "missing.png"), 2)
    assert "no layer 'layer9'" in sentence(relume_command("check", "demo", "--layer", "layer9"), 2)


# --- relume explain ------------------------------------------------------------------------------------------------------


def image():
    return PREPROCESSING.tensor(draw_scene(0, ["cat", "dog"]).picture)[None]


def test_versus_explains_the_difference(scene, tmp_path):
    result = relume_command("explain", scene, "--target", "cat", "--versus", "dog", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "cat (4) rather than dog (6), score " in result.stdout
    expected = relume.explain(load_network(), image(), Contrast(4, 6), ["guided_backprop"])["guided_backprop"]
    maps = load_file(tmp_path / "scene" / "4-cat-not-6-dog" / "maps.safetensors")
    torch.testing.assert_close(maps["guided_backprop"], expected)
    facts = json.loads((tmp_path / "scene" / "4-cat-not-6-dog" / "explanation.json").read_text())
    assert (facts["samples"][0]["target"], facts["samples"][0]["versus"]) == (4, 6)


def test_neurons_are_explained(scene, tmp_path):
    args = ("--neuron", "layer2:5", "--neuron", "layer3:7:3,4", "--output", tmp_path)
    assert relume_command("explain", scene, *args).exit_code == 0
    folders = {p.name for p in (tmp_path / "scene").iterdir() if p.is_dir()}
    assert folders == {"layer2-channel-5-where-it-is-highest", "layer3-channel-7-at-3-4"}
    maps = load_file(tmp_path / "scene" / "layer3-channel-7-at-3-4" / "maps.safetensors")
    assert maps.keys() == {"gradient", "guided_backprop"}
    expected = relume.explain(load_network(), image(), Neuron("layer3", 7, (3, 4)), ["gradient"])["gradient"]
    torch.testing.assert_close(maps["gradient"], expected)
    assert relume_command("explain", scene, "--target", "cat", *args).exit_code == 0
    assert (tmp_path / "scene" / "4-cat").is_dir()


def test_rectifiers_relu(scene, tmp_path):
    assert relume_command("explain", scene, "--rectifiers", "relu", "--output", tmp_path).exit_code == 0
    facts = json.loads(next(tmp_path.rglob("explanation.json")).read_text())
    assert facts["provenance"]["rectifiers"] == "relu"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--neuron", "layer2:x"], "--neuron is LAYER:CHANNEL or LAYER:CHANNEL:Y,X, such as layer4:7:3,5; got 'layer2:x'"),
        (["--neuron", "layer2:999"], "layer 'layer2' has 64 channels, 0 to 63; there is no 999"),
        (["--neuron", "layer9:1"], "no layer 'layer9'"),
        (["--neuron", "layer2:1:99,0"], "is no place in it"),
        (["--versus", "cat,dog"], "--versus takes one class; got 'cat,dog'"),
        (["--versus", "unicorn"], "no class is called 'unicorn'"),
        (["--rectifiers", "gelu"], "rectifiers is 'all' or 'relu'; got 'gelu'"),
        (["--evidence", "all"], "--evidence is quick, full, none; got 'all'"),
    ],
)
def test_questions_that_cannot_be_asked(scene, tmp_path, args, says):
    assert says in sentence(relume_command("explain", scene, "--output", tmp_path / "new", *args), 2)
    assert not (tmp_path / "new").exists()
