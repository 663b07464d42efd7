"""A calibration: what it says of a method, what it refuses, and its file."""

import dataclasses
import json

import numpy as np
import pytest

import relume
from relume.errors import InputError
from relume.explanation import Scores
from relume.measures import Estimate
from tests.helpers.networks import Small


@pytest.fixture
def calibration():
    return relume.Calibration.demo()


def test_the_demo_network_ships_with_its_own(calibration):
    calibration.check(relume.open_model("demo", "cpu").model)
    assert calibration.methods.keys() == relume.METHODS.keys()
    assert not calibration.few
    assert calibration["guided_gradcam"].mass.low > calibration["guided_backprop"].mass.high > calibration.chance
    assert calibration["uniform"].mass.mean == pytest.approx(calibration.chance)
    assert calibration.sentence("gradcam").startswith("On this network, in 25 mosaics of 100 drawn scenes, Grad-CAM put 0.9")
    with pytest.raises(InputError, match="has no method 'smooth_gradient'; it holds gradient, .*, sobel_edges, uniform"):
        calibration["smooth_gradient"]


@pytest.mark.parametrize(
    ("mass", "heaviest", "level"),
    [
        ((0.5, 0.4, 0.6), (0.95, 0.9, 1.0), "points at its object"),
        ((0.5, 0.4, 0.6), (0.95, 0.89, 1.0), "partly"),
        ((0.254, 0.252, 0.256), (0.3, 0.2, 0.4), "no better than edges"),
        ((0.26, 0.25, 0.27), (0.5, 0.4, 0.6), "no better than edges"),
        ((np.nan, np.nan, np.nan), (0.0, 0.0, 0.0), "no better than edges"),
    ],
)
def test_levels(calibration, mass, heaviest, level):
    scores = Scores("mine", Estimate(*mass, 25), Estimate(*heaviest, 25))
    assert dataclasses.replace(calibration, methods={"mine": scores}).level("mine") == level


def test_it_is_of_one_network(calibration):
    with pytest.raises(InputError, match="is of a network with other weights .*demo.* calibrate this one, or leave"):
        calibration.check(Small())
    with pytest.raises(InputError, match="a function has no weights"):
        calibration.check(lambda x: x)


def test_what_is_written_is_read(calibration, tmp_path):
    undefined = Scores("mine", Estimate(np.nan, np.nan, np.nan, 0), Estimate(0.0, 0.0, 0.0, 4), empty=16)
    written = dataclasses.replace(calibration, methods={"mine": undefined}, agreement=0.75, notes=("DiFull is left out.",))
    back = relume.Calibration.load(written.save(tmp_path))
    assert np.isnan(back["mine"].mass.mean)
    assert back.as_dict() == written.as_dict()
    data = json.loads((tmp_path / "calibration.json").read_text())
    assert data["format"] == 1
    assert data["methods"]["mine"]["mass"] == {"mean": None, "low": None, "high": None, "count": 0}
    (tmp_path / "calibration.json").write_text(json.dumps({**data, "format": 2}))
    with pytest.raises(InputError, match="written by another version of relume"):
        relume.Calibration.load(tmp_path)
    wrong = [{"more": 1}, {"methods": {"a": {}}}, {"baselines": {}}, {"grid": 0}, {"mosaics": "many"}]
    mass = {**data["methods"]["mine"], "mass": None}, {**data["methods"]["mine"], "mass": {"mean": "x"}}
    wrong += [{"methods": {"mine": scores}} for scores in mass]
    for broken in ("{}", "no", "[]", *(json.dumps({**data, **change}) for change in wrong)):
        (tmp_path / "calibration.json").write_text(broken)
        with pytest.raises(InputError, match="is no calibration"):
            relume.Calibration.load(tmp_path)
    with pytest.raises(InputError, match="cannot read '.*nowhere': No such file"):
        relume.Calibration.load(tmp_path / "nowhere")
