"""Explanations of signals, volumes, video and bands, as pictures, figures and files, and back."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relume
from relume import Explanation, errors
from relume.explanation.comparison import Comparison, comparison_files
from relume.pictures import Recording

GENERATOR = np.random.default_rng(3)
METHODS = ["guided_backprop", "gradcam"]


def network(axes, channels):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    body = conv(channels, 4, 3, padding=1), nn.ReLU(), conv(4, 4, 2, 2), nn.ReLU()
    return nn.Sequential(*body, nn.Flatten(), nn.LazyLinear(3))


def explained(recording, *, bare=False, count=1):
    """Explain the part of a recording that its box says, at its own resolution."""
    values = recording.values[(slice(None), *recording.seen())].astype(np.float32)
    images = torch.tensor(values)[None].repeat(count, *[1] * values.ndim)
    net = network(len(recording.size), len(values))
    net(images)
    e = relume.explain(net, images, 1, METHODS, layer="2")
    return e if bare else e.with_photos([recording] * count)


RECORDINGS = {
    "signal": Recording(GENERATOR.normal(size=(2, 80)), "signal", spacing=(0.004,), unit="s", box=((8, 72),)),
    "bands": Recording(GENERATOR.integers(0, 4000, (5, 12, 16), np.uint16), "bands", shown=(3, 2, 1), notes=("a remark",)),
    "volume": Recording(
        GENERATOR.normal(size=(1, 8, 12, 10)).astype(np.float16), "volume", spacing=(2, 1, 1), box=((0, 8), (2, 12), (0, 10))
    ),
    "video": Recording(GENERATOR.integers(0, 255, (3, 6, 12, 10), np.uint8), "video", limits=(0, 255)),
}


@pytest.mark.parametrize("kind", list(RECORDINGS))
def test_what_was_saved_comes_back_and_is_drawn_the_same(kind, tmp_path):
    recording = RECORDINGS[kind]
    e = explained(recording)
    folder = e.save(tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"guided_backprop.png", "gradcam.png", "figure.png", "recording.safetensors", "explanation.json"}
    back = Explanation.load(folder)
    again = back.photos[0]
    assert again.values.dtype == recording.values.dtype
    np.testing.assert_array_equal(again.values, recording.values)
    assert again.as_dict() == recording.as_dict()
    for method in METHODS:
        assert back.picture(method).tobytes() == e.picture(method).tobytes()
        assert max(e.overlay(method).size) == max(e.picture(method, kind="over").size)
        assert max(e.picture(method, size=300).size) <= 300 or kind in ("signal", "bands")
        with Image.open(folder / f"{method}.png") as file:
            assert file.convert("RGB").tobytes() == e.picture(method).tobytes()
    assert str(back) == str(e)


@pytest.mark.parametrize(
    ("kind", "default"), [("signal", "diverging"), ("bands", "colour"), ("volume", "over"), ("video", "over")]
)
def test_the_kind_of_picture_suits_the_recording(kind, default):
    e = explained(RECORDINGS[kind])
    assert [e.kind(method).key for method in METHODS] == [default, "over"]
    assert e._repr_html_().count("<img") == 3


@pytest.mark.parametrize("kind", ["signal", "volume", "bands"])
def test_an_input_alone_is_drawn_too(kind):
    e = explained(RECORDINGS[kind], bare=True)
    assert e.photos is None
    whole = dataclasses.replace(RECORDINGS[kind], values=e.images[0].numpy(), box=(), spacing=(), unit="", shown=(), notes=())
    if kind != "bands":
        assert e.picture("gradcam").tobytes() == e.with_photos([whole]).picture("gradcam").tobytes()
    else:
        assert np.asarray(e.photo()).std(axis=2).max() == 0  # grey, of the first channel
        assert np.corrcoef(np.asarray(e.photo())[..., 0].ravel(), e.images[0, 0].ravel())[0, 1] > 0.999


def test_the_caption_says_what_of_a_recording_is_drawn():
    def caption(e):
        return " ".join(text.get_text() for text in e.figure().texts).replace("\n", " ")

    assert "planes through the centre of mass of Grad-CAM" in caption(explained(RECORDINGS["volume"]))
    assert "6 of 6 frames" in caption(explained(RECORDINGS["video"]))
    assert "channels 3, 2, 1 as red, green and blue" in caption(explained(RECORDINGS["bands"]))
    assert "channel 0 in grey, of 5" in caption(explained(RECORDINGS["bands"], bare=True))


def test_the_share_of_a_map_in_the_padding_is_said():
    padded = RECORDINGS["volume"].within(((-8, 8), (0, 12), (0, 10)))
    e = explained(padded)
    maps = {method: torch.ones_like(values) for method, values in e.maps.items()}
    figure = dataclasses.replace(e, maps=maps).figure()
    assert "Grad-CAM, 50% beyond the volume" in [text.get_text() for text in figure.texts]


def test_recordings_that_do_not_fit_the_images_are_refused():
    e = explained(RECORDINGS["volume"], count=2)
    with pytest.raises(errors.InputError, match="images of 3 spatial axes are drawn on recordings with as many"):
        e.with_photos([RECORDINGS["volume"], RECORDINGS["bands"]])
    with pytest.raises(errors.InputError, match="got volume, photo"):
        e.with_photos([RECORDINGS["volume"], Image.new("RGB", (9, 9))])
    with pytest.raises(errors.InputError, match="one for each of 2 images"):
        e.with_photos([RECORDINGS["volume"]])


def test_inputs_that_nothing_draws_are_saved_without_pictures(tmp_path):
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    e = relume.explain(net, torch.rand(1, 6), 0, ["gradient"])
    assert not [path for path in e.save(tmp_path).iterdir() if path.suffix == ".png"]
    assert e._repr_html_() is None
    with pytest.raises(errors.InputError, match="one to three spatial axes"):
        e.figure()


WRONG = [{"box": [[0, 8]]}, {"box": [[0, 0], [0, 12], [0, 10]]}, {"kind": "photo"}, {"shown": [5]}, {"spacing": [0, 1, 1]}]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_record_that_does_not_fit_its_recording_is_refused(wrong, tmp_path, monkeypatch):
    recording = RECORDINGS["volume"]
    e = explained(recording)
    facts = recording.as_dict() | wrong
    monkeypatch.setattr(Recording, "as_dict", lambda _: dict(facts))
    e.save(tmp_path)
    with pytest.raises(errors.InputError):
        Explanation.load(tmp_path)


@pytest.mark.parametrize("kind", list(RECORDINGS))
def test_targets_are_compared_on_a_page_and_a_sheet(kind):
    e = explained(RECORDINGS[kind])
    targets = Comparison((e, e) if kind == "bands" else (e,))
    files = targets.files()
    assert sorted(files) == ["compare.html", "sheet.pdf", "sheet.png"]
    assert files["compare.html"].count(b'id="bar-') == 2 * len(targets)
    assert targets._repr_html_().count("<img") == 3 * len(targets)


def test_a_page_is_of_recordings_of_one_kind():
    both = [Comparison((explained(RECORDINGS[kind]),)) for kind in ("volume", "video")]
    with pytest.raises(errors.InputError, match="recordings of one kind; got video, volume"):
        comparison_files(both)
