"""What an audit shows: its curves and pictures by value, its figure, its page in headless Chromium, its files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from playwright.sync_api import expect

import relume
from relume.auditing import CHECKS
from relume.auditing.charts import draw_chart
from relume.auditing.checks.faithfulness import CURVES
from relume.auditing.drawing import Chart, Curve, number
from relume.auditing.figure import MOST, audit_figure
from relume.auditing.page import audit_page
from relume.errors import OutputError
from relume.pictures import kinds as render
from relume.pictures.palette import CURVES as STROKES
from relume.pictures.scale import scale_of
from tests.helpers.browser import CONTRAST, HOSTILE
from tests.helpers.networks import Small


def audited(method="gradcam", labels=None, checks=CHECKS):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return relume.audit(Small().eval(), images, method=method, labels=labels, checks=checks)


@pytest.fixture(scope="module")
def reports():
    return [audited("guided_backprop"), audited("gradcam")]


@pytest.fixture(scope="module")
def views(reports):
    return [report.view(1) for report in reports]


# --- Strips and curves ---------------------------------------------------------------------------------------------------


def test_the_curve_of_the_cascade_begins_at_the_map_itself(reports, views):
    found, (chart,) = reports[0].checks, views[0].sections["randomisation"].charts
    assert chart.curves[0].y[0] == 1
    np.testing.assert_array_equal(chart.curves[0].y[1:], found["randomisation"].cascade["absolute"][:, 1])
    assert chart.lines == {
        "small noise": found["stability"].noise["absolute"][1],
        "random pair": found["randomisation"].random_pair["absolute"][1],
    }
    assert list(chart.marks) == [0, 1, 2, 4, 5, 6, 7]  # of seven layers
    assert chart.low <= np.nanmin(chart.curves[0].y)


def test_the_strip_shows_the_stages_that_it_names(reports, views):
    found, strip = reports[0].checks, views[0].sections["randomisation"].strips[0]
    layers = found["randomisation"].layers
    assert [tile.name for tile in strip.tiles] == ["as it is", *(f"to {layers[k - 1]}" for k in (1, 2, 4, 5, 6, 7))]
    for k, tile in zip((1, 2, 4, 5, 6, 7), strip.tiles[1:], strict=True):
        stage = found["randomisation"].stages[k - 1, 1].astype(np.float32)
        assert tile.picture.tobytes() == render.absolute(stage, scale_of(stage)).tobytes()
        assert tile.note.startswith(f"{k} of 7 random: ")


def test_maps_of_all_classes_have_one_scale_and_it_is_printed(reports, views):
    found, strip = reports[0].checks, views[0].sections["classes"].strips[0]
    maps = [reports[0].maps, *found["classes"].maps.values()]
    full = max(scale_of(m.saliency[1].astype(np.float32)) for m in maps)
    assert f"full strength at {full:.3g}" in strip.scale
    for tile, m in zip(strip.tiles, maps, strict=True):
        assert tile.picture.tobytes() == render.absolute(m.saliency[1].astype(np.float32), full).tobytes()


def test_the_edge_strip_has_the_edges_and_the_picture_beside_the_map(reports, views):
    strip = views[0].sections["edges"].strips[0]
    assert [tile.name for tile in strip.tiles] == ["the map", "Sobel's edges", "Canny's edges", "the image itself"]
    sobel = reports[0].checks["edges"].similarity["sobel"]["absolute"][1]
    assert strip.tiles[1].note == f"similarity {sobel:.2f}".replace("-", "−")


def test_charts_hold_the_curves_of_the_three_orders(reports, views):
    charts = views[0].sections["faithfulness"].charts
    assert len(charts) == 3
    for chart, (kind, shares) in zip(charts, CURVES.items(), strict=True):
        for curve in chart.curves:
            np.testing.assert_array_equal(curve.x, shares)
            np.testing.assert_array_equal(curve.y, reports[0].checks["faithfulness"].curves[kind][curve.role][1])


def test_measures_are_read_with_two_digits_and_a_minus_that_is_one():
    assert [number(v) for v in (0.345, -0.5, -0.001, float("nan"))] == ["0.34", "−0.50", "0.00", "undefined"]


def test_a_chart_has_gaps_and_names_its_lines_apart():
    from matplotlib.figure import Figure

    y = np.array([1.0, 0.5, np.nan, 0.0, -1.0])
    chart = Chart("t", "x", "y", [Curve("method", np.arange(5.0), y)], -1, 1, {"a": 0.5, "b": 0.5}, [0, 4])
    axes = Figure().subplots()
    draw_chart(axes, chart)
    np.testing.assert_array_equal(next(line for line in axes.lines if line.get_label() == "the map's order").get_ydata(), y)
    (dots,) = (line for line in axes.lines if line.get_marker() == "o")
    assert [*zip(*dots.get_data(), strict=True)] == [(0, 1), (4, -1)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["−1", "−0.5", "0", "0.5", "1"]
    first, second = axes.texts
    assert (first.get_text(), second.get_text()) == ("a\n0.50", "b\n0.50")
    assert first.xy[1] - second.xy[1] > 0.3


# --- The figure ----------------------------------------------------------------------------------------------------------


def test_the_figure_draws_these_curves(reports, views):
    figure = reports[0].figure()
    assert isinstance(figure, Figure)
    drawn = [line for axes in figure.axes for line in axes.lines if line.get_color() == STROKES["method"]["color"]]
    curves = [line.get_ydata() for line in drawn]
    for chart in [chart for section in views[0].sections.values() for chart in section.charts]:
        own = next(curve.y for curve in chart.curves if curve.role == "method")
        assert any(np.array_equal(own, curve, equal_nan=True) for curve in curves), chart.title
    words = "\n".join(text.get_text() for text in figure.texts)
    assert " ".join(reports[0].verdicts[0].text.split()[:8]) in " ".join(words.split())
    assert views[0].sections["classes"].strips[0].scale in words


def test_a_long_figure_is_cut_and_says_so(views):
    figure = audit_figure([views[0]] * (MOST + 2))
    assert figure.texts[-1].get_text() == f"the first {MOST} of {MOST + 2} maps"


@pytest.mark.parametrize("checks", [[name] for name in CHECKS])
def test_any_check_alone_can_be_shown(checks, tmp_path):
    report = audited("gradient", checks=checks)
    report.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"audit.json", "audit.png", "index.html"}
    assert report.verdicts[0].text in report._repr_html_()


# --- Files ---------------------------------------------------------------------------------------------------------------


def test_a_report_saves_itself_whole_or_not_at_all(reports, tmp_path):
    assert reports[0].save(tmp_path / "out") == tmp_path / "out"
    facts = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert facts == {"format": 1, "audits": [json.loads(json.dumps(reports[0].as_dict()))]}
    assert (tmp_path / "out" / "index.html").read_text().count("<article") == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        reports[0].save(tmp_path / "file")


def test_a_notebook_shows_the_verdict_and_the_strips(reports):
    html = reports[0]._repr_html_()
    assert html.count("<img") == 2 * (7 + 4 + 4)
    assert "<script" not in html
    assert all(verdict.text in html for verdict in reports[0].verdicts)


# --- The page ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def read(new_page, tmp_path):
    """Open a page as a reader would; nothing is asked of a network, and nothing goes wrong."""
    pages, requests, complaints = [], [], []

    def read(groups, title="Audit", **options):
        file = tmp_path / "index.html"
        file.write_text(audit_page(groups, title=title), encoding="utf-8")
        page = new_page(**options)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield read
    for page in pages:
        page.close()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert complaints == []


def test_the_page_puts_verdicts_first_and_methods_side_by_side(read, views):
    page = read([views])
    for n, view in enumerate(views):
        section = page.locator(".verdict").nth(n)
        expect(section).to_contain_text(view.method)
        expect(section).to_contain_text(view.verdict.text)
    rows = page.locator("tbody tr")
    assert rows.count() == 13
    for n, row in enumerate(views[0].rows):
        expect(rows.nth(n).locator("th")).to_contain_text(row.measure.meaning)
        cells = rows.nth(n).locator("td.measure .number").all_text_contents()
        assert cells == [number(view.rows[n].value) for view in views]
        assert rows.nth(n).locator("td.beyond").count() == sum(view.rows[n].beyond for view in views)
    assert page.locator("figure svg[role=img], .stages svg[role=img]").count() == 2 * 4
    assert page.locator("img").count() == 1 + 2 * (7 + 4 + 4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_readable(read, views, scheme):
    page = read([views, views], color_scheme=scheme)
    found = [pair for pair in page.evaluate(CONTRAST) if not pair[1].startswith("<text")]
    assert len(found) > 50
    assert found[0][0] >= 4.5, found[:3]
    page.locator("#theme").click()
    found = [pair for pair in page.evaluate(CONTRAST) if not pair[1].startswith("<text")]
    assert found[0][0] >= 4.5, found[:3]


@pytest.mark.parametrize("scripts", [True, False])
def test_everything_is_there_without_scripts_and_a_phone_scrolls_one_way(read, views, scripts):
    page = read([views, views], viewport={"width": 360, "height": 740}, java_script_enabled=scripts)
    expect(page.locator("nav a")).to_have_count(2)
    expect(page.locator("img:visible")).to_have_count(2 * (1 + 2 * (7 + 4 + 4)))
    wide = page.locator("html").evaluate("e => e.scrollWidth") if scripts else 360
    assert wide == 360


def test_hostile_names_are_only_text(read):
    report = audited("gradcam", labels=[HOSTILE] * 5, checks=["classes", "edges"])
    view = report.view()
    bad = dataclasses.replace(view, name=HOSTILE, about=[HOSTILE], notes=[HOSTILE])
    page = read([[bad], [bad]], title=HOSTILE)
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator("script").count() == 1
    expect(page).to_have_title(HOSTILE)
    expect(page.locator("h2").first).to_have_text(HOSTILE)
    expect(page.locator("nav a").first).to_have_text(HOSTILE)
    assert "<img src=x" not in report._repr_html_()


def test_a_stage_without_a_map_is_grey_and_said(reports):
    found = reports[0].checks["randomisation"]
    stages = found.stages.copy()
    stages[0] = np.nan
    checks = {**reports[0].checks, "randomisation": dataclasses.replace(found, stages=stages, lost=("head.3", "x"))}
    view = dataclasses.replace(reports[0], checks=checks).view()
    tile = view.sections["randomisation"].strips[0].tiles[1]
    assert tile.note == "1 of 7 random: no map"
    assert tile.picture.getcolors() == [(1024, (128, 128, 128))]
    assert "2 stages, head.3 the first, gave no map, and count in no average" in view.notes
