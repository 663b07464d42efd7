"""The page of `relume compare`, driven in headless Chromium: what a reader does with it, and what it must never do."""

import dataclasses
import io
import itertools
import re
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from relume.pages.comparison import MapView, PhotoView, TargetView, compare_page
from tests.helpers.browser import CONTRAST, HOSTILE

SPECIAL = np.array([-0.0, 1e-45, 3.4028235e38, 0.1, 1 / 3, 16777216, -1.17549435e-38, 1.03556636e36], dtype=np.float32)


def a_map(key, values, layer=None, high=0.5, low=-0.5):
    height, width = values.shape[-2:]
    noise = np.random.default_rng(zlib.crc32(values)).integers(0, 256, (height, width, 4), dtype=np.uint8)
    bar = Image.new("RGBA", (256, 1), "blue")
    return MapView(key, f"By {key}", values, layer or Image.fromarray(noise), bar, (low, high), f"Full strength at {high}.")


def some_photos():
    """One photo whose sides were cut off, one that was padded above and below."""
    generator = np.random.default_rng(7)

    def values(*shape):
        return generator.normal(size=shape).astype(np.float32)

    first, second = values(3, 40, 40), values(3, 40, 40)
    first.flat[: len(SPECIAL)] = SPECIAL
    wide, flat = (Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in [(400, 640), (50, 100)])
    cats = [a_map("gradient", first), a_map("heat", values(5, 7), low=0), a_map("both", values(3, 40, 40))]
    dogs = [a_map("gradient", second), a_map("heat", np.zeros((5, 7), np.float32), high=0, low=0)]
    targets = [TargetView("cat (4), 93.1%", cats), TargetView("dog (6), 2.0%", dogs)]
    top = [("cat", 0.931), ("dog", 0.02)]
    return [
        PhotoView("wide.jpg", wide, (120, 0, 520, 400), targets, top, {"Network": "demo", "Layer": "layer3"}),
        PhotoView("flat.png", flat, (0, -25, 100, 75), [TargetView("cup", [a_map("gradient", values(1, 20, 20))])]),
    ]


@pytest.fixture
def read(new_page, tmp_path):
    """Open photos as a reader would. Whatever the reader does, nothing is asked of a network and nothing goes wrong."""
    opened = []

    def read(photos=None, title="Maps", fragment="", **options):
        photos = some_photos() if photos is None else photos
        file = tmp_path / "index.html"
        file.write_text(compare_page(photos, title=title), encoding="utf-8")
        page = new_page(**options)
        page.set_default_timeout(5000)
        seen = SimpleNamespace(page=page, photos=photos, requests=[], complaints=[])
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(file.as_uri() + fragment)
        opened.append((seen, file.as_uri()))
        return seen

    yield read
    for seen, address in opened:
        seen.page.close()
        elsewhere = [url for url in seen.requests if not url.startswith((address, "data:", "blob:"))]
        assert (elsewhere, seen.complaints) == ([], [])


def chosen(page):
    """The names of what is pressed: photo, target and method."""
    pressed = page.locator(".photos [aria-pressed=true] span, .choices [aria-pressed=true]").all()
    return [re.sub(r"\d$", "", button.text_content()).strip() for button in pressed]


def reading(page):
    """What the page says of the place that is read, once it has unpacked the map."""
    page.evaluate("() => numbers(mapId()).then(() => new Promise(requestAnimationFrame))")
    return dict(zip(*(page.locator(f"#reading {tag}").all_text_contents() for tag in ("dt", "dd")), strict=True))


def strongest(values):
    return values[np.abs(values).argmax()]


def pair(text):
    return tuple(map(int, text.split(", ")))


def hover(page, x, y, extent):
    """Move the mouse to the photo's point (x, y), and say where that is; ``extent`` is all that is shown."""
    box = page.locator("#stage").bounding_box()
    scale = max(extent[2] / box["width"], extent[3] / box["height"])
    middle = extent[0] + extent[2] / 2, extent[1] + extent[3] / 2
    at = box["x"] + box["width"] / 2 + (x - middle[0]) / scale, box["y"] + box["height"] / 2 + (y - middle[1]) / scale
    page.mouse.move(*at)
    return at


WIDE, FLAT = (0, 0, 640, 400), (0, -25, 100, 100)


def centre(page, colour):
    """Where on the screen the middle is of what has this colour on the stage."""
    stage = page.locator("#stage").bounding_box()
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=stage))).convert("RGB"), dtype=int)
    rows, columns = np.nonzero((np.abs(pixels - colour) < 40).all(axis=2))
    assert len(rows), colour
    return stage["x"] + columns.mean() + 0.5, stage["y"] + rows.mean() + 0.5


def test_it_opens_on_the_first_target_and_the_last_map(read):
    page = read(title="Two photos").page
    assert chosen(page) == ["wide.jpg", "cat (4), 93.1%", "By both"]
    expect(page).to_have_title("Two photos")
    expect(page.locator("#caption")).to_have_text("wide.jpg · By both: cat (4), 93.1%")
    expect(page.locator("#legend")).to_have_text("Full strength at 0.5.")
    assert page.locator("#ends span").all_text_contents() == ["-0.5", "0", "0.5"]
    sheet = page.locator(".sheet:visible")
    expect(sheet).to_have_count(1)
    expect(sheet.locator(".about")).to_contain_text("93.1%")
    assert sheet.locator(".about dl > *").all_text_contents() == ["Network", "demo", "Layer", "layer3"]


def test_one_photo_alone_gives_the_page_its_name(read):
    page = read(some_photos()[:1], title="relume").page
    expect(page).to_have_title("wide.jpg · relume")
    expect(page.locator("h1")).to_have_text("wide.jpg · relume")
    expect(page.locator("#caption")).to_have_text("By both: cat (4), 93.1%")


@pytest.mark.parametrize("size", [(1360, 900), (1000, 700)])
def test_all_of_the_picture_and_its_scale_is_in_sight_and_so_is_the_chosen_of_many_photos(read, size):
    photos = [dataclasses.replace(some_photos()[i % 2], name=f"{i}.jpg") for i in range(16)]
    page = read(photos, fragment="#method=gradient", viewport=dict(zip(("width", "height"), size, strict=True))).page
    for key in "n", "n", "p", "p", "p", "p", "n":
        page.keyboard.press(key)
        for shown in ".photos [aria-pressed=true]", "#stage", "#caption", "#scale", "#legend":
            expect(page.locator(shown)).to_be_in_viewport(ratio=1)
    page.locator(".about:visible").scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    assert before > 0
    page.keyboard.press("n")
    page.keyboard.press("p")
    assert page.evaluate("scrollY") == before  # only the strip of photos is scrolled


def test_keys_choose_photo_target_and_method(read):
    page = read().page
    steps = [
        ("ArrowLeft", ["wide.jpg", "cat (4), 93.1%", "By heat"]),
        ("ArrowDown", ["wide.jpg", "dog (6), 2.0%", "By heat"]),
        ("ArrowRight", ["wide.jpg", "dog (6), 2.0%", "By gradient"]),
        ("ArrowUp", ["wide.jpg", "cat (4), 93.1%", "By gradient"]),
        ("3", ["wide.jpg", "cat (4), 93.1%", "By both"]),
        ("9", ["wide.jpg", "cat (4), 93.1%", "By both"]),
        ("n", ["flat.png", "cup", "By gradient"]),
        ("p", ["wide.jpg", "cat (4), 93.1%", "By gradient"]),
    ]
    for key, expected in steps:
        page.keyboard.press(key)
        assert chosen(page) == expected, key
        assert page.locator("#layer").get_attribute("href") == "#map-" + page.evaluate("mapId()")
        assert page.locator("#photo").get_attribute("href") == f"#photo-{page.evaluate('chosen.photo')}"
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("ArrowRight")  # a dialog keeps the keys to itself
    page.keyboard.press("Escape")
    assert chosen(page)[2] == "By gradient"


def test_a_zero_map_has_no_scale_and_says_so(read):
    page = read(fragment="#target=1&method=heat").page
    expect(page.locator("#scale")).to_be_hidden()
    expect(page.locator(".sheet:visible [aria-pressed=true] small")).to_have_text("zero everywhere")


def test_the_mouse_chooses_too_and_a_reload_brings_it_back(read):
    page = read().page
    page.get_by_role("button", name="dog (6), 2.0%", exact=True).click()
    page.get_by_role("button", name="By gradient 1").click()
    assert chosen(page) == ["wide.jpg", "dog (6), 2.0%", "By gradient"]
    page.get_by_role("button", name="By heat, cat (4), 93.1%").click()
    assert chosen(page) == ["wide.jpg", "cat (4), 93.1%", "By heat"]
    page.get_by_role("button", name="Dark").click()
    page.reload()
    assert chosen(page) == ["wide.jpg", "cat (4), 93.1%", "By heat"]
    expect(page.get_by_role("button", name="Light")).to_be_visible()
    page.get_by_role("button", name="flat.png").click()
    assert chosen(page) == ["flat.png", "cup", "By gradient"]


def test_the_slider_sets_the_opacity_of_the_overlay(read):
    page = read().page
    layer, slider = page.locator("#layer"), page.locator("#opacity")
    expect(layer).to_have_css("opacity", "0.8")
    expect(page.locator("#percent")).to_have_text("80%")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(layer).to_have_css("opacity", "0.5")
    page.keyboard.press("ArrowLeft")  # the slider has the focus, and so the arrows
    expect(layer).to_have_css("opacity", "0.49")
    page.keyboard.press(",")
    expect(layer).to_have_css("opacity", "0.44")
    page.keyboard.press("o")
    expect(layer).to_have_css("opacity", "0")
    page.keyboard.press("o")
    expect(page.locator("#percent")).to_have_text("44%")
    page.keyboard.press("g")
    expect(page.locator("#photo")).to_have_css("filter", "grayscale(1)")


@pytest.mark.parametrize("size", [(1280, 900), (1000, 700), (360, 740)])
def test_the_pointer_reads_the_exact_values(read, size):
    seen = read(fragment="#method=gradient", viewport=dict(zip(("width", "height"), size, strict=True)))
    values = seen.photos[0].targets[0].maps[0].values
    for row, column in [(0, 1), (0, 2), (0, 6), (0, 7), (39, 39), (17, 23)]:
        x, y = 120 + 10 * column + 5, 10 * row + 5  # the middle of a cell, of 10 pixels
        hover(seen.page, x, y, WIDE)
        said = reading(seen.page)
        assert np.abs(np.subtract(pair(said["photo x, y"]), (x, y))).max() <= 1
        assert pair(said["map x, y"]) == (column, row)
        read_back = np.array([said["R"], said["G"], said["B"]], dtype=np.float64).astype(np.float32)
        np.testing.assert_array_equal(read_back, values[:, row, column])
        assert np.float32(said["strongest"]) == strongest(values[:, row, column])
    hover(seen.page, 119 - 10, 200, WIDE)
    said = reading(seen.page)
    assert said["map x, y"] == "not seen by the network"
    assert {said[name] for name in ("R", "G", "B", "strongest")} == {"–"}


@pytest.mark.parametrize("low", [-2, 0])
def test_the_needle_marks_the_strongest_channel_on_the_scale(read, low):
    values = np.zeros((3, 40, 40), np.float32)
    values[:, 17, 23] = 0.25, -1.5, 1
    seen = read([dataclasses.replace(some_photos()[0], targets=[TargetView("t", [a_map("m", values, high=2, low=low)])])])
    hover(seen.page, 355, 175, WIDE)
    assert reading(seen.page)["strongest"] == "-1.5"
    marked = (-1.5 if low else 1.5) - low
    expect(seen.page.locator("#needle")).to_have_attribute("d", f"M{marked / (2 - low)} -.4V1.4")
    hover(seen.page, 60, 175, WIDE)
    expect(seen.page.locator("#needle")).to_have_attribute("d", "")


def test_channels_that_are_no_colours_are_numbered(read):
    values = np.random.default_rng(3).normal(size=(4, 40, 40)).astype(np.float32)
    seen = read([dataclasses.replace(some_photos()[0], targets=[TargetView("t", [a_map("m", values)])])])
    hover(seen.page, 355, 175, WIDE)
    said = reading(seen.page)
    assert list(said)[2:] == ["channel 0", "channel 1", "channel 2", "channel 3", "strongest"]
    np.testing.assert_array_equal([np.float32(said[f"channel {c}"]) for c in range(4)], values[:, 17, 23])
    assert np.float32(said["strongest"]) == strongest(values[:, 17, 23])


def test_a_coarse_map_is_read_by_its_cells(read):
    seen = read(fragment="#method=heat")
    hover(seen.page, 120 + 400 / 7 * 2.5, 80 * 3.5, WIDE)
    said = reading(seen.page)
    assert list(said) == ["photo x, y", "map x, y", "value"]
    assert pair(said["map x, y"]) == (2, 3)
    assert np.float32(said["value"]) == seen.photos[0].targets[0].maps[1].values[3, 2]


def test_padding_is_read_though_it_is_no_part_of_the_photo(read):
    seen = read()
    seen.page.keyboard.press("n")
    hover(seen.page, 52.5, -2.5, FLAT)
    said = reading(seen.page)
    assert (said["photo x, y"], pair(said["map x, y"])) == ("–", (10, 4))
    assert np.float32(said["value"]) == seen.photos[1].targets[0].maps[0].values[0, 4, 10]


def test_shift_and_arrows_read_cell_by_cell(read):
    seen = read(fragment="#method=gradient")
    hover(seen.page, 125, 5, WIDE)
    for key in ["ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"]:
        seen.page.keyboard.press(f"Shift+{key}")
    said = reading(seen.page)
    assert pair(said["map x, y"]) == (1, 1)
    assert np.float32(said["B"]) == seen.photos[0].targets[0].maps[0].values[2, 1, 1]
    expect(seen.page.locator("#reading")).to_have_attribute("aria-live", "polite")


def test_what_is_seen_is_what_is_read_zoomed_and_dragged(read):
    """A red pixel of the photo and a green cell of the map: the pointer, put where they shine, names them."""
    photo = Image.new("RGB", (300, 200), "black")
    photo.putpixel((211, 63), (255, 0, 0))
    layer = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    layer.putpixel((29, 14), (0, 255, 0, 255))
    values = np.zeros((3, 40, 40), np.float32)
    page = read([PhotoView("one.png", photo, (50, 0, 250, 200), [TargetView("t", [a_map("m", values, layer)])])]).page
    page.locator("#opacity").fill("100")
    x, y = hover(page, 205, 68, (0, 0, 300, 200))
    for _ in range(3):
        page.mouse.dblclick(x, y)
    assert page.evaluate("view.zoom") == 8
    for picture in "#photo", "#layer":
        expect(page.locator(picture)).to_have_css("image-rendering", "pixelated")
    page.mouse.move(2, 2)
    before = centre(page, (255, 0, 0))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=3)
    page.mouse.up()
    page.mouse.move(2, 2)
    np.testing.assert_allclose(np.subtract(centre(page, (255, 0, 0)), before), (60, 40), atol=0.5)
    for colour, name, where in [((255, 0, 0), "photo x, y", (211, 63)), ((0, 255, 0), "map x, y", (29, 14))]:
        page.mouse.move(2, 2)
        page.mouse.move(*centre(page, colour))
        assert pair(reading(page)[name]) == where
    page.keyboard.press("f")
    assert page.evaluate("view.zoom") == 1
    expect(page.locator("#photo")).to_have_css("image-rendering", "auto")


def test_what_the_network_did_not_see_is_dimmed(read):
    target = TargetView("t", [a_map("m", np.zeros((3, 9, 9), np.float32))])
    page = read([PhotoView("red.png", Image.new("RGB", (300, 200), "red"), (50, 20, 250, 180), [target])]).page
    page.locator("#opacity").fill("0")
    pixels = np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB"), dtype=int)
    rows, columns = np.nonzero((pixels == (255, 0, 0)).all(axis=2))
    scale = 300 / pixels.shape[1]
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * scale
    np.testing.assert_allclose(found, (50, 20, 250, 180), atol=1)
    outline = [page.locator("#box").get_attribute(edge) for edge in ("x", "y", "width", "height")]
    assert outline == ["50", "20", "200", "160"]
    assert (pixels[5, 5] - (255, 0, 0)).max() > 100


def test_a_finger_reads(read):
    seen = read(fragment="#method=gradient", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    box = seen.page.locator("#stage").bounding_box()
    seen.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert reading(seen.page)["photo x, y"] == "320, 200"


@pytest.mark.parametrize("method", ["gradient", "heat"])
def test_the_download_is_the_map_bit_by_bit(read, method, tmp_path):
    seen = read(fragment=f"#method={method}")
    with seen.page.expect_download() as found:
        seen.page.locator("#download").click()
    assert found.value.suggested_filename == f"wide_cat_4_93.1_{method}.npy"
    found.value.save_as(tmp_path / "map.npy")
    values, truth = np.load(tmp_path / "map.npy"), seen.photos[0].targets[0].maps[["gradient", "heat"].index(method)].values
    assert (values.dtype, values.shape) == (np.float32, truth.shape)
    assert values.tobytes() == truth.tobytes()


@pytest.mark.parametrize(("scheme", "button"), [("light", "Dark"), ("dark", "Light")])
def test_light_and_dark_are_readable_and_switch(read, scheme, button):
    page = read(color_scheme=scheme, reduced_motion="reduce").page
    pages = {"light": "rgb(252, 251, 249)", "dark": "rgb(21, 20, 19)"}
    root = page.locator(":root")
    expect(root).to_have_css("background-color", pages[scheme])
    for _ in "one scheme", "the other":
        page.locator("#help").click()
        found = page.evaluate(CONTRAST)
        page.keyboard.press("Escape")
        assert len(found) > 50
        assert found[0][0] >= 4.5, found[:3]
        page.keyboard.press("t")
    expect(root).to_have_css("background-color", pages[scheme])
    page.get_by_role("button", name=button).click()
    expect(root).to_have_css("background-color", pages[button.lower()])


def test_hostile_names_are_only_text(read):
    values = np.ones((3, 4, 4), np.float32)
    shown = MapView(HOSTILE, HOSTILE, values, Image.new("RGBA", (4, 4)), Image.new("RGBA", (9, 1)), (0, 1), HOSTILE)
    target = TargetView(HOSTILE, [shown])
    photo = PhotoView(HOSTILE, Image.new("RGB", (8, 8)), (0, 0, 8, 8), [target], [(HOSTILE, 0.5)], {HOSTILE: HOSTILE})
    page = read([photo, photo], title=HOSTILE).page
    page.keyboard.press("n")
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1 + 2 + 1  # ours, a map for each photo, the facts
    expect(page).to_have_title(HOSTILE)
    for place in ["h1", ".photos span >> nth=0", "#targets button", "#legend", ".sheet:visible h2", ".sheet:visible dt"]:
        expect(page.locator(place)).to_have_text(HOSTILE)
    with page.expect_download() as found:
        page.keyboard.press("d")
    assert re.fullmatch(r"[\w.]+\.npy", found.value.suggested_filename)


def test_its_policy_lets_nothing_in_and_nothing_out(read):
    seen = read()
    tried = """async () => {
      const refused = [];
      addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
      await fetch("https://example.org/").catch(() => {});
      document.body.append(Object.assign(document.createElement("script"), { textContent: "pwned = 1" }));
      document.body.append(Object.assign(document.createElement("img"), { src: "https://example.org/a.png" }));
      document.body.append(Object.assign(document.createElement("style"), { textContent: "body { display: none }" }));
      await new Promise((done) => setTimeout(done, 100));
      return [refused.sort(), typeof pwned];
    }"""
    assert seen.page.evaluate(tried) == [["connect-src", "img-src", "script-src-elem", "style-src-elem"], "undefined"]
    seen.requests.clear()  # asked for on purpose, and refused
    seen.complaints.clear()


def test_without_scripts_every_map_is_still_shown(read):
    seen = read(java_script_enabled=False)
    expect(seen.page.locator("noscript .note")).to_be_visible()
    expect(seen.page.locator(".viewer")).to_be_hidden()
    expect(seen.page.locator(".cells svg:visible")).to_have_count(6)
    for button in seen.page.locator(".cells button").all():
        name = button.get_attribute("data-map")
        shown = [use.get_attribute("href") for use in button.locator("use").all()]
        assert shown == [f"#photo-{name[0]}", f"#map-{name}"]
    shown = [image.get_attribute("href") for image in seen.page.locator("[id^=map-]").all()]
    assert len(set(shown)) == 6


def test_a_phone_scrolls_in_one_direction_only(read):
    page = read(viewport={"width": 360, "height": 740}).page
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_on_a_phone_the_slider_is_directly_under_the_picture(read):
    page = read(viewport={"width": 360, "height": 740}).page
    parts = ["#stage", "#opacity", "#caption", "#scale", "#reading", "#targets", "#methods", "#download"]
    boxes = [page.locator(part).bounding_box() for part in parts]
    assert all(above["y"] + above["height"] <= below["y"] for above, below in itertools.pairwise(boxes))
    expect(page.locator("#opacity")).to_be_in_viewport()
    page.locator("#zoom-in").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#opacity")).to_be_focused()  # the keyboard's order is the eye's


@pytest.mark.parametrize(("given", "size"), [((4000, 500), None), ((800, 100), (4000, 500))])
def test_large_photos_are_made_smaller_and_keep_their_coordinates(read, given, size):
    """What is given, the photo or a smaller copy of it, is read in the photo's own pixels."""
    photo = Image.new("RGB", given, "white")
    photo.paste((255, 0, 0), tuple(int(edge * given[0] / 4000) for edge in (2980, 105, 3020, 145)))
    values = np.zeros((3, 10, 80), np.float32)
    target = TargetView("t", [a_map("m", values, Image.new("RGBA", (80, 10)))])
    page = read([PhotoView("pano.jpg", photo, (0, 0, 4000, 500), [target], size=size)]).page
    assert len(page.content()) < 200_000
    page.mouse.move(2, 2)
    page.mouse.move(*centre(page, (255, 0, 0)))
    said = reading(page)
    assert np.abs(np.subtract(pair(said["photo x, y"]), (3000, 125))).max() <= 4000 / 800  # a pixel of the screen
    assert pair(said["map x, y"]) in {(59, 2), (60, 2)}
    assert page.evaluate("photo().pixel") == 4000 / min(given[0], 1600)


def test_the_same_photos_make_the_same_page():
    assert compare_page(some_photos(), title="a") == compare_page(some_photos(), title="a")
