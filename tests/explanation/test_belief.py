"""The verdict on a map: vetoes, what a calibration says of its method, and wherever a result says it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import relume
from relume.errors import InputError
from relume.explanation import Scores
from relume.explanation.belief import LEVELS, PREDICTION, UNCALIBRATED
from relume.measures import Estimate
from tests.helpers.networks import Small

HIGH = Scores("high", Estimate(0.86, 0.83, 0.88, 25), Estimate(0.97, 0.93, 1.0, 25))
LOW = Scores("low", Estimate(0.26, 0.24, 0.28, 25), Estimate(0.3, 0.2, 0.4, 25))
MIDDLE = Scores("middle", Estimate(0.5, 0.45, 0.55, 25), Estimate(0.91, 0.85, 0.95, 25))
EDGES = Scores("edges", Estimate(0.25, 0.24, 0.26, 25), Estimate(0.25, 0.2, 0.3, 25))


@dataclass
class Calibration:
    """As much of a calibration as a verdict reads."""

    methods: dict = field(default_factory=lambda: {"guided_gradcam": HIGH, "gradient": LOW, "guided_backprop": MIDDLE})
    baselines: dict = field(default_factory=lambda: {"sobel_edges": EDGES})
    fingerprint: str = "abc"
    layer: str | None = "body"
    mosaics: int = 25
    photos: int = 100
    grid: int = 2
    pictures: str = "of your photographs"

    def check(self, model):
        if not isinstance(model, Small):
            raise InputError("another network")


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


KEYS = ["guided_gradcam", "gradient", "guided_backprop", "gradcam"]
SENTENCE = (
    "On this network, in 25 mosaics of 100 of your photographs, Guided Grad-CAM put 0.86 [0.83, 0.88] of its map on the right "
    "one of four (chance 0.25; edges 0.25); the heaviest cell was right in 97 of 100. This speaks for the method on this "
    "network, not for this one map."
)


def test_each_method_has_its_level_and_its_figures(x):
    e = relume.explain(Small().eval(), x, [1, 4], KEYS, "body", calibration=Calibration())
    verdicts = {key: e.verdict(key, 1) for key in KEYS}
    assert [v.level for v in verdicts.values()] == ["points", "edges", "partly", "uncalibrated"]
    assert str(verdicts["guided_gradcam"]) == SENTENCE
    assert str(verdicts["gradcam"]) == "This method is not in the calibration of this network: relume calibrate PHOTOS."
    assert "against the method on this network: it is no better than edges" in verdicts["gradient"].text
    assert (
        e.beliefs[-1]
        == "Grad-CAM: not calibrated. This method is not in the calibration of this network: relume calibrate PHOTOS."
    )
    assert e.provenance["calibration"] == {"fingerprint": "abc", "layer": "body", "mosaics": 25, "photos": 100, "grid": 2}
    with pytest.raises(InputError, match="another network"):
        relume.explain(torch.nn.Sequential(Small().eval()), x, 1, KEYS, calibration=Calibration())


def test_a_calibration_is_of_its_layer_and_an_unknown_interval_counts_as_wide(x):
    net, one = Small().eval(), Estimate(0.9, np.nan, np.nan, 1)
    other = Calibration(methods={key: Scores(key, one, one) for key in KEYS}, mosaics=4, photos=16)
    e = relume.explain(net, x, 1, KEYS, "conv2", calibration=other)
    assert [e.verdict(key).level for key in KEYS] == ["uncalibrated", "edges", "edges", "uncalibrated"]
    assert e.verdict("gradcam").text == "Calibrated at layer body, not at conv2: relume calibrate PHOTOS --layer conv2."
    assert "in 4 mosaics (few) of 16 of your photographs" in e.verdict("gradient").text


def test_methods_with_one_verdict_are_all_named(x):
    e = relume.explain(
        Small().eval(), x, 1, ["hirescam", "gradcam"], "conv2", calibration=Calibration({"gradcam": HIGH, "hirescam": LOW})
    )
    says = "Calibrated at layer body, not at conv2: relume calibrate PHOTOS --layer conv2."
    assert e.beliefs == [f"HiResCAM, Grad-CAM: not calibrated. {says}"]


def test_a_wrapper_is_another_method_with_other_settings(x):
    few = Calibration({"competing_gradient": replace(HIGH, note="in competition with 4 classes", empty=3)})
    four, two = [relume.Competing("gradient", rivals=rivals) for rivals in (4, 2)]
    verdicts = [relume.explain(Small().eval(), x, 1, [m], calibration=few).verdict("competing_gradient") for m in (four, two)]
    assert [v.level for v in verdicts] == ["points", "uncalibrated"]
    assert "right in 97 of 100; 3 of 100 maps were empty. This" in verdicts[0].text
    assert "calibrated otherwise (in competition with 4 classes; here in competition with 2 classes)" in verdicts[1].text


def test_vetoes_come_first(x):
    net, calibration = Small().eval(), Calibration()
    flat = relume.Method("gradient", relume.METHODS["gradient"].needs, lambda g: torch.ones_like(g.images))
    e = relume.explain(net, x, 1, [flat], calibration=calibration)
    assert (e.verdict("gradient").level, e.verdict("gradient").text[:33]) == ("nothing", "The map is the same everywhere: i")
    gelu = Small()
    gelu.body[1] = torch.nn.GELU()
    e = relume.explain(gelu.eval(), x, 1, KEYS, "body", rectifiers="relu", calibration=calibration)
    assert [e.verdict(key).level for key in KEYS] == ["unguided", "edges", "unguided", "uncalibrated"]
    assert e.verdict("guided_backprop").text.startswith("1 of 4 rectifiers were not guided: ")


def test_every_form_of_a_result_says_it(x, tmp_path):
    net = Small().eval()
    for calibration, says in ((Calibration(), SENTENCE), (None, UNCALIBRATED.text)):
        options = {"activation": "softmax", "calibration": calibration}
        e = relume.explain(net, x[:1], 1, ["guided_gradcam"], "body", **options)
        assert says in str(e)
        assert PREDICTION in str(e).lower()
        assert says in " ".join(" ".join(text.get_text().split()) for text in e.figure().texts)
        assert says in e._repr_html_()
        back = relume.Explanation.load(e.save(tmp_path))
        assert (back.belief, back.beliefs, back.verdict("guided_gradcam")) == (e.belief, e.beliefs, e.verdict("guided_gradcam"))
        (sample,) = e.as_dict()["samples"]
        assert sample["verdict"]["guided_gradcam"] == {"level": e.verdict("guided_gradcam").level, "text": says}
        page = relume.compare(net, x[:1], [1, 4], ["guided_gradcam"], "body", **options).files()["compare.html"].decode()
        assert says in page
        assert (f"<small>{LEVELS['points']}</small>" in page) == (calibration is not None)
        report = relume.audit(net, x[:1], 1, "guided_gradcam", "body", checks=["edges"], **options)
        assert report.verdict.text == says
        assert PREDICTION in report.view().notes
