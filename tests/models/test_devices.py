"""Where a network runs: found by a word, moved there whole, said by every command and recorded in results."""

import json

import pytest
import torch
from PIL import Image

import relume
from relume.errors import ModelError
from relume.models import devices
from relume.models.devices import find_device
from relume.models.sources import open_model
from tests.helpers.commands import relume_command
from tests.helpers.networks import Small

META = torch.device("meta")  # a device that every machine has, and on which nothing can be computed
SEEN = devices._devices  # in other tests every machine has a CPU alone


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that are not there."""
    monkeypatch.setattr(devices, "_devices", SEEN)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def neither(monkeypatch):
    monkeypatch.setattr(devices, "_devices", SEEN)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("word", "device"), [("auto", "cuda:0"), ("cpu", "cpu"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_where_there_are_gpus(word, device):
    assert find_device(word) == torch.device(device)


def test_without_a_gpu(neither, monkeypatch):
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device("auto") == find_device("mps") == torch.device("mps")
    assert find_device(torch.device("mps", 0)) == torch.device("mps", 0)
    assert find_device("mps:0") == torch.device("mps", 0)


@pytest.mark.parametrize("word", ["cuda", "cuda:0", "mps", torch.device("cuda", 1)])
def test_a_device_that_is_not_there_is_a_sentence(neither, word):
    with pytest.raises(ModelError, match=rf"there is no device '{word}' here: torch \S+ sees cpu; name one of"):
        open_model("demo", word)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("word", ["cuda:2", "cuda:7"])
def test_a_gpu_too_many_is_a_sentence(word):
    with pytest.raises(ModelError, match=rf"there is no device '{word}' here: torch \S+ sees cpu,.* cuda:1, cuda:0; name one"):
        find_device(word)


@pytest.mark.parametrize("word", ["gpu", "", "cuda:", "cuda:-1", "CUDA", "weights.pth"])
def test_a_word_that_is_no_device_is_a_sentence(word):
    with pytest.raises(ModelError, match=f"a device is auto, cpu, cuda, cuda:NUMBER or mps; got {word}, and torch "):
        open_model("demo", word)


def test_a_network_is_moved_whole(tmp_path):
    opened = open_model("demo", META)
    assert {tensor.device for tensor in (*opened.model.parameters(), *opened.model.buffers())} == {META}
    assert (opened.device, opened.provenance["device"]) == (META, "meta")
    torch.save(open_model("demo").model.state_dict(), tmp_path / "c.pth")
    assert open_model(tmp_path / "c.pth", META, arch="demo").device == META
    assert open_model("tests.helpers.networks:Small", META).device == META
    assert open_model("demo", "cpu").device == open_model("demo").device == torch.device("cpu")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_programs_are_moved_whole(tmp_path):
    x = torch.randn(1, 3, 24, 24)

    class Shifted(Small):
        """Its graph makes a tensor on the device that it was exported on."""

        def forward(self, x):
            return super().forward(x + torch.zeros(24, device="cpu"))

    torch.export.save(torch.export.export(Shifted().eval(), (x,)), tmp_path / "e.pt2")
    torch.jit.trace(Small().eval(), x).save(tmp_path / "s.pt")
    for name in ("e.pt2", "s.pt"):
        opened = open_model(str(tmp_path / name), META)
        assert {tensor.device for tensor in (*opened.model.parameters(), *opened.model.buffers())} == {META}
    exported = open_model(str(tmp_path / "e.pt2"), META).model
    assert exported(x.to(META)).device == META
    assert exported(x.to(META)).shape == (1, 5)
    assert relume.explain(open_model(str(tmp_path / "e.pt2"), "cpu").model, x, 2, ["gradient"])["gradient"].any()


def test_a_network_that_its_factory_put_somewhere_stays_there(monkeypatch):
    monkeypatch.setattr("tests.helpers.networks.placed", lambda: Small().to(META), raising=False)
    assert open_model("tests.helpers.networks:placed").device == META


def test_a_network_that_does_not_fit_is_a_sentence(monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(ModelError, match="demo does not fit into the memory of meta; give another device, such as cpu"):
        open_model("demo", META)


@pytest.mark.parametrize("options", [["--prepare"], ["--lean"], ["--dtype", "bfloat16"]])
def test_a_network_is_moved_before_it_is_prepared(monkeypatch, tmp_path, options):
    """So what is folded and packed is what the device computes with."""
    moved, prepared = [], []
    real = relume.models.Opened.prepared
    monkeypatch.setattr("relume.models.devices.move", lambda model, device, name: moved.append(device) or model)
    monkeypatch.setattr(
        relume.models.Opened, "prepared", lambda self, *a, **o: prepared.append(list(moved)) or real(self, *a, **o)
    )
    assert relume_command("check", "demo", "--device", "cpu", *options).exit_code == 0
    assert prepared == [["cpu"]]


COMMANDS = {
    "explain": ["explain", "p.png", "--method", "gradient"],
    "compare": ["compare", "p.png", "--method", "gradient"],
    "audit": ["audit", "p.png", "--method", "gradient", "--checks", "edges"],
    "check": ["check", "demo"],
    "demo": ["demo"],
    "evaluate": ["evaluate", "--scenes", "2", "--method", "gradient"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_where_it_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((60, 50), 60).convert("RGB").save("p.png")
    said = relume_command(*COMMANDS[name], "--device", "cpu").stderr.splitlines()
    first = 1 if name in ("explain", "compare", "audit") else 0  # after the line about the demo network
    assert said[first] == "demo on cpu"
    assert "there is no device 'cuda:99' here" in relume_command(*COMMANDS[name], "--device", "cuda:99").stderr


def test_the_device_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((60, 50), 60).convert("RGB").save("p.png")
    relume_command("explain", "p.png", "--method", "gradient", "--target", "cat")
    assert json.loads((tmp_path / "out" / "p" / "4-cat" / "explanation.json").read_text())["provenance"]["device"] == "cpu"
