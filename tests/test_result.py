"""The result and its pictures: CONFORMANCE 25, by value; saves all or nothing."""

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import relume
from relume import errors, render
from relume.report import check_writable, write_folder
from relume.result import Coverage, CoverageRow, Explanation, saliency, sheet, upsample

from .networks import Small
from .reference import twin


@pytest.fixture
def e():
    torch.manual_seed(3)
    return relume.explain(Small().eval(), torch.randn(2, 3, 24, 24), [1, 2], list(relume.METHODS), "body")


def blank(values, classes=4):
    """An explanation with these maps and nothing else to it."""
    n = len(next(iter(values.values())))
    return Explanation(
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
        torch.testing.assert_close(upsample(heat, (11, 8))[i], twin.bilinear(heat[i], (11, 8)))


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


def test_signed_maps_are_colour_about_mid_grey():
    values = np.zeros((3, 1, 3), np.float32)
    values[:, 0, 1] = [0.5, -0.5, 0.25]
    values[:, 0, 2] = [9, -9, 0]
    pixels = np.asarray(render.signed(values, scale=0.5))
    assert pixels.tolist() == [[[128, 128, 128], [255, 0, 191], [255, 0, 128]]]
    one_channel = np.asarray(render.signed(values[:1], scale=0.5))
    assert one_channel[0].tolist() == [[128] * 3, [255] * 3, [255] * 3]


def test_heat_keeps_the_photo_where_it_is_zero():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8))
    grey = np.asarray(photo.convert("L"))[..., None].repeat(3, -1)
    assert np.array_equal(np.asarray(render.heat_over(np.zeros((4, 6), np.float32), 1.0, photo)), grey)
    heat = np.zeros((4, 6), np.float32)
    heat[1, 2] = 1
    drawn = np.asarray(render.heat_over(heat, 1.0, photo)).astype(int)
    elsewhere = np.ones((4, 6), bool)
    elsewhere[1, 2] = False
    assert np.array_equal(drawn[elsewhere], grey[elsewhere])
    expected = 0.15 * grey[1, 2] + 0.85 * 255 * np.array(render.HEAT(1.0)[:3])
    assert np.abs(drawn[1, 2] - expected).max() <= 1


def test_scale_is_per_image_and_can_be_shared(e):
    maps = torch.zeros(2, 3, 8, 8)
    maps[0], maps[1] = 1.0, 4.0
    b = blank({"gradient": maps})
    assert b.scale("gradient") == [1.0, 4.0]
    assert b.scale("gradient", shared=True) == [4.0, 4.0]
    assert np.asarray(b.picture("gradient", 0))[0, 0].tolist() == [255] * 3
    assert np.asarray(b.picture("gradient", 0, scale=4.0))[0, 0].tolist() == [round(255 * 0.625)] * 3
    for method in e.maps:
        drawn = e.saliency(method).numpy()
        assert e.scale(method) == pytest.approx([np.percentile(s, 99.5) for s in drawn])


@pytest.mark.parametrize("constant", [0.0, 2.0, -2.0])
def test_constant_maps_draw_as_such(constant):
    b = blank({"gradient": torch.full((1, 3, 8, 8), constant), "gradcam": torch.full((1, 2, 2), max(constant, 0.0))})
    signed, heat = np.asarray(b.picture("gradient")), np.asarray(b.picture("gradcam"))
    assert (signed == {0.0: 128, 2.0: 255, -2.0: 0}[constant]).all()
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) == 1
    texts = [t.get_text() for t in b.figure().texts]
    assert any("zero everywhere: gradient, Grad-CAM" in t for t in texts) == (constant == 0)


def test_a_sparse_map_still_shows():
    values = np.zeros((3, 64, 64), np.float32)
    values[0, 5, 5] = 0.1
    assert render.scale_of(values) == pytest.approx(0.1)


def test_an_input_of_unknown_range_is_stretched():
    assert np.asarray(render.stretched(np.zeros((3, 2, 2), np.float32))).tolist() == [[[128] * 3] * 2] * 2
    ramp = np.linspace(-4, 9, 12, dtype=np.float32).reshape(3, 2, 2)
    drawn = np.asarray(render.stretched(ramp))
    assert (drawn.min(), drawn.max()) == (0, 255)


def test_figure_and_sheet(e):
    figure = e.figure()
    assert len(figure.axes) == 2 * 6
    texts = [t.get_text() for t in figure.texts]
    assert texts[:6] == ["input", "gradient", "deconvnet", "guided backpropagation", "Grad-CAM", "Guided Grad-CAM"]
    assert texts[6].startswith("1, ")
    assert "layer body" in texts[-1]
    assert "each map its own" in texts[-1]
    assert "shared" in e.figure(shared=True).texts[-1].get_text()
    assert len(sheet([e, e]).axes) == 4 * 6
    assert e._repr_png_().startswith(b"\x89PNG")


def test_probabilities_are_not_made_up():
    scores = torch.tensor([[0.2, 0.7, 0.1]])
    b = blank({"gradient": torch.ones(1, 3, 8, 8)})
    assert dataclasses.replace(b, scores=scores).title() == "0, 20.0%"
    assert dataclasses.replace(b, scores=scores * 10).title() == f"0, {float((scores * 10).softmax(1)[0, 0]):.1%}"
    single = dataclasses.replace(b, scores=torch.tensor([[3.25]]), score=torch.tensor([3.25]))
    assert (single.title(), single.top()) == ("0, score 3.25", [])


def test_a_large_batch_is_a_figure_of_its_first_images():
    b = blank({"gradient": torch.ones(40, 3, 8, 8)})
    figure = b.figure()
    assert len(figure.axes) == 2 * 16
    assert "the first 16 of 40 rows" in figure.texts[-1].get_text().replace("\n", " ")


def test_the_caption_fits(e):
    """With one method the figure is narrow: the caption is wrapped, not cut off."""
    figure = relume.explain(Small().eval(), torch.randn(1, 3, 24, 24), 1, ["gradcam"], "body").figure()
    figure.canvas.draw()
    box = figure.texts[-1].get_window_extent()
    assert "each map its own" in figure.texts[-1].get_text().replace("\n", " ")
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def test_it_contains_its_methods(e):
    assert "gradcam" in e
    assert "nonsense" not in e
    assert list(e) == list(relume.METHODS)
    assert len(repr(e).splitlines()) == 3


def test_words(e):
    named = dataclasses.replace(e, labels=["cat", "dog", "fish", "cup", "car"])
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
    assert {p.name for p in folder.iterdir()} == set(e.files())
    with Image.open(folder / "guided_gradcam.1.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(e.picture("guided_gradcam", 1)))


def test_pictures_of_an_earlier_save_go(e, tmp_path):
    e.save(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"mine")
    alone = relume.explain(Small().eval(), torch.randn(1, 3, 24, 24), 1, ["gradcam"], "body")
    alone.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*alone.files(), "mine.png"}


# --- All or nothing ---


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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
