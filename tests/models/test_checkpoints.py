"""Checkpoints as training scripts save them: what is understood, what is said, and what is refused."""

import argparse
import builtins
from pathlib import Path

import pytest
import torch

from relume.errors import ModelError
from relume.models.checkpoints import read_checkpoint
from relume.models.sources import open_model
from tests.helpers.networks import Small

SMALL = "tests.helpers.networks:Small"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.chdir(ROOT)  # where `tests` can be imported


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(3)
    return Small().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 24, 24)


def same(model, other, images):
    return torch.equal(model(images), other(images))


def prefixed(prefix, state):
    return {prefix + key: tensor for key, tensor in state.items()}


WRAPPED = {
    "bare": (lambda s, _: s, ()),
    "state_dict": (lambda s, _: {"state_dict": s, "epoch": 3}, ("read the weights under 'state_dict'",)),
    "model": (lambda s, _: {"model": s, "optimizer": {"state": {}}}, ("read the weights under 'model'",)),
    "model_state_dict": (lambda s, _: {"model_state_dict": s}, ("read the weights under 'model_state_dict'",)),
    "twice": (
        lambda s, _: {"model": {"state_dict": s}},
        ("read the weights under 'model'", "read the weights under 'state_dict'"),
    ),
    "arguments": (
        lambda s, _: {"state_dict": s, "args": argparse.Namespace(lr=0.1)},
        ("read the weights under 'state_dict'",),
    ),
    "parallel": (lambda s, _: prefixed("module.", s), ("removed the prefix 'module.'",)),
    "compiled": (lambda s, _: prefixed("_orig_mod.", s), ("removed the prefix '_orig_mod.'",)),
    "both": (lambda s, _: prefixed("module._orig_mod.", s), ("removed the prefix 'module._orig_mod.'",)),
    "lightning": (
        lambda s, _: {"state_dict": prefixed("model.", s), "epoch": 1},
        ("read the weights under 'state_dict'", "removed the prefix 'model.'"),
    ),
    "ema": (
        lambda s, other: {"state_dict": other, "state_dict_ema": s},
        ("used the EMA weights under 'state_dict_ema', and not those under 'state_dict'",),
    ),
    "only ema": (lambda s, _: {"ema": s}, ("used the EMA weights under 'ema'",)),
    "no ema yet": (lambda s, _: {"model": s, "model_ema": None}, ("read the weights under 'model'",)),
    "averaged": (
        lambda s, other: {"model": other, "model_ema": {"n_averaged": torch.tensor(7), **prefixed("module.", s)}},
        ("used the EMA weights under 'model_ema', and not those under 'model'", "removed the prefix 'module.'"),
    ),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_how_training_scripts_save_is_understood_and_said(case, small, images, tmp_path):
    wrap, notes = WRAPPED[case]
    other = {key: torch.zeros_like(tensor) for key, tensor in small.state_dict().items()}
    torch.save(wrap(small.state_dict(), other), tmp_path / "c.pth")
    for opened in (open_model(str(tmp_path / "c.pth"), arch=SMALL), open_model(SMALL, weights=tmp_path / "c.pth")):
        assert same(opened.model, small, images)
        assert not opened.model.training
        assert opened.notes[2:] == notes
        assert (opened.name, opened.weights) == (SMALL, tmp_path / "c.pth")


def test_torchs_own_average_is_understood(small, images, tmp_path):
    torch.save(torch.optim.swa_utils.AveragedModel(small).state_dict(), tmp_path / "averaged.pth")
    opened = open_model(str(tmp_path / "averaged.pth"), arch=SMALL)
    assert same(opened.model, small, images)
    assert opened.notes[2:] == ("removed the prefix 'module.'",)


def test_a_prefix_stays_unless_the_rest_fits(small, tmp_path):
    state = prefixed("module.", small.state_dict())
    torch.save({key: tensor for key, tensor in state.items() if "conv1" not in key}, tmp_path / "less.pth")
    with pytest.raises(ModelError, match=r"do not fit tests.helpers.networks:Small: .*not in the network \(module.bn1.weight"):
        open_model(SMALL, weights=tmp_path / "less.pth")
    torch.save({**state, "criterion.weight": torch.ones(2)}, tmp_path / "more.pth")
    with pytest.raises(ModelError, match=r"not in the network \(module.conv1.weight"):
        open_model(SMALL, weights=tmp_path / "more.pth")
    torch.save(prefixed("module.", Small(classes=6).state_dict()), tmp_path / "six.pth")
    with pytest.raises(ModelError, match=r"of another shape \(head.3.weight \(6, 12\) for \(5, 12\)"):
        open_model(SMALL, weights=tmp_path / "six.pth")
    assert open_model(SMALL, weights=tmp_path / "six.pth", model_args={"classes": 6}).model(torch.zeros(1, 3, 9, 9)).shape == (
        1,
        6,
    )


class Trap:
    def __reduce__(self):
        return builtins.exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [Trap(), {"state_dict": {}, "x": Trap()}, {"args": argparse.Namespace(x=Trap())}])
def test_nothing_in_a_checkpoint_is_executed(content, tmp_path):
    torch.save(content, tmp_path / "trap.pth")
    with pytest.raises(ModelError, match="is not a checkpoint of plain tensors, or is damaged"):
        read_checkpoint(tmp_path / "trap.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, {"state_dict": {"a": 1}}, {"state_dict": {}}, [torch.ones(2)]])
def test_a_checkpoint_without_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="holds no named tensors, neither at its top level nor under 'state_dict', "):
        read_checkpoint(tmp_path / "c.pth")


def test_a_checkpoint_of_the_demo_network(tmp_path, images):
    demo = open_model("demo")
    torch.save({"model": demo.model.state_dict()}, tmp_path / "c.pth")
    opened = open_model(str(tmp_path / "c.pth"), arch="demo")
    assert same(opened.model, demo.model, images)
    assert (opened.labels, opened.activation) == (demo.labels, "sigmoid")
    assert opened.notes == ("read the weights under 'model'",)
