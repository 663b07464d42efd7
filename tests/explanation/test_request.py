"""The options of an explanation: shown by name, refused by name."""

import inspect

import pytest
import torch
from torch import nn

import relume
from relume.errors import InputError, LayerError
from relume.explanation.request import Options, Request
from relume.explanation.storage import WRITERS

FUNCTIONS = {
    "explain": relume.explain,
    "compare": relume.compare,
    "attribute": relume.Gradient.attribute,
    "GradCAM": relume.GradCAM,
}
NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
X = torch.rand(2, 3, 2, 2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_is_in_the_signature_with_its_default(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    options = {p.name: p.default for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
    reading = ["wrt", "output", "rectifiers", "reshape", "batch_size"]
    assert list(options) == [*reading, "fuse", "evidence", "activation", "labels", "calibration"]
    assert set(options) == set(Options.__required_keys__ | Options.__optional_keys__)
    assert all(getattr(Request, key) == default for key, default in options.items())


def test_coverage_takes_the_options_that_matter_to_it():
    options = [p.name for p in inspect.signature(relume.coverage).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert options == ["wrt", "output", "rectifiers", "reshape", "batch_size"]
    with pytest.raises(TypeError, match=r"coverage\(\) got an unexpected keyword argument 'fuse'"):
        relume.coverage(NETWORK, X, fuse="mean")


def test_an_option_that_there_is_not_is_refused_as_python_does():
    with pytest.raises(TypeError, match=r"explain\(\) got an unexpected keyword argument 'chunk'"):
        relume.explain(NETWORK, X, chunk=2)
    with pytest.raises(TypeError, match=r"attribute\(\) got an unexpected keyword argument 'layer'"):
        relume.Gradient(NETWORK).attribute(X, layer="1")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"evidence": False}, InputError, "evidence is 'quick' or 'full' or None; got False"),
        ({"fuse": "sum"}, InputError, "fuse is 'mean' or 'max' or 'product'; got 'sum'"),
        ({"activation": "tanh"}, InputError, "activation is"),
        ({"layer": []}, LayerError, "no target layer is in an empty list"),
    ],
)
def test_options_that_mean_nothing(options, error, says):
    with pytest.raises(error, match=says):
        relume.explain(NETWORK, X, 1, ["gradcam"], **options)


def test_a_format_of_ones_own_is_saved_with_the_others(tmp_path):
    e = relume.explain(NETWORK, X, 1, ["gradient"])
    WRITERS["highest"] = lambda explanation, options: {
        "highest.csv": f"{options.size},{float(explanation['gradient'].max())}".encode()
    }
    try:
        folder = e.save(tmp_path / "out", size=50)
    finally:
        del WRITERS["highest"]
    assert (folder / "highest.csv").read_text() == f"50,{float(e['gradient'].max())}"
    assert torch.equal(relume.Explanation.load(folder)["gradient"], e["gradient"])
    (folder / "highest.csv").write_text("0")
    with pytest.raises(InputError, match=r"highest.csv in .* is not the file that was saved there"):
        relume.Explanation.load(folder)
    e.save(folder)
    assert not (folder / "highest.csv").exists()  # what an earlier save wrote goes
