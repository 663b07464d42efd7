"""Pieces of pages: a figure as an element of one, in the colours of its theme and under its policy."""

from matplotlib.figure import Figure
from playwright.sync_api import expect

from relume.pages.html import inline_svg
from relume.pictures.palette import COLOURS, CURVES, INK, properties

POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{}'">"""


def chart(title):
    sheet = Figure(figsize=(4, 2))
    axes = sheet.add_subplot()
    for i, style in enumerate(CURVES.values()):
        axes.plot([0, 1, 2], [0, i, 1], **style)
    axes.set_title(title, color=INK, parse_math=False)
    return sheet


def test_a_figure_takes_the_colours_of_its_page_and_keeps_its_policy(new_page, tmp_path):
    import base64
    import hashlib

    style = properties() + ":root { color-scheme: dark; }"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    piece = inline_svg(chart("a < b & $c$"), '"quoted"')
    page, complaints = new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    (tmp_path / "page.html").write_text(f"<!doctype html>{POLICY.format(digest)}<style>{style}</style>{piece}{piece}")
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator("svg").first).to_have_attribute("aria-label", '"quoted"')
    title = page.get_by_text("a < b & $c$").first
    assert title.evaluate("e => getComputedStyle(e).fill") == "rgb(236, 232, 226)"
    strokes = page.locator("svg path").evaluate_all("paths => paths.map(path => getComputedStyle(path).stroke)")
    assert "rgb(240, 173, 92)" in strokes
    assert complaints == []
    page.close()


def test_the_same_figure_is_the_same_element_without_styles_and_groups_named_twice():
    piece = inline_svg(chart("one"), "one")
    assert piece == inline_svg(chart("one"), "one")
    assert "style" not in piece
    assert 'id="figure_1"' not in piece
    assert not any(light in piece for light, _ in COLOURS.values())
