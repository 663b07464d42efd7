"""The result and its pictures, by value; saves all or nothing."""

import base64
import copy
import dataclasses
import hashlib
import html.parser
import io
import json
import os
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import relume
from relume import errors
from relume.engine.coverage import Coverage, CoverageRow
from relume.explanation import storage as stored
from relume.explanation.result import Explanation
from relume.explanation.scales import share
from relume.explanation.sheet import sheet
from relume.maps import saliency, upsample
from relume.pages import owner
from relume.pages.folder import check_writable, write_folder
from relume.pictures import figure as figures
from relume.pictures import kinds as render
from relume.pictures.photo import Photo, as_photo
from relume.pictures.preprocessing import IMAGENET, Preprocessing
from tests.helpers.networks import Small
from tests.reference import twin

#: A method of each sort of picture.
METHODS = ["gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam"]


@pytest.fixture
def e():
    torch.manual_seed(3)
    return relume.explain(Small().eval(), torch.randn(2, 3, 24, 24), [1, 2], METHODS, "body")


def blank(values, classes=4):
    """An explanation with these maps and nothing else to it."""
    n = len(next(iter(values.values())))
    return Explanation(
        infos={key: relume.METHODS[key].maps[0] for key in values},
        maps=values,
        images=torch.zeros(n, 3, 8, 8),
        target=torch.zeros(n, dtype=torch.int64),
        score=torch.zeros(n),
        scores=torch.zeros(n, classes),
        coverage=Coverage((CoverageRow("relu", 3, guided=True),)),
        layer=None,
        model="Blank",
    )


def test_saliency_and_upsampling_by_value():
    values = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]]]])
    assert torch.equal(saliency(values), torch.tensor([[[3.0, 2.0]]]))
    heat = torch.rand(2, 3, 5, dtype=torch.float64)
    for i in range(2):
        torch.testing.assert_close(upsample(heat, (11, 8))[i], twin.linear(heat[i], (11, 8)))


def test_it_is_frozen(e):
    with pytest.raises(dataclasses.FrozenInstanceError):
        e.layer = "other"
    with pytest.raises(TypeError):
        e.maps["gradient"] = None


def test_it_can_be_copied_and_pickled(e):
    for again in (copy.deepcopy(e), pickle.loads(pickle.dumps(e))):
        assert again.maps.keys() == e.maps.keys()
        assert all(torch.equal(again[m], e[m]) for m in e.maps)
        assert (again.coverage, again.layer, again.model) == (e.coverage, e.layer, e.model)


def test_it_keeps_no_graph_alive(e):
    for tensor in (*e.maps.values(), e.images, e.scores, e.score):
        assert tensor.grad_fn is None
        assert not tensor.requires_grad


def test_scale_is_each_maps_own_or_shared_or_given(e):
    maps = torch.zeros(2, 3, 8, 8)
    maps[0], maps[1] = 1.0, 4.0
    b = blank({"gradient": maps})
    assert b.scale("gradient") == [1.0, 4.0]
    assert b.scaled("shared").scale("gradient") == [4.0, 4.0]
    assert b.scaled(2).scale("gradient") == b.scaled({"gradient": 2.0}).scale("gradient") == [2.0, 2.0]
    assert b.scaled("shared").scaled("own").scale("gradient") == [1.0, 4.0]
    assert np.asarray(b.picture("gradient", 0))[0, 0].tolist() == [255] * 3
    assert np.asarray(b.scaled(4.0).picture("gradient", 0))[0, 0].tolist() == [round(255 * 0.625)] * 3
    for method in e.maps:
        drawn = e.saliency(method).numpy()
        assert e.scale(method) == pytest.approx([np.percentile(s, 99.5) for s in drawn])
        assert e.scaled(percentile=90).scale(method) == pytest.approx([np.percentile(s, 90) for s in drawn])


def test_a_scale_is_shared_over_a_set_by_method(e):
    stronger = dataclasses.replace(e, maps={m: 3 * v for m, v in e.maps.items()})
    for one in share([e, stronger]):
        for method in e.maps:
            assert one.scale(method) == [pytest.approx(3 * max(e.scale(method)))] * 2
        assert one.scaling.origin == "shared"


@pytest.mark.parametrize("scale", ["own ", -1, 0, float("nan"), True, None, {"gradient": -1}, {"gradcam": 1}], ids=str)
def test_a_scale_that_is_none_is_refused(e, scale):
    with pytest.raises(errors.InputError, match="a scale"):
        e.scaled(scale)


@pytest.mark.parametrize("percentile", [0, -5, 101])
def test_a_percentile_that_is_none_is_refused(e, percentile):
    with pytest.raises(errors.InputError, match="a percentile is a number above 0, up to 100; got"):
        e.scaled(percentile=percentile)


@pytest.mark.parametrize("constant", [0.0, 2.0, -2.0])
def test_constant_maps_draw_as_such(constant):
    b = blank({"gradient": torch.full((1, 3, 8, 8), constant), "gradcam": torch.full((1, 2, 2), max(constant, 0.0))})
    signed, heat = np.asarray(b.picture("gradient")), np.asarray(b.picture("gradcam"))
    assert (signed == {0.0: 128, 2.0: 255, -2.0: 0}[constant]).all()
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) == 1
    texts = [t.get_text() for t in b.figure().texts]
    zeros = [t for t in texts if t == "empty (zero everywhere)"]
    assert len(zeros) == (2 if constant == 0 else constant < 0)
    assert ("empty (zero everywhere)" in b._repr_html_()) == bool(zeros)


def pictures(figure):
    return sum(len(axes.images) for axes in figure.axes)


def test_figure_and_sheet(e):
    figure = e.figure()
    assert pictures(figure) == 2 * (1 + 2 * 5)  # the input; each map and its bar of colours
    texts = [t.get_text() for t in figure.texts]
    assert texts[0].startswith("1, ")
    names = ["input", "gradient", "deconvnet", "guided backpropagation", "Grad-CAM", "Guided Grad-CAM"]
    assert [t for t in texts if t in names] == names  # once, above both rows
    full = e.scale("gradcam")[1]
    assert f"{full:.3g}".replace("-", "−") in texts
    assert f"{-e.scale('gradient')[0]:.3g}".replace("-", "−") in texts
    assert "layer body" in texts[-1]
    assert "full strength at percentile 99.5 of each map" in texts[-1]
    assert "shared" in e.figure(scale="shared").texts[-1].get_text()
    assert pictures(sheet([e, e])) == 4 * 11
    narrow, wide = e.figure(columns=2), e.figure(dpi=300)
    assert len([t for t in narrow.texts if t.get_text() in names]) == 2 * 6
    assert narrow.get_figwidth() < figure.get_figwidth() / 2
    assert wide.dpi == 300


def test_kinds_of_picture_can_be_chosen(e):
    for method in e.maps:
        chosen = np.asarray(e.picture(method, 1, kind="diverging"))
        expected = render.diverging(e[1].drawn(method), e.scale(method)[1], Photo.whole(e.photo(1)))
        assert np.array_equal(chosen, np.asarray(expected))
        assert np.array_equal(np.asarray(e.overlay(method, 1)), np.asarray(e.picture(method, 1, kind="over")))
    assert pictures(e.figure(kind="contours")) == 2 * 6  # contours have no bar
    assert "lines hold 50% and 80% of the mass" in e.figure(kind={"gradcam": "contours"}).texts[-1].get_text().replace(
        "\n", " "
    )
    with pytest.raises(errors.InputError, match="no kind of picture 'overlay'; did you mean 'over'"):
        e.overlay("gradcam", kind="overlay")


def test_text_stays_text_in_a_pdf(e):
    content = figures.figure_bytes(e.figure(), "pdf")
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType, which can be selected and edited, and not outlines
    assert "<text" in figures.figure_bytes(e.figure(), "svg").decode()


def test_probabilities_are_not_made_up():
    scores = torch.tensor([[0.2, 0.7, 0.1]])
    b = dataclasses.replace(blank({"gradient": torch.ones(1, 3, 8, 8)}), scores=scores, score=scores[:, 0])
    assert (b.title(), b.probabilities(), b.quantity) == ("0, score 0.2", None, "score")
    assert [(i, name, round(score, 6)) for i, name, score in b.top(0, 2)] == [(1, "1", 0.7), (0, "0", 0.2)]
    assert dataclasses.replace(b, are_probabilities=True).title() == "0, 20.0%"
    for activation, shares in (("softmax", scores.softmax(1)[0]), ("sigmoid", scores.sigmoid()[0])):
        named = dataclasses.replace(b, activation=activation)
        assert torch.equal(named.probabilities(), shares)
        assert (named.title(), named.quantity) == (f"0, {float(shares[0]):.1%}", "probability")
        assert named.top(0, 1) == [(1, "1", pytest.approx(float(shares[1])))]
    single = dataclasses.replace(b, scores=torch.tensor([[3.25]]), score=torch.tensor([3.25]), activation="softmax")
    assert (single.title(), single.top(), single.quantity) == ("0, score 3.25", [(0, "0", 3.25)], "score")
    assert dataclasses.replace(single, activation="sigmoid").title() == "0, 96.3%"


def test_classes_of_the_same_float_keep_the_order_of_their_scores():
    b = blank({"gradient": torch.ones(1, 3, 8, 8)}, classes=3)
    b = dataclasses.replace(b, scores=torch.tensor([[40.0, 60.0, 50.0]]), activation="sigmoid")
    assert b.top() == [(1, "1", 1.0), (2, "2", 1.0), (0, "0", 1.0)]


def test_a_large_batch_is_a_figure_of_its_first_images():
    b = blank({"gradient": torch.ones(40, 3, 8, 8)})
    figure = b.figure()
    assert pictures(figure) == 3 * 16
    assert "the first 6 of 40 rows" in b._repr_html_()
    assert "the first 16 of 40 rows" in figure.texts[-1].get_text().replace("\n", " ")


def test_the_caption_fits(e):
    """With one method the figure is narrow: the caption is wrapped, not cut off."""
    figure = relume.explain(Small().eval(), torch.randn(1, 3, 24, 24), 1, ["gradcam"], "body").figure()
    figure.canvas.draw()
    box = figure.texts[-1].get_window_extent()
    assert "percentile 99.5 of each map" in figure.texts[-1].get_text().replace("\n", " ")
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def test_it_contains_its_methods_and_is_a_sequence_of_images(e):
    assert "gradcam" in e
    assert "nonsense" not in e
    assert len(repr(dataclasses.replace(e, activation="softmax")).splitlines()) == 5
    first, second = e
    for i, one in enumerate((first, second)):
        assert len(one) == 1
        assert one.title() == e.title(i)
        for method in e.maps:
            assert torch.equal(one[method][0], e[method][i])
            assert torch.equal(e[i, method], e[method][i])
            assert one.scale(method) == [e.scale(method)[i]]
            assert np.array_equal(np.asarray(one.picture(method)), np.asarray(e.picture(method, i)))
    assert e[-1].title() == second.title()
    assert len(e[0:2]) == 2
    with pytest.raises(IndexError, match="there is no image 2 in an explanation of 2"):
        e[2]
    with pytest.raises(errors.InputError, match="no map 'nonsense'"):
        e[0, "nonsense"]


def test_arrays_have_their_channels_last(e):
    arrays = e.to_numpy()
    assert arrays["gradient"].shape == (2, 24, 24, 3)
    assert np.array_equal(arrays["gradient"][1, 5, 6], e["gradient"][1, :, 5, 6].numpy())
    assert np.array_equal(arrays["gradcam"], e["gradcam"].numpy())
    halved = dataclasses.replace(e, maps={"gradient": e["gradient"].bfloat16()}).to_numpy()["gradient"]
    assert halved.dtype == np.float32


def test_in_a_notebook_it_is_html_without_scripts_or_files(e):
    named = dataclasses.replace(e, labels=["<b>cat</b>", "<script>dog", "fish", "cup", "car"])
    page = named._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;dog" in page
    assert page.count("<img") == 2 * 6
    assert set(re.findall(r'src="(data:image/\w+;base64,)', page)) == {"data:image/png;base64,"}
    assert len(re.findall("src=", page)) == 12
    pixels = re.findall(r'base64,([^"]+)"', page)[1]
    with Image.open(io.BytesIO(base64.b64decode(pixels))) as file:
        assert np.array_equal(np.asarray(file), np.asarray(e.picture("gradient")))
    assert "rectifier" in page
    assert html.parser.HTMLParser().feed(page) is None


def test_words(e):
    named = dataclasses.replace(e, labels=["cat", "dog", "fish", "cup", "car"], activation="softmax")
    assert named.title(0).startswith("dog (1), ")
    assert str(named).splitlines()[0] == "Small, layer body"
    assert "4 rectifiers guided, 0 not" in str(named)
    top = named.top(0, 2)
    probabilities = e.scores[0].softmax(0)
    assert [p for _, _, p in top] == pytest.approx(sorted(probabilities.tolist(), reverse=True)[:2])
    assert str(e.coverage).splitlines() == ["rectifier    ran  guided", "relu           4       4"]


def test_save_writes_raw_maps_pictures_and_facts(e, tmp_path):
    folder = e.save(tmp_path / "new" / "out")
    back = load_file(folder / "maps.safetensors")
    assert back.keys() == e.maps.keys()
    assert all(torch.equal(back[m], e[m]) for m in back)
    facts = json.loads((folder / "explanation.json").read_text())
    assert facts["layer"] == "body"
    assert [s["target"] for s in facts["samples"]] == [1, 2]
    assert facts["samples"][1]["scale"]["gradcam"] == pytest.approx(e.scale("gradcam")[1])
    assert facts["coverage"]["guided"] == 4
    assert facts["versions"] == {"relume": relume.__version__, "torch": torch.__version__}
    assert {p.name for p in folder.iterdir()} == set(e.files()) == set(facts["files"])
    with Image.open(folder / "guided_gradcam.1.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(e.picture("guided_gradcam", 1)))


def test_pictures_of_an_earlier_save_go(e, tmp_path):
    e.save(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"mine")
    alone = relume.explain(Small().eval(), torch.randn(1, 3, 24, 24), 1, ["gradcam"], "body")
    alone.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*alone.files(), "mine.png"}


# --- And back ---


def photograph(seed, width=300, height=200):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)).resize((width, height))


SMALL = Preprocessing(28, 24)


@pytest.fixture(scope="module")
def on_photos(tmp_path_factory):
    """An explanation of two photos, one a file that a camera held upright wrote, one a picture."""
    folder = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(1).save(folder / "first.jpg", exif=exif, quality=95)
    photos = [folder / "first.jpg", photograph(2)]
    images = torch.stack([SMALL.tensor(SMALL.view(as_photo(p).picture)) for p in photos])
    explained = relume.explain(Small().eval(), images, [1, 2], METHODS, "body")
    return explained.with_photos(photos, SMALL), (folder / "first.jpg").read_bytes()


@pytest.fixture(scope="module")
def saved(on_photos, tmp_path_factory):
    return on_photos[0].save(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_what_was_saved_comes_back(on_photos, tmp_path):
    e, content = on_photos
    labels = ["a", "b", "c", "d", "e"]
    e = dataclasses.replace(
        e.scaled("shared"),
        labels=labels,
        activation="sigmoid",
        are_probabilities=False,
        provenance={"file": "x"},
        versus=torch.tensor([0, 3]),
    )
    folder = e.save(tmp_path / "out")
    assert (folder / "photo.0.jpg").read_bytes() == content
    back = Explanation.load(folder)
    assert list(back.maps) == list(e.maps)
    for field in ("images", "target", "score", "scores", "versus"):
        assert torch.equal(getattr(back, field), getattr(e, field))
    for field in (
        "coverage",
        "layer",
        "model",
        "labels",
        "provenance",
        "activation",
        "are_probabilities",
        "description",
        "scaling",
        "infos",
    ):
        assert getattr(back, field) == getattr(e, field)
    for i, (photo, again) in enumerate(zip(e.photos, back.photos, strict=True)):
        assert (photo.box, photo.orientation) == (again.box, again.orientation)
        assert photo.picture.tobytes() == again.picture.tobytes()
        for method in e.maps:
            assert torch.equal(back[i, method], e[i, method])
            assert back.picture(method, i).tobytes() == e.picture(method, i).tobytes()
    assert str(back) == str(e)
    again = back.save(tmp_path / "again")
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_what_has_no_photo_or_classes_comes_back_too(tmp_path):
    e = relume.explain(Small().eval(), torch.randn(1, 3, 24, 24), lambda y: y.sum(1), ["gradient"])
    back = Explanation.load(e.save(tmp_path))
    assert (back.target, back.photos, back.labels, back.layer) == (None, None, None, None)
    assert back.title() == e.title()


@pytest.mark.parametrize("missing", ["explanation.json", "maps.safetensors", "tensors.safetensors", "photo.0.jpg"])
def test_a_folder_that_lacks_a_file_is_refused(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(errors.InputError, match=missing):
        Explanation.load(folder)


@pytest.mark.parametrize("name", ["explanation.json", "maps.safetensors", "tensors.safetensors", "photo.0.jpg", "photo.1.png"])
def test_a_file_that_is_not_the_one_saved_is_refused_by_name(folder, name):
    """One bit, near the end: a label, a pixel of the photo, or a value of a map, which would load as if nothing were."""
    content = bytearray((folder / name).read_bytes())
    content[-40] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(
        errors.InputError, match=f"{name} in '.*' is not the file that was saved there, its checksum is another; "
    ):
        Explanation.load(folder)


def test_files_of_two_results_are_not_mixed(folder, on_photos, tmp_path):
    other = dataclasses.replace(on_photos[0], maps={m: 2 * v for m, v in on_photos[0].maps.items()}).save(tmp_path / "other")
    shutil.copy(other / "maps.safetensors", folder)
    with pytest.raises(errors.InputError, match="maps.safetensors in '.*copy' is not the file that was saved there"):
        Explanation.load(folder)


def test_pictures_of_two_maps_that_are_exchanged_are_refused(folder):
    shutil.copy(folder / "gradcam.0.png", folder / "guided_gradcam.0.png")
    with pytest.raises(errors.InputError, match=r"^guided_gradcam.0.png in '.*' is not the file that was saved there, its che"):
        Explanation.load(folder)
    (folder / "guided_gradcam.0.png").unlink()
    (folder / "figure.png").unlink()
    assert Explanation.load(folder).layer == "body"  # what was deleted to save room is not missed
    (folder / "figure.png").write_bytes((folder / "gradcam.0.png").read_bytes())
    with pytest.raises(errors.InputError, match=r"^figure.png in "):
        Explanation.load(folder)


@pytest.mark.parametrize("files", [None, {}, {"maps.safetensors": "0" * 64}, "?"])
def test_facts_without_their_list_of_checksums_are_refused_in_a_sentence(folder, files):
    facts = json.loads((folder / "explanation.json").read_text())
    del facts["files"]
    (folder / "explanation.json").write_text(json.dumps(facts if files is None else facts | {"files": files}))
    with pytest.raises(errors.InputError, match=r"its list of checksums is missing; put that back, or save the explanation"):
        Explanation.load(folder)


def test_the_folder_of_a_photo_names_the_results_in_it(folder, tmp_path):
    with pytest.raises(errors.InputError, match=rf"explanation.json is missing; load '{folder.name}' in it$"):
        Explanation.load(folder.parent)
    (folder / "maps.safetensors").unlink()
    with pytest.raises(errors.InputError, match=r"maps.safetensors is missing; name a folder that was saved"):
        Explanation.load(folder)


def test_the_facts_hold_a_checksum_of_every_file(saved):
    facts = json.loads((saved / "explanation.json").read_bytes())
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in saved.iterdir()}
    own = facts["files"].pop("explanation.json")
    zeroed = (saved / "explanation.json").read_bytes().replace(own.encode(), b"0" * 64)
    assert own == hashlib.sha256(zeroed).hexdigest()
    assert facts["files"] == {name: value for name, value in sums.items() if name != "explanation.json"}


def test_a_result_without_checksums_is_refused(folder):
    facts = json.loads((folder / "explanation.json").read_text())
    (folder / "explanation.json").write_text(json.dumps(facts | {"files": [*facts["files"]]}))
    with pytest.raises(errors.InputError, match="was saved without checksums, by an earlier version; save it again"):
        Explanation.load(folder)


def test_what_is_said_of_a_picture_comes_back_with_it(tmp_path):
    picture = photograph(4)
    e = relume.explain(Small().eval(), SMALL.tensor(SMALL.view(picture))[None], 1, ["gradient"])
    frames = io.BytesIO()
    picture.save(frames, "TIFF", save_all=True, append_images=[picture])
    back = Explanation.load(e.with_photos([Image.open(frames)], SMALL).save(tmp_path))
    assert back.photos[0].notes == ("the first of several pictures in it is taken",)
    assert str(back).splitlines()[3] == "photo 0: the first of several pictures in it is taken"


def test_a_name_that_is_no_text_comes_back(e, tmp_path):
    named = dataclasses.replace(e, provenance={"file": "caf\udce9.jpg"})
    back = Explanation.load(named.save(tmp_path))
    assert back.provenance == {"file": "caf\udce9.jpg"}
    assert "caf\\udce9.jpg" in back.figure().texts[-1].get_text()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"methods": 3}'])
def test_a_folder_of_something_else_is_refused(folder, content):
    (folder / "explanation.json").write_bytes(content)
    says = "its list of checksums is missing; " if content.startswith(b"{") else "cannot be read: .*; save it again"
    with pytest.raises(errors.InputError, match=says):
        Explanation.load(folder)


def test_a_stranger_file_list_removes_nothing_else(e, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "out" / "explanation.json").write_text(json.dumps({"files": ["../precious", 3, "old.png"]}))
    (tmp_path / "out" / "old.png").write_bytes(b"")
    e.save(tmp_path / "out")
    assert (tmp_path / "precious").exists()
    assert not (tmp_path / "out" / "old.png").exists()


# --- On the photo ---


def test_pictures_have_the_photos_own_pixels(on_photos):
    e, _ = on_photos
    assert e.photo(0).size == (200, 300)  # upright
    for method in e.maps:
        assert e.picture(method, 0).size == (200, 300)
        assert e.overlay(method, 1).size == (300, 200)
        assert max(e.picture(method, 1, size=150).size) == 150
    drawn = np.asarray(e.overlay("gradcam", 1))
    left, top, right, bottom = e.photos[1].seen
    outside = np.ones(drawn.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert outside.any()
    assert drawn[outside].max() < 110  # dimmed
    assert e.files(size=100)["gradcam.0.png"] != e.files()["gradcam.0.png"]


def test_photos_that_are_not_what_was_explained_are_refused(on_photos):
    e, _ = on_photos
    pictures = [photo.picture for photo in e.photos]
    assert e.with_photos(pictures, SMALL).photos[1].box == e.photos[1].box
    with pytest.raises(errors.InputError, match="image 0 is not what becomes of photo 0: they differ"):
        e.with_photos(pictures[::-1], SMALL)
    with pytest.raises(errors.InputError, match="image 0 is not"):
        e.with_photos(pictures, Preprocessing(40, 24))
    with pytest.raises(errors.InputError, match="photo 0 becomes an input of 224 × 224 pixels, and image 0 has shape"):
        e.with_photos(pictures)
    with pytest.raises(errors.InputError, match="one for each of 2 images; got 1"):
        e.with_photos(pictures[:1], SMALL)
    with pytest.raises(errors.ImageError, match="there is no file"):
        e.with_photos(["missing.jpg", pictures[1]], SMALL)


def test_another_way_to_resize_is_the_same_photo(tmp_path):
    """torchvision resizes tensors with its own code: pixels differ a little, and the photo is the same."""
    picture = photograph(3)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    mine = F.interpolate(pixels, (256, 384), mode="bilinear", antialias=True)[:, :, 16:240, 80:304]
    images = (mine - torch.tensor(IMAGENET.mean)[:, None, None]) / torch.tensor(IMAGENET.std)[:, None, None]
    e = relume.explain(Small().eval(), images, 1, ["gradient"])
    assert e.with_photos([picture]).photos[0].seen == e.with_photos([Photo.whole(picture)]).photos[0].seen


# --- All or nothing ---


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.skipif(owner._start(os.getpid()) is None, reason="when a process began is not told here")
def test_a_save_after_a_killed_one_leaves_nothing_of_either(e, tmp_path):
    """The killed one moved the earlier files aside; they are put back, and go as pictures of other methods do."""
    host, _, start = owner.prefix().removeprefix(".relume-").rstrip("-").split("-")
    out = e.save(tmp_path / "out")
    aside = out / f".relume-{host}-4999999-{start}-abcd"
    (aside / "old").mkdir(parents=True)
    moved = [p.name for p in out.iterdir() if p.is_file()]
    for name in moved:
        (out / name).rename(aside / "old" / name)
    (aside / "plan.json").write_text(json.dumps({"replaced": moved, "added": []}))
    alone = relume.explain(Small().eval(), torch.randn(1, 3, 24, 24), 1, ["gradcam"], "body")
    alone.save(out)
    assert {p.name for p in out.iterdir()} == alone.files().keys()


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    write_folder(out, {"a.txt": b"old", "sub/b.txt": b"old"})
    (out / "mine.txt").write_bytes(b"mine")
    before = tree(tmp_path)
    (out / "blocked").mkdir()  # a folder where a file is to go: moving into place fails at the last file
    with pytest.raises(errors.OutputError, match="cannot write results to .*name a writable folder"):
        write_folder(out, {"a.txt": b"new", "sub/b.txt": b"new", "fresh/c.txt": b"new", "blocked": b"new"})
    assert tree(tmp_path) == before
    assert not (out / "fresh").exists()
    (out / "blocked").rmdir()
    write_folder(out, {"a.txt": b"new", "sub/b.txt": b"new"})
    assert tree(tmp_path) == {"out/a.txt": b"new", "out/sub/b.txt": b"new", "out/mine.txt": b"mine"}


def test_a_failure_leaves_what_was_there_also_in_folders_that_were_emptied(tmp_path):
    files = {"dog/a.png": b"old", "dog/b.bin": b"old", "overview.png": b"old"}
    write_folder(tmp_path, files)
    (tmp_path / "cat").write_text("a file in the way of a folder")
    before = tree(tmp_path)
    with pytest.raises(errors.OutputError, match="cannot write results"):
        write_folder(tmp_path, dict.fromkeys(["dog/a.png", "cat/a.png"], b"new"), stale=["dog/b.bin", "overview.png"])
    assert tree(tmp_path) == before
    write_folder(tmp_path, {"dog/a.png": b"new"}, stale=["dog/b.bin", "nothing.png"])
    assert tree(tmp_path) == {"dog/a.png": b"new", "overview.png": b"old", "cat": b"a file in the way of a folder"}


def test_an_interrupted_save_leaves_nothing_of_its_own_and_all_of_others(tmp_path):
    class Interrupting(dict):
        def items(self):
            (tmp_path / "new" / "theirs.txt").write_text("written by another run meanwhile")
            yield from super().items()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "new" / "out", Interrupting(a=b"1"))
    assert tree(tmp_path) == {"new/theirs.txt": b"written by another run meanwhile"}
    assert not (tmp_path / "new" / "out").exists()


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(errors.OutputError, match="file"):
        write_folder(tmp_path / "file" / "out", {"a": b""})
    with pytest.raises(errors.OutputError, match="is not a folder; name another"):
        check_writable(tmp_path / "file" / "out")
    with pytest.raises(errors.OutputError):
        write_folder(tmp_path / "new" / "deep", {"a": b"", "a/b": b""})
    assert tree(tmp_path) == {"file": b"here"}
    assert not (tmp_path / "new").exists()
    check_writable(tmp_path / "not" / "yet")


# --- Nothing misleads ---


def test_a_bar_shows_the_values_at_its_ends(e):
    """Each kind's bar runs from one end to the other through many colours, the negative kind's downwards."""
    for kind in render.KINDS.values():
        if kind.ends is None:
            continue
        ramp = np.linspace(*kind.ends, 256, dtype=np.float32)[None]
        bar = np.asarray(kind.draw(ramp, 1, None))
        assert len(np.unique(bar.reshape(-1, 3), axis=0)) > 50, kind.key
        for end, drawn in zip(kind.ends, (bar[0, 0], bar[0, -1]), strict=True):
            assert np.array_equal(np.asarray(kind.draw(np.full((2, 2), end, np.float32), 1, None))[0, 0], drawn), kind.key
    texts = [t.get_text() for t in e.figure(kind="negative").texts]
    assert f"{-e.scale('gradient')[0]:.3g}".replace("-", "−") in texts


def test_a_figure_does_not_hang_on_the_users_settings_and_leaves_them_alone(e):
    expected = figures.figure_bytes(e.figure())
    before = dict(mpl.rcParams)
    with mpl.rc_context({"image.origin": "lower", "figure.autolayout": True, "text.parse_math": True}):
        assert figures.figure_bytes(e.figure()) == expected
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: figures.figure_bytes(e[0].figure(), "svg"), range(8)))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    "label", ["$\\alpha$ and $", "猫", "a\nb", "x" * 300, '<b>"'], ids=["math", "cjk", "lines", "long", "html"]
)
def test_any_label_is_drawn_within_the_figure(e, label):
    named = dataclasses.replace(e, labels=[label] * 5, model=label, activation="softmax")
    figure = named.figure()
    figures.figure_bytes(figure)  # no warning, which would be an error here
    for text in figure.texts:
        assert text.get_window_extent().x1 <= figure.bbox.x1 + 1, text.get_text()
    assert len(str(named[0]).splitlines()) == 5 or "\n" in named.model
    assert "<b>" not in named._repr_html_()


@pytest.mark.parametrize("target", [lambda y: y[:, 0], lambda y: y.sum(1), lambda y: y[..., 0]], ids=["view", "sum", "last"])
@pytest.mark.parametrize("images", [1, 3])
def test_a_callable_target_can_be_saved(tmp_path, target, images):
    e = relume.explain(Small().eval(), torch.randn(images, 3, 24, 24), target, ["gradient"])
    back = Explanation.load(e[images - 1].save(tmp_path))
    assert torch.equal(back.score, e[images - 1].score)


def test_a_map_of_zeros_says_so_at_any_scale(e):
    empty = dataclasses.replace(e[0], maps={m: torch.zeros_like(v) for m, v in e[0].maps.items()})
    for one in (share([e[0], empty])[1], empty.scaled(0.5)):
        texts = " ".join(t.get_text() for t in one.figure().texts)
        assert texts.count("zero everywhere") == texts.count("empty (zero everywhere)") == 5


def test_a_sheet_has_one_caption_for_all(e):
    with pytest.raises(errors.InputError, match="a sheet has one caption"):
        sheet([e, e.scaled(2.0)])
    with pytest.raises(errors.InputError, match="a sheet has one caption"):
        sheet([e, dataclasses.replace(e, maps={"gradient": e["gradient"]})])
    for nothing in ([], [e[0:0]]):
        with pytest.raises(errors.InputError, match="nothing to draw"):
            sheet(nothing)


WRONG_FIGURES = [{"columns": 0}, {"columns": -1}, {"dpi": 0}, {"dpi": float("nan")}, {"kind": {"grad_cam": "over"}}]


@pytest.mark.parametrize("wrong", WRONG_FIGURES, ids=str)
def test_a_figure_that_cannot_be_is_refused(e, wrong):
    with pytest.raises(errors.InputError):
        e.figure(**wrong)


@pytest.mark.parametrize("key", [None, (), (0, 1), ("gradient", 0), 1.5, (0, "gradient", 1)], ids=str)
def test_an_index_that_is_none_is_refused(e, key):
    with pytest.raises(errors.InputError, match="index an explanation by image, method or both"):
        e[key]
    assert e[np.int64(1)].title() == e.title(1)


def test_small_pictures_keep_what_is_strong():
    """A single strong pixel, and signs that alternate, would be averaged away; the bar would still promise them."""
    peak = np.zeros((3, 224, 224), np.float32)
    peak[0, 100, 100] = 1
    board = np.indices((224, 224)).sum(0) % 2 * 2 - 1
    photo = Photo.whole(Image.new("RGB", (50, 50)))
    assert np.asarray(render.absolute(peak, 1.0, photo)).max() > 180
    assert np.asarray(render.diverging(board.astype(np.float32), 1.0, photo)).min() < 120
    assert np.asarray(render.colour(peak, 1.0, photo)).max() > 200


def test_thumbnails_of_large_inputs_are_small():
    b = dataclasses.replace(blank({"gradient": torch.ones(2, 3, 900, 900)}), images=torch.randn(2, 3, 900, 900))
    assert max(b.picture("gradient", size=100).size) == 100
    assert len(b._repr_html_()) < 200_000


@pytest.mark.parametrize("scale", [1e-36, 1e37])
def test_extreme_scales_are_drawn_without_a_warning(e, scale):
    assert e.scaled(scale).figure() is not None
    with pytest.raises(errors.InputError):
        e.scaled(scale**2)


@pytest.mark.parametrize("key", ["../escape", "figure", "photo", "", "a b", "a/b"])
def test_a_method_is_named_like_a_file(key):
    with pytest.raises(errors.InputError, match="a method's key is of letters"):
        relume.Method(key, frozenset(), lambda found: found)


STRANGE = {
    "a photo elsewhere": {"photos": [{"file": "../secret.png", "box": [0, 0, 9, 9], "orientation": 1}] * 2},
    "no box": {"photos": [{"file": "photo.0.jpg", "box": "abcd", "orientation": 1}] * 2},
    "an empty box": {"photos": [{"file": "photo.0.jpg", "box": [0, 0, 0, 0], "orientation": 1}] * 2},
    "no photos": {"photos": []},
    "labels": {"labels": 3},
    "provenance": {"provenance": [1]},
    "scaling": {"scaling": {"percentile": 99.5, "full": {}, "origin": "fixed"}},
    "methods": {"methods": ["gradient", "lime"]},
}


@pytest.mark.parametrize("strange", STRANGE)
def test_facts_that_do_not_belong_together_are_refused(folder, strange):
    facts = json.loads((folder / "explanation.json").read_text()) | STRANGE[strange]
    (folder / "explanation.json").write_bytes(stored._sealed(facts))
    with pytest.raises(errors.InputError, match="cannot be read"):
        Explanation.load(folder)


def test_facts_nested_without_end_neither_load_nor_block_a_save(folder, e):
    (folder / "explanation.json").write_text("[" * 100_000)
    with pytest.raises(errors.InputError, match="cannot be read"):
        Explanation.load(folder)
    assert e.save(folder) == folder


@pytest.mark.parametrize("photos", ["dog.jpg", Path("dog.jpg"), None, Image.new("RGB", (9, 9))], ids=lambda p: type(p).__name__)
def test_photos_are_a_list(e, photos):
    with pytest.raises(errors.InputError, match="photos are a list, one for each of 2 images"):
        e.with_photos(photos)
