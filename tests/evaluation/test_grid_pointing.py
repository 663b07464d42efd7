"""The grid pointing game: a network whose truth is exact, what is refused, going on, and real photographs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relume
from relume.errors import InputError, OutputError
from relume.evaluation import Disconnected, Game, Mosaic, Wall, open_samples
from relume.evaluation.mosaics import Prediction, arranged, pairs
from relume.evaluation.unfinished import FILE
from relume.methods.wrapper import resolve_methods
from relume.models import Opened
from relume.pictures.preprocessing import Preprocessing

#: How strongly each channel of :class:`Colours` answers to red, green and blue.
WEIGHTS = torch.tensor([[1.0, -0.2, -0.2], [-0.2, 1.0, -0.2], [-0.2, -0.2, 1.0], [0.5, 0.5, -0.9], [0.3, -0.9, 0.8]])
COLOURS = [(220, 40, 30), (40, 210, 20), (30, 50, 230), (230, 230, 10), (200, 0, 250)]
AS_IT_IS = Preprocessing(16, 16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Colours(nn.Module):
    """A class for each colour: one convolution of single pixels, and the mean of each of its channels."""

    def __init__(self, sure=30.0):
        super().__init__()
        self.conv, self.relu, self.sure = nn.Conv2d(3, len(WEIGHTS), 1, bias=False), nn.ReLU(), sure
        self.conv.weight.data = WEIGHTS[:, :, None, None].clone()

    def forward(self, x):
        return self.sure * self.relu(self.conv(x)).mean((2, 3))


class Fixed(Colours):
    """Takes 16 × 16 pixels alone."""

    def forward(self, x):
        assert x.shape[2:] == (16, 16), "one size"
        return super().forward(x)


def pictures(count=16, seed=0):
    rng = np.random.default_rng(seed)
    noisy = [np.array(COLOURS[i % 5]) + rng.integers(-20, 20, (16, 16, 3)) for i in range(count)]
    return [Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)) for values in noisy]


def answers_of(photo):
    """The answer of each channel to each pixel."""
    return np.maximum(WEIGHTS.numpy() @ (np.array(photo) / 255).reshape(-1, 3).T, 0)


def calibrated(model=None, photos=None, **options):
    options = {"activation": "softmax", "preprocessing": AS_IT_IS, "methods": ["gradient", "gradcam"], **options}
    return relume.calibrate(model or Colours(), pictures() if photos is None else photos, **options)


def test_a_network_whose_truth_is_exact():
    """A pixel's channel answers to that pixel alone, so Grad-CAM is the channel of its class, and its shares are known."""
    photos = pictures()
    wall = Wall.of(Opened("colours", Colours(), AS_IT_IS, activation="softmax"), photos)
    assert [p.index for p in wall.predictions] == [i % 5 for i in range(16)]
    game = Game.of(wall, ["gradient", "gradcam", "guided_backprop"], "relu")
    assert (game.size, game.large, [*game.disconnected]) == ((32, 32), True, ["dipart", "difull"])
    mosaic = Mosaic((0, 6, 12, 13), (0, 1, 2, 3))
    row = game.play(mosaic, 0)
    answers = [
        (WEIGHTS.double() @ torch.from_numpy(np.array(photos[i]) / 255).reshape(-1, 3).T).clamp(min=0) for i in mosaic.photos
    ]
    totals = np.array([answer.sum(1).tolist() for answer in answers])  # of each cell, by channel
    shares = [totals[i, index] / totals[:, index].sum() for i, index in enumerate(mosaic.classes)]
    assert min(shares) < 0.9 < max(shares)  # it leaks: the truth is no round number
    # Grad-CAM's weight is one number a channel wherever it comes from: a head of one cell leaks into others all the same
    for kind in ("mass", "dipart", "difull"):
        np.testing.assert_allclose(row["gradcam"][kind], shares, rtol=1e-5, err_msg=kind)
    assert row["gradcam"]["heaviest"] == [1.0] * 4
    # the gradient is the same wherever the channel answers; where nothing but the cell can matter, it is in the cell
    on = np.array([(answer > 0).sum(1) for answer in answers])
    expected = [on[i, index] / on[:, index].sum() for i, index in enumerate(mosaic.classes)]
    np.testing.assert_allclose(row["gradient"]["mass"], expected, rtol=1e-5)
    for key in ("gradient", "guided_backprop"):
        np.testing.assert_allclose([row[key]["difull"], row[key]["dipart"]], 1.0)
    assert set(row["guided_backprop"]["agreement"]) != {None}
    np.testing.assert_allclose([row["uniform"]["mass"], row["uniform"]["heaviest"]], 0.25)
    two = Mosaic((0, 5, 12, 13), (0, 0, 2, 3))
    both = [answers_of(photos[i])[0].sum() for i in two.photos]
    assert game.focus(two, 0)["gradcam"]["focus"][0] == pytest.approx(sum(both[:2]) / sum(both), rel=1e-5)


def test_a_disconnected_network_is_the_network_on_each_cell():
    model, images = Colours(), torch.rand(2, 3, 8, 8)
    full = Disconnected(model, "relu", 2, "difull")(images)
    cells = [images[:, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
    torch.testing.assert_close(full, torch.cat([model(cell) for cell in cells], 1))
    part = Disconnected(model, "relu", 2, "dipart")(images)
    torch.testing.assert_close(part, full / 4)  # the mean is over the whole mosaic
    assert [name for name, _ in model.named_modules()] == ["", "conv", "relu"]


def test_photographs_stand_in_one_mosaic_beside_other_classes():
    rng = np.random.default_rng(0)
    sure = [Prediction(i, i % 3 if i < 9 else i, 0.95) for i in range(14)]
    mosaics = arranged(sure, 4, 25, rng)
    assert len(mosaics) == 3
    assert len({p for m in mosaics for p in m.photos}) == 12
    assert all(len(set(m.classes)) == 4 for m in mosaics)
    assert all(sorted(np.unique(m.classes, return_counts=True)[1]) == [1, 1, 2] for m in pairs(sure, 25, rng))
    # where photographs show several classes, none shows the class of another
    shown = [Prediction(0, 0, 1.0, frozenset({1})), *(Prediction(i, i, 1.0) for i in range(1, 5))]
    assert set(arranged(shown, 4, 25, rng)[0].photos) in ({0, 2, 3, 4}, {1, 2, 3, 4})
    assert not arranged(shown[:4], 4, 25, rng)


def test_what_it_returns():
    c = calibrated(mosaics=3 + 1)
    assert (c.mosaics, c.photos, c.grid, c.size, c.layer, c.usable, c.given) == (4, 16, 2, (32, 32), "relu", 16, 16)
    assert c.few
    assert [*c.methods, *c.baselines] == ["gradient", "gradcam", "sobel_edges", "uniform", "random"]
    assert c["gradient"].difull.mean == pytest.approx(1)
    assert 0.5 < c["gradcam"].mass.mean < c["gradcam"].focus.mean
    assert c["sobel_edges"].mass.mean == pytest.approx(0.25)
    assert calibrated(mosaics=4) == c


def test_the_interval_of_a_share_says_how_few_cells_there_were():
    """All of 16 cells are right, so that every resample of the mosaics is the same: Wilson's interval is not."""
    c = calibrated()
    heaviest = c["gradcam"].heaviest
    assert (heaviest.mean, heaviest.low, heaviest.high) == pytest.approx((1, 16 / (16 + 1.96**2), 1), abs=1e-4)
    assert (c.level("gradcam"), calibrated(photos=pictures(36)).level("gradcam")) == ("partly", "points at its object")


def test_a_network_of_one_size_has_smaller_cells(tmp_path):
    c = calibrated(Fixed(), output=tmp_path)
    assert "DiPart: " in (tmp_path / "index.html").read_text()
    assert "DiFull: " not in (tmp_path / "index.html").read_text()
    assert c.size == (16, 16)
    assert c["gradcam"].difull is None
    assert c["gradcam"].dipart.mean > 0.5
    assert c.notes == (
        "The network takes 16×16 pixels alone, so the cells of a mosaic are smaller.",
        "DiFull is left out: the network takes no mosaic of whole photographs.",
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"activation": "auto"}, "nothing tells what its scores are: .*activation='softmax'"),
        ({"activation": "none"}, "nothing tells what its scores are"),
        ({"photos": pictures(15)}, "these photographs make 3: 15 of 15 are predicted .* as 5 classes; give more photographs"),
        ({"model": Colours(2.0)}, "these photographs make 0: 0 of 16 are predicted with a probability of 0.9 or more"),
        (
            {"photos": [*pictures(), "missing.png"], "mosaics": 3},
            "make 3.*1 photograph could not be used, such as: there is",
        ),
        ({"activation": "sigmoid", "grid": 3}, "a mosaic shows 9 different classes, and this network has 5"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(768, 1)), "activation": "sigmoid"}, "and this network has one"),
        ({"photos": []}, "there are no photographs"),
        ({"grid": 1}, "grid from 2 on"),
        ({"model": nn.Conv2d(3, 4, 1)}, "a calibration needs a network that gives a score for each class of the whole picture"),
        (
            {"photos": [*pictures(), *[Image.new("RGB", (8, 8))]], "preprocessing": Preprocessing(None, None)},
            "not 16×16 and 8×8",
        ),
        ({"preprocessing": None}, "a module is given with its preprocessing"),
    ],
)
def test_what_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        calibrated(**options)


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    whole, played, numbers = calibrated(output=tmp_path / "whole"), Game.play, []

    def play(self, mosaic, number):
        numbers.append(number)
        if numbers == [0, 1, 2]:
            raise KeyboardInterrupt
        return played(self, mosaic, number)

    monkeypatch.setattr(Game, "play", play)
    with pytest.raises(KeyboardInterrupt):
        calibrated(output=tmp_path / "c")
    assert [p.name for p in (tmp_path / "c").iterdir()] == [FILE]
    with (tmp_path / "c" / FILE).open("a") as file:
        file.write('{"number": 2, "ro')  # the process was killed while it wrote
    with pytest.raises(InputError, match="begun with another seed, mosaics; give what it was begun with, another"):
        calibrated(output=tmp_path / "c", seed=1, mosaics=4)
    assert calibrated(output=tmp_path / "c") == whole
    assert numbers == [0, 1, 2, 2, 3]
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"calibration.json", "index.html"}
    assert json.loads((tmp_path / "c" / "calibration.json").read_text())["methods"]["gradcam"]["mass"].keys() == {
        "mean", "low", "high", "count",
    }  # fmt: skip
    page = (tmp_path / "c" / "index.html").read_text()
    assert page.count("<h2>Mosaic ") == 3
    assert whole.sentence("gradcam") in page


def test_what_it_cannot_go_on_with_or_write_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / FILE).write_bytes(b'{"fingerprint": \x00\n')
    with pytest.raises(InputError, match=f"{FILE}' is damaged; remove it"):
        calibrated(output=tmp_path)
    (tmp_path / FILE).unlink()
    played = Game.play

    def play(self, mosaic, number):
        (tmp_path / FILE).unlink()
        (tmp_path / FILE).mkdir()  # so that no line can be added
        return played(self, mosaic, number)

    monkeypatch.setattr(Game, "play", play)
    with pytest.raises(OutputError, match="cannot write to .*: Is a directory; see to that, or name another folder"):
        calibrated(output=tmp_path)


def test_mosaics_are_a_truth_for_an_evaluation(tmp_path):
    for i, picture in enumerate(pictures()):
        picture.save(tmp_path / f"{i}.png")
    opened = Opened("colours", Colours(), AS_IT_IS, activation="softmax")
    first, *_ = [load() for load in open_samples(f"mosaics:{tmp_path}", opened)]
    assert first.image.shape == (3, 32, 32)
    assert [mask.mean() for mask in first.targets.values()] == [0.25] * 4
    got = relume.evaluate(opened, f"mosaics:{tmp_path}", ["gradcam"])
    assert (got.samples, got.targets) == (4, 16)
    assert got.rows["gradcam"]["mass_accuracy"].mean > 0.5 > got.rows["sobel_edges"]["mass_accuracy"].mean
    assert {"sobel_edges", "random"} < got.as_dict()["measures"].keys()


def test_an_unprepared_and_a_prepared_network_have_one_calibration():
    demo = relume.open_model("demo", "cpu")
    calibration = relume.Calibration.demo()
    calibration.check(demo.model)
    calibration.check(demo.prepared(Image.new("RGB", (128, 128))).model)


def test_the_order_of_methods_on_real_photographs(realdata):
    """SqueezeNet is sure of four photographs; python -m benchmarks.belief squeezenet puts them together in every order."""
    weights = realdata / "weights" / "squeezenet1_0.safetensors"
    opened = relume.open_model("torchvision:squeezenet1_0", weights=weights, activation="softmax")
    names = ("cat_dog", "coral_bird", "coral_dragonfly", "coral_sunflower")
    wall = Wall.of(opened, [realdata / "images" / f"{name}.png" for name in names])
    assert [p.index for p in wall.predictions] == [243, 19, 319, 985]
    keys, layer = ["gradient", "guided_backprop", "gradcam", "guided_gradcam"], "features.12"
    game = Game(wall, resolve_methods(keys), layer, layer, 2, (448, 448), large=True, disconnected={})
    row = game.play(Mosaic((0, 1, 2, 3), (243, 19, 319, 985)), 0)
    masses = [np.mean(row[key]["mass"]) for key in keys]
    assert masses == sorted(masses)
    assert masses == pytest.approx([0.46, 0.51, 0.69, 0.81], abs=0.06)  # measured elsewhere, on other photographs
