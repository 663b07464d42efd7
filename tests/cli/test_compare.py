"""`relume compare`: what it writes, opened in a browser as a reader would."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect

import relume
from relume.cli import compare
from relume.demo import CLASSES, PREPROCESSING, draw_scene, load_network
from relume.demo.network import DemoNet
from relume.explanation import sheet
from tests.helpers.commands import relume_command, sentence

CAT, DOG = CLASSES.index("cat"), CLASSES.index("dog")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A scene, and one in the middle of a panorama."""
    folder = tmp_path_factory.mktemp("scenes")
    draw_scene(0, ["cat", "dog"]).picture.save(folder / "plain.png")
    wide = Image.new("RGB", (300, 128), "white")
    wide.paste(draw_scene(1, ["cat", "dog"]).picture, (86, 0))
    wide.save(folder / "wide.png")
    return [folder / "plain.png", folder / "wide.png"]


@pytest.fixture(scope="module")
def compared(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    # one by one, since the last bits of a map may depend on the photos beside it
    options = ["--method", "gradient,guided_gradcam", "--batch-size", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "MANY", 1)
        result = relume_command("compare", *scenes, "--target", "cat,dog", *options, "--output", folder)
    assert result.exit_code == 0, result.output
    assert "a page of 2 photos is large; relume run keeps any number" in result.stderr
    return folder, result.stdout


def test_it_writes_a_sheet_and_a_page_and_says_where(compared, scenes):
    folder, text = compared
    assert {p.name for p in folder.iterdir()} == {"sheet.png", "sheet.pdf", "compare.html"}
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:2]] == [str(p) for p in scenes]
    assert re.search(r"cat \(4\), [\d.]+%; dog \(6\), [\d.]+%", lines[0])
    assert f"→ {folder / 'compare.html'}  open it in a browser" in text
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 1000
    pdf = (folder / "sheet.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 1


def test_the_pdf_has_a_page_for_every_six_rows(scenes, tmp_path):
    names = ",".join(CLASSES[:7])
    assert relume_command("compare", scenes[0], "--target", names, "--method", "gradcam", "--output", tmp_path).exit_code == 0
    assert len(re.findall(rb"/Type /Page\b", (tmp_path / "sheet.pdf").read_bytes())) == 2


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1, 1]), (8, [2])])
def test_one_forward_pass_for_each_batch(scenes, tmp_path, monkeypatch, batch_size, batches):
    passes, forward = [], DemoNet.forward
    monkeypatch.setattr(DemoNet, "forward", lambda self, x: passes.append(len(x)) or forward(self, x))
    methods = ["--target", "cat,dog", "--method", "deconvnet,gradcam,guided_gradcam"]
    options = [*methods, "--batch-size", batch_size, "--output", tmp_path]
    assert relume_command("compare", *scenes, *options).exit_code == 0
    assert passes == batches


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_reader_slides_switches_and_reads_the_raw_values(compared, scenes, new_page, scheme):
    folder, _ = compared
    page = new_page(color_scheme=scheme)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "compare.html").as_uri())
    expect(page.locator("#caption")).to_contain_text("Guided Grad-CAM: cat (4)")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#caption")).to_contain_text("Guided Grad-CAM: dog (6)")
    page.keyboard.press("1")
    expect(page.locator("#caption")).to_contain_text("gradient: dog (6)")
    page.locator("input[type=range]").fill("40")
    opacity = page.evaluate("() => [...document.querySelectorAll('#stage *')].map(x => +getComputedStyle(x).opacity)")
    assert 0.4 in opacity
    image = PREPROCESSING.tensor(PREPROCESSING.view(Image.open(scenes[0])))[None]
    expected = relume.explain(load_network(), image, DOG, ["gradient"])["gradient"][0]
    with page.expect_download() as download:
        page.get_by_text("Download .npy").click()
    assert torch.equal(torch.from_numpy(np.load(download.value.path())), expected)
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    page.close()


def test_a_shared_scale_is_shared_by_all_photos_and_said(scenes, tmp_path, monkeypatch):
    drawn, figure = [], sheet.figure
    monkeypatch.setattr(sheet, "figure", lambda rows, *args, **options: drawn.append(rows) or figure(rows, *args, **options))
    args = ["--target", "cat,dog", "--method", "gradcam", "--scale", "shared", "--output", tmp_path]
    assert relume_command("compare", *scenes, *args).exit_code == 0
    ends = {cell.high for row in drawn[0] for cell in row.cells if cell.bar is not None}
    assert len(ends) == 1
    assert "the same for all: shared" in (tmp_path / "compare.html").read_text()
    assert [row.title.partition(":")[0] for row in drawn[0]] == ["plain.png", "plain.png", "wide.png", "wide.png"]


@pytest.mark.parametrize("kind", ["masked", "contours", "diverging", "absolute"])
def test_every_kind_can_be_compared(scenes, tmp_path, kind):
    assert relume_command("compare", scenes[1], "--method", "gradcam", "--kind", kind, "--output", tmp_path).exit_code == 0
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_photos_of_one_name_are_told_apart_and_large_ones_read_in_their_own_pixels(tmp_path, new_page):
    for i, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        draw_scene(i, ["cat", "dog"]).picture.resize((2560, 2560)).save(tmp_path / folder / "same.png", compress_level=1)
    photos = [tmp_path / folder / "same.png" for folder in ("a", "b")]
    assert relume_command("compare", *photos, "--method", "gradcam", "--output", tmp_path / "out").exit_code == 0
    page = new_page()
    page.goto((tmp_path / "out" / "compare.html").as_uri())
    names = page.locator(".photos span").all_text_contents()
    assert [Path(name).parent.name for name in names] == ["a", "b"]
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    x, y = map(int, page.locator("#reading dd").first.text_content().split(", "))
    assert abs(x - 1280) < 10
    assert abs(y - 1280) < 10
    page.close()


def test_a_photo_that_cannot_be_read_is_left_out(scenes, tmp_path):
    (tmp_path / "words.jpg").write_text("words")
    result = relume_command("compare", tmp_path / "words.jpg", scenes[0], "--method", "gradcam", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "words.jpg' is not a picture" in result.stderr
    assert "1 of 2 photos could not be explained" in result.stderr
    assert "plain.png" in (tmp_path / "out" / "compare.html").read_text()
    alone = relume_command("compare", tmp_path / "words.jpg", "--output", tmp_path / "none")
    assert alone.exit_code == 1
    assert not (tmp_path / "none").exists()


WRONG = {
    "kind": (["--kind", "heat"], "--kind is one of colour, diverging"),
    "scale": (["--scale", "big"], "--scale is own, shared or a value above zero; got 'big'"),
    "negative scale": (["--scale=-1"], "--scale is own, shared or a value above zero; got '-1'"),
    "percentile": (["--percentile", "101"], "--percentile is a number above 0, up to 100; got 101"),
    "both scales": (["--scale", "0.1", "--percentile", "90"], "--percentile finds the scale, and --scale gives it"),
    "target": (["--target", "dragon"], "dragon"),
    "method": (["--method", "lime"], "there is no method 'lime'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_done_is_said_before_anything_is_done(scenes, tmp_path, wrong):
    args, says = WRONG[wrong]
    assert says in sentence(relume_command("compare", scenes[0], *args, "--output", tmp_path / "out"), 2)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_comparison_leaves_nothing(scenes, tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("relume.pictures.formats.table.load_photo", interrupted)
    assert "stopped; nothing was written" in sentence(relume_command("compare", scenes[0], "--output", tmp_path / "out"), 130)
    assert not (tmp_path / "out").exists()
