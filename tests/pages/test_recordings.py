"""The page of `relume compare` for volumes, video and signals, driven in headless Chromium."""

import io
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from relume.pages.recordings import RecordingMap, RecordingTarget, RecordingView, coarse_shape, coarsened, recordings_page
from relume.pictures.ground import palette
from relume.pictures.kinds import KINDS
from relume.pictures.recording import Recording
from tests.helpers.browser import CONTRAST, HOSTILE

GENERATOR = np.random.default_rng(4)
SIZE = (6, 10, 8)
SCAN = GENERATOR.uniform(-1000, 1000, (1, *SIZE)).astype(np.float32)
FINE = GENERATOR.normal(0, 0.4, (4, 10, 8)).astype(np.float32)
COARSE = np.zeros((2, 2, 2), np.float32)
COARSE[1, 0, 1] = 1
FILL = Image.new("RGB", (40, 30), "grey")


def a_map(key, values, kind="volume", name=None, **more):
    recording = Recording(np.zeros((1, *[4] * (1 if kind == "signal" else 3)), np.float32), kind)
    colours = palette(recording, KINDS["diverging"])
    options = {"ends": (-1, 1), "legend": f"Full strength at 1, {key}.", "at": () if kind == "signal" else (3, 4, 5)} | more
    return RecordingMap(key, name or f"By {key}", values, 1.0, colours, FILL, Image.new("RGBA", (256, 1), "blue"), **options)


def a_volume(**more):
    """The network saw slices 1 to 5 of 6."""
    targets = [
        RecordingTarget("cyst (1), 93.1%", [a_map("heat", COARSE), a_map("gradient", FINE)]),
        RecordingTarget("none", [a_map("gradient", -FINE)]),
    ]
    values = {"values": SCAN, "limits": (-1000, 1000), "spacing": (2.0, 1.0, 1.0), "unit": "mm", "picture": FILL}
    values |= {"name": "scan.nii.gz", "kind": "volume", "box": ((1, 5), (0, 10), (0, 8)), "targets": targets}
    return RecordingView(**values | more)


def a_video():
    values = GENERATOR.integers(0, 255, (3, *SIZE)).astype(np.uint8)
    options = {
        "values": values,
        "kind": "video",
        "limits": (0, 255),
        "spacing": (0.5, 1.0, 1.0),
        "unit": "s",
        "name": "clip.mp4",
    }
    return a_volume(**options, targets=[RecordingTarget("run", [a_map("heat", COARSE, "video")])])


SIGNAL = np.stack([np.sin(np.arange(400) / 20), np.zeros(400)]).astype(np.float32)


def a_signal(**more):
    relevance = np.zeros((2, 300), np.float32)
    relevance[0, 150:200], relevance[0, 250:260] = 1, -1
    targets = [
        RecordingTarget("beat", [a_map("heat", np.ones(3, np.float32), "signal"), a_map("gradient", relevance, "signal")])
    ]
    values = {"name": "ecg.npy", "kind": "signal", "values": SIGNAL, "limits": (0, 1), "spacing": (0.01,), "unit": "s"}
    values |= {"box": ((0, 300),), "picture": FILL, "targets": targets, "channels": (0, 1)}
    return RecordingView(**values | more)


@pytest.fixture
def read(new_page, tmp_path):
    """Open recordings as a reader would. Whatever the reader does, nothing is asked of a network and nothing goes wrong."""
    opened = []

    def read(views, **options):
        file = tmp_path / "index.html"
        file.write_text(recordings_page(views, title="Maps"), encoding="utf-8")
        page = new_page(**options)
        page.set_default_timeout(5000)
        seen = SimpleNamespace(page=page, requests=[], complaints=[])
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(file.as_uri())
        opened.append((seen, file.as_uri()))
        if options.get("java_script_enabled", True):
            loaded = "() => loaded.has(`scan-${chosen.photo}`) && loaded.has(`map-${mapId()}`)"
            page.wait_for_function(loaded, timeout=30_000)
        return page

    yield read
    for seen, address in opened:
        seen.page.close()
        elsewhere = [url for url in seen.requests if not url.startswith((address, "data:", "blob:"))]
        assert (elsewhere, seen.complaints) == ([], [])


def reading(page):
    return dict(zip(*(page.locator(f"#reading {tag}").all_text_contents() for tag in ("dt", "dd")), strict=True))


def number(text):
    return float(re.sub("[≥≤ ]", "", text).replace("−", "-"))


def pixels(page, axis=0):
    picture = page.locator(f".plane[data-axis='{axis}'] canvas").screenshot()
    read = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), int)
    edge = np.ones(read.shape[:2], bool)
    edge[3:-3, 3:-3] = False
    for corner in (np.s_[:6, :6], np.s_[:6, -6:], np.s_[-6:, :6], np.s_[-6:, -6:]):  # they are round, and show the page
        edge[corner] = True
    read[edge] = read[12, 12]
    return read


def hover(page, axis, x, y):
    """Point at a place of a plane, from 0 to 1 from its left and its top."""
    box = page.locator(f".plane[data-axis='{axis}'] canvas").bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def choose_before(page):
    """Choose the method before, the focus being on none of the sliders, and wait for its map."""
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => loaded.has(`map-${mapId()}`)")


def test_every_voxel_is_read_in_every_plane(read):
    page = read([a_volume()])
    for axis, (x, y), (k, i, j) in [
        (0, (5.5 / 8, 2.5 / 10), (3, 2, 5)),
        (1, (1.5 / 8, 1 - 2.5 / 6), (2, 4, 1)),
        (2, (7.5 / 10, 1 - 4.5 / 6), (4, 7, 5)),
    ]:
        hover(page, axis, x, y)
        said = reading(page)
        assert [int(said[name]) for name in ("slice", "row", "column")] == [k, i, j]
        assert said["place"] == f"{2 * k} mm, {i} mm, {j} mm"
        assert number(said["volume"]) == pytest.approx(SCAN[0, k, i, j], abs=1000 / 255 + 5)
        value = FINE[k - 1, i, j]
        assert number(said["map"]) == pytest.approx(np.clip(value, -1, 1), abs=0.5 / 127 + 0.005)
    hover(page, 1, 0.5, 0.99)  # the first slice, which the network never saw
    assert reading(page)["map"] == "not seen by the network"
    expect(page.locator("#needle")).to_have_attribute("d", "")


def test_values_beyond_full_strength_are_said_to_be(read):
    targets = [RecordingTarget("t", [a_map("m", np.full((4, 10, 8), -3, np.float32))])]
    page = read([a_volume(targets=targets)])
    assert reading(page)["map"] == "≤ −1"


def test_sliders_keys_and_the_pointer_walk_through_the_slices(read):
    page = read([a_volume()])
    outputs = [f".plane[data-axis='{axis}'] output" for axis in range(3)]
    shown = lambda: page.locator(".plane output").all_text_contents()  # noqa: E731
    assert shown() == ["3 of 6", "4 of 10", "5 of 8"]
    page.locator("#slice-1").fill("7")
    expect(page.locator(outputs[1])).to_have_text("7 of 10")
    for key, expected in [("PageUp", "8 of 10"), ("PageDown", "7 of 10")]:
        page.keyboard.press(key)
        expect(page.locator(outputs[1])).to_have_text(expected)
    page.locator("#slice-0").focus()
    page.keyboard.press("ArrowRight")  # the slider's own
    assert shown()[0] == "4 of 6"
    hover(page, 2, 2.5 / 10, 1 - 1.5 / 6)
    page.mouse.down()
    page.mouse.up()
    assert shown() == ["1 of 6", "2 of 10", "5 of 8"]
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Shift+ArrowUp")  # slices rise
    page.keyboard.press("Shift+ArrowRight")
    assert shown() == ["2 of 6", "3 of 10", "5 of 8"]
    page.keyboard.press("c")
    assert shown() == ["3 of 6", "4 of 10", "5 of 8"]
    hover(page, 0, 0.5, 0.5)
    page.keyboard.down("Shift")
    page.mouse.wheel(0, 100)
    expect(page.locator(outputs[0])).to_have_text("4 of 6")


def test_the_planes_show_the_scan_and_the_map_where_they_are(read):
    """One bright voxel, one red cell of a coarse map, and the first slice beyond what the network saw."""
    scan = np.zeros((1, *SIZE), np.float32)
    scan[0, 3, 2, 6] = 1
    page = read([a_volume(values=scan, limits=(0, 1))])
    page.locator("#opacity").fill("0")
    page.keyboard.press("l")
    for axis, at in [(0, (3, 2, 6)), (1, (3, 2, 6)), (2, (3, 2, 6))]:
        page.evaluate(f"place = {list(at)}; draw()")
        rows, columns = np.nonzero(pixels(page, axis).min(2) > 128)
        height, width = pixels(page, axis).shape[:2]
        middle = [(rows.mean() + 0.5) / height, (columns.mean() + 0.5) / width]
        down, across = [other for other in range(3) if other != axis]
        expected = [(at[down] + 0.5) / SIZE[down], (at[across] + 0.5) / SIZE[across]]
        np.testing.assert_allclose(middle, [1 - expected[0] if down == 0 else expected[0], expected[1]], atol=0.02)
    assert pixels(page, 1)[-3:].min() > 20  # dimmed black is grey
    page.locator("#opacity").fill("100")
    choose_before(page)
    page.evaluate("place = [4, 2, 6]; draw()")
    picture = pixels(page)
    red = np.argwhere((picture[..., 0] - picture[..., 2] > 70) & (picture[..., 0] > 90))
    assert (red[:, 0].max() / picture.shape[0], red[:, 1].min() / picture.shape[1]) == pytest.approx((0.6, 0.4), abs=0.12)
    assert page.evaluate("between(2, 5, (i) => 2 * i)") == [[0, 1, 0], [0, 1, 0], [0, 1, 0.5], [0, 1, 1], [0, 1, 1]]


def test_distances_on_the_screen_follow_the_spacing(read):
    page = read([a_volume()])
    boxes = [page.locator(f".plane[data-axis='{axis}'] canvas").bounding_box() for axis in range(3)]
    scale = boxes[0]["width"] / 8
    sizes = [(box["width"] / scale, box["height"] / scale) for box in boxes]
    np.testing.assert_allclose(sizes, [(8, 10), (8, 12), (10, 12)], rtol=0.01)
    for part in ".planes", "#caption", "#scale":
        expect(page.locator(part)).to_be_in_viewport(ratio=1)


def test_opacity_targets_and_methods_are_chosen_as_on_the_page_of_photos(read):
    page = read([a_volume(), a_volume(name="other.nii")])
    expect(page.locator("#caption")).to_have_text("scan.nii.gz · By gradient: cyst (1), 93.1%")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#caption")).to_have_text("scan.nii.gz · By gradient: none")
    page.wait_for_function("() => loaded.has(`map-${mapId()}`)")
    values = number(reading(page)["map"])
    page.keyboard.press("ArrowUp")
    assert number(reading(page)["map"]) == -values
    page.keyboard.press("n")
    expect(page.locator("#caption")).to_contain_text("other.nii")
    before = pixels(page)
    page.keyboard.press("o")
    expect(page.locator("#percent")).to_have_text("0%")
    assert np.abs(pixels(page) - before).max() > 30


def test_a_video_has_one_plane_and_its_time(read):
    page = read([a_video()])
    expect(page.locator(".plane")).to_have_count(1)
    expect(page.locator(".plane output")).to_have_text("3 of 6 · 1.5 s")
    page.keyboard.press("PageUp")
    expect(page.locator(".plane output")).to_have_text("4 of 6 · 2 s")
    said = reading(page)
    assert said["frame"] == "4"
    assert len(said["video"].split(", ")) == 3
    expect(page.locator("#lines")).to_have_count(0)


def test_a_signal_is_read_and_shown_where_it_is_relevant(read):
    page = read([a_signal()])
    box = page.locator("#stage").bounding_box()
    left, right = 56, 12

    def at(sample):
        page.mouse.move(box["x"] + left + sample / 399 * (box["width"] - left - right), box["y"] + 60)
        return reading(page)

    said = at(170)
    assert said["sample"].split(" · ") == ["170", "1.7 s"]
    assert np.float32(said["channel 0"]) == SIGNAL[0, 170]
    assert (said["map 0"], said["map 1"]) == ("1", "0")
    assert at(350)["map 0"] == "not seen by the network"
    page.keyboard.press("Shift+ArrowLeft")
    assert reading(page)["sample"].startswith("349")
    page.mouse.move(2, 2)
    page.locator("#opacity").fill("100")
    picture = np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB"), int)
    for sign, (first, last) in [(1, (150, 200)), (-1, (250, 260))]:
        columns = np.flatnonzero((sign * (picture[..., 0] - picture[..., 2]) > 70).any(axis=0))
        samples = (columns - left) / (box["width"] - left - right) * 399
        assert (samples.min(), samples.max()) == pytest.approx((first, last), abs=4)
    choose_before(page)  # a coarse map, which is the same for all channels
    assert at(100)["map"] == "1"
    page.mouse.move(2, 2)
    page.keyboard.press("+")
    assert page.evaluate("view.end - view.start") == pytest.approx(1 / 1.5)
    page.keyboard.press("f")
    assert page.evaluate("view.end - view.start") == 1


@pytest.mark.parametrize("view", [a_volume, a_video, a_signal])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_readable_on_any_screen(read, view, scheme):
    page = read([view()], color_scheme=scheme, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    worst = page.evaluate(CONTRAST)[0]
    assert worst[0] >= 4.5, worst


@pytest.mark.parametrize("view", [a_volume, a_signal])
def test_hostile_names_are_only_text_and_without_scripts_every_map_is_shown(read, view):
    kind = view().kind
    shown = a_map(HOSTILE, view().targets[0].maps[0].values, kind, name=HOSTILE, legend=HOSTILE)
    hostile = view(name=HOSTILE, targets=[RecordingTarget(HOSTILE, [shown])], top=[(HOSTILE, 0.5)], facts={HOSTILE: HOSTILE})
    page = read([hostile])
    assert page.evaluate("typeof pwned") == "undefined"
    for place in ["#targets button", "#legend", ".sheet:visible h2", ".sheet:visible dt"]:
        expect(page.locator(place)).to_have_text(HOSTILE)
    plain = read([view()], java_script_enabled=False)
    expect(plain.locator(".viewer")).to_be_hidden()
    expect(plain.locator(".cells img:visible")).to_have_count(len(view().targets[0].maps) + (1 if kind == "volume" else 0))


def test_a_large_volume_is_made_coarser_and_its_places_stay(read, monkeypatch):
    monkeypatch.setattr("relume.pages.recordings.MOST_CELLS", 100)
    page = read([a_volume()])
    assert page.evaluate("size()") == list(coarse_shape(SIZE, 100))
    expect(page.locator(".plane output >> nth=1")).to_contain_text("of 10")
    boxes = [page.locator(f".plane[data-axis='{axis}'] canvas").bounding_box() for axis in range(2)]
    assert boxes[0]["height"] / boxes[0]["width"] == pytest.approx(10 / 8, rel=0.01)
    assert boxes[1]["height"] / boxes[1]["width"] == pytest.approx(12 / 8, rel=0.01)


@pytest.mark.parametrize("shape", [(7, 5, 3), (300, 2, 2), (64, 64, 64), (1, 1, 1)])
def test_blocks_keep_what_is_strongest_and_are_few_enough(shape):
    values = GENERATOR.normal(size=shape).astype(np.float32)
    coarse = coarsened(values, 60)
    assert coarse.shape == coarse_shape(shape, 60)
    assert coarse.size <= 60 or coarse.shape == shape
    assert {values.max(), values.min()} & set(coarse.ravel())
    assert coarsened(values, math.prod(shape)) is values
    mean = coarsened(np.ones(shape), 60, mean=True)
    np.testing.assert_allclose(mean, 1)
