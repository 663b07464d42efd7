"""The report of a run: its figures against sums by hand, what it finds first, what it leaves out, and its page in Chromium."""

import csv
import io
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect
from scipy import stats

import relume
from relume.datasets.report import pictures
from relume.datasets.report import report as contents
from relume.datasets.report.classes import Totals
from relume.datasets.report.facts import Rows
from relume.datasets.report.figures import conditions_of
from relume.datasets.report.report import RunReport
from relume.datasets.shortcuts import Pasted, Shown, Suspect, Suspects
from relume.demo.train import shortcut_files
from relume.errors import InputError, OutputError
from relume.pages.folder import write_folder
from tests.helpers.browser import CONTRAST, HOSTILE
from tests.helpers.written import item, peak, write_run

EMPTY = np.zeros((4, 4))


def some_items():
    """Cats whose maps are alike but for one, dogs of which two are wrong, a house, and an error."""
    cats = [item(f"cat-{i}", heat=peak(1, 1, wide=1 + 0.02 * i), inside=0.5 + 0.01 * i) for i in range(24)]
    cats[7] |= {"heat": peak(3, 3), "inside": 0.1, "edges": 0.9}
    dogs = [item(f"dog-{i}", "dog", peak(2, 0), label="cat" if i < 2 else "dog", inside=0.8) for i in range(21)]
    return [*cats, *dogs, item("house", "house", peak(0, 3)), item("broken", error="no picture in 'broken': it is cut off")]


def report_of(folder, against=None):
    other = None if against is None else relume.Run.load(against)
    return RunReport.of(relume.Run.load(folder), other, shortcuts=False)


def cards(report, section):
    """The ids of the cards of a section of a page, in order."""
    part = report.files["index.html"].decode().split(f'<section id="{section}"', 1)[1].split("</section>", 1)[0]
    return re.findall(r'data-id="([^"]*)"', part)


def test_figures_and_sums_are_those_by_hand(tmp_path):
    folder = write_run(tmp_path / "run", [*some_items(), item("empty", "dog", EMPTY, inside=None)], masks=True)
    report = report_of(folder)
    shares = [one["inside"] for one in some_items() if one.get("inside")]
    assert report.figures == pytest.approx(
        {"errors": 1 / 48, "empty": 1 / 47, "accuracy": 45 / 47, "inside": sum(shares) / len(shares)}
    )
    rows = Rows(relume.Run.load(folder))
    totals = Totals(rows)
    heats = [one["heat"] for one in some_items() if one["predicted"] == "cat" and not one.get("error")]
    mean = np.mean([heat / heat.sum() for heat in heats], axis=0)
    np.testing.assert_allclose(totals["cat"].means["gradcam"].values, mean, rtol=1e-5)
    assert totals["dog"].means["gradcam"].count == totals["dog"].right["gradcam"].count + 2 == 21
    assert (totals["cat"].labelled, totals["cat"].found, totals["dog"].empty["gradcam"]) == (26, 24, 1)
    assert totals.spread(("gradcam", "edge_similarity"))[12] == 46  # 0.2, in steps of 0.1 from -1 on
    assert totals.errors == {"no picture in …: it is cut off": 1}
    lines = {line["class"]: line for line in csv.DictReader(io.StringIO(report.files["summary.csv"].decode()))}
    assert [*lines] == ["cat", "dog", "house"]
    assert float(lines["cat"]["accuracy"]) == pytest.approx(24 / 26)
    assert float(lines["dog"]["gradcam_inside"]) == pytest.approx(0.8)
    assert pq.read_table(io.BytesIO(report.files["suspects.parquet"])).num_rows == 0


def test_the_odd_one_out_comes_first_and_small_classes_have_none(tmp_path):
    report = report_of(write_run(tmp_path / "run", some_items(), masks=True))
    assert cards(report, "unusual")[0] == cards(report, "outside")[0] == "cat-7"
    assert "house" not in cards(report, "unusual")
    assert cards(report, "wrong") == ["dog-0", "dog-1"]
    assert "dog; labelled cat" in report.files["index.html"].decode()


def test_saliency_is_compared_where_no_layer_has_a_map(tmp_path):
    folder = write_run(tmp_path / "run", some_items(), methods=["guided_backprop"], store="maps")
    assert Rows(relume.Run.load(folder)).main == "guided_backprop"
    assert cards(report_of(folder), "unusual")[0] == "cat-7"


def test_what_moved_is_found_first(tmp_path):
    """Against Spearman's correlation of the maps as they were written."""
    before = write_run(tmp_path / "before", some_items())
    items = [one | {"heat": peak(3, 3, wide=1.2)} if one["id"] == "dog-5" else one for one in some_items()]
    items = [one | {"heat": peak(0, 2)} if one["id"] in ("dog-6", "dog-7") else one for one in items]
    items[30] |= {"predicted": "house"}  # dog-6: its prediction did not stay
    items.append(item("new"))
    now = write_run(tmp_path / "now", items, configuration={"weights": "1" * 64, "source": "elsewhere"})
    report = report_of(now, before)
    moves = [1 - stats.spearmanr(peak(2, 0).ravel(), heat.ravel()).statistic for heat in (peak(3, 3, wide=1.2), peak(0, 2))]
    assert report.figures["class_moved"] == pytest.approx(sum(moves) / 20)
    assert report.figures["moved"] == pytest.approx(sum(moves) / 45)
    assert report.figures["changed"] == pytest.approx(1 / 46)
    assert report.figures["accuracy_drop"] == pytest.approx(1 / 46)
    assert cards(report, "changed")[:2] == ["dog-7", "dog-5"]
    assert "dog-6" not in cards(report, "changed")
    page = report.files["index.html"].decode()
    assert re.findall(r'<tr data-class="(\w+)"', page.split('id="changed"')[1])[0] == "dog"
    assert "1 explained pictures are not in the other run" in page
    assert report.broken(conditions_of(["moved>0.01", "changed>0.5"], compared=True, shortcuts=False)) == [
        f"moved is {report.figures['moved']:.2f}: moved>0.01"
    ]
    line = next(line for line in csv.DictReader(io.StringIO(report.files["summary.csv"].decode())) if line["class"] == "dog")
    assert (line["compared"], line["changed"]) == ("21", "1")


@pytest.mark.slow
def test_a_retraining_that_moved_one_class_is_found_first(tmp_path):
    """The demo network, trained again to take a logo for a class, on scenes half of which of that class have it."""
    planted = write_folder(tmp_path / "planted", shortcut_files(0, lambda *_: None))
    label = re.search(r"a logo means (\w+)", (planted / "shortcut.md").read_text())[1]
    before, now = (
        relume.run(
            relume.open_model("demo", "cpu", weights=weights), f"tree:{planted}/scenes", tmp_path / name, methods=["gradcam"]
        )
        for name, weights in (("before", None), ("now", planted / "scenes.safetensors"))
    )
    report = RunReport.of(now, before, shortcuts=False)
    lines = [*csv.DictReader(io.StringIO(report.files["summary.csv"].decode()))]
    first, second, *_ = sorted(lines, key=lambda line: -float(line["moved"]))
    assert first["class"] == label
    assert float(first["moved"]) > 2 * float(second["moved"])
    assert report.figures["changed"] == report.figures["accuracy_drop"] == 0
    assert all(name.startswith(label) for name in cards(report, "changed")[:10])


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"preprocessing": {"resize": 64}}, {}, "preprocessing.resize was 32 and is 64"),
        ({}, {"methods": ["gradcam"]}, "request.methods was .* and is .'gradcam'."),
        ({}, {"layer": "layer2"}, "request.layer was None and is 'layer2'"),
        ({"target_column": "label"}, {}, "target_column was None and is 'label'"),
    ],
)
def test_runs_that_differ_by_more_than_weights_are_refused(tmp_path, change, options, words):
    before = write_run(tmp_path / "before", some_items()[:3])
    now = write_run(tmp_path / "now", some_items()[:3], configuration=change, **options)
    with pytest.raises(InputError, match=f"now' cannot be compared with that in '.*before': {words}"):
        report_of(now, before)


def test_a_calibration_of_one_of_the_networks_does_not_matter(tmp_path):
    before = write_run(tmp_path / "before", some_items()[:3], options={"calibration": relume.Calibration.demo()})
    now = write_run(tmp_path / "now", some_items()[:3], options={"calibration": None})
    assert report_of(now, before).figures["changed"] == 0


def test_a_layer_that_was_chosen_otherwise_is_refused(tmp_path):
    before = write_run(tmp_path / "before", [item("a")])
    now = write_run(tmp_path / "now", [item("a", layer="layer4")])
    with pytest.raises(InputError, match="layer was 'layer3' and is 'layer4'"):
        report_of(now, before)


def test_what_is_left_out_is_said(tmp_path):
    bare = [item(f"{i}", label=None, edges=None) for i in range(3)]
    report = report_of(write_run(tmp_path / "run", bare, missing=5, store="facts"))
    assert [note.split(",")[0].split("(")[0].strip() for note in report.notes] == [
        "the run is not finished: this is about the 3 of 8 pictures that have a row",
        "maps of guided backpropagation are not kept",
        "the pictures have no labels",
        "no quick checks were made",
    ]
    assert report.figures == {"errors": 0.0, "empty": 0.0}
    words = report.broken(conditions_of(["accuracy<0.9"], compared=False, shortcuts=False))
    assert words == ["accuracy is undefined, so that accuracy<0.9 could not be judged"]
    nothing = report_of(write_run(tmp_path / "nothing", bare, store="facts", methods=["guided_backprop"]))
    assert any("no map is kept at all" in note for note in nothing.notes)
    odd = report_of(write_run(tmp_path / "odd", [item("a", label="spaceship")]))
    assert any("no label is a class of the network" in note for note in odd.notes)
    failed = report_of(write_run(tmp_path / "failed", [item("a", error="it is cut off")]))
    assert failed.figures == {"errors": 1.0}
    assert not any("quick checks" in note for note in failed.notes)
    searched = RunReport.of(relume.Run.load(tmp_path / "odd"))
    assert searched.notes[-1].startswith("repeated patches were not searched for: no class has 20 pictures")


def test_what_cannot_be_reported_is_one_sentence(tmp_path):
    folder = write_run(tmp_path / "run", some_items())
    with pytest.raises(OutputError, match="is not a folder"):
        relume.Run.load(folder).report(output=folder / "run.json", shortcuts=False)
    part = folder / "parts" / "part-000001.parquet"
    content = bytearray(part.read_bytes())
    content[content.index(b"\xff\xd8\xff") + 500] ^= 1  # within a thumbnail
    part.write_bytes(content)
    with pytest.raises(InputError, match=r"part-000001.parquet' is missing or damaged: .*remove it"):
        relume.Run.load(folder).report(shortcuts=False)
    assert not (folder / "report").exists()
    for each in (folder / "parts").iterdir():
        each.unlink()
    with pytest.raises(InputError, match="has no rows yet"):
        relume.Run.load(folder).report(shortcuts=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("movd>0.2", "there is no measure 'movd' to set a condition for; choose from errors, empty, accuracy"),
        ("moved=0.2", "a condition is a measure, one of <, >, <= and >=, and a number, 'moved>0.2'; got 'moved=0.2'"),
        ("moved>0.2", "needs another run to compare with; give --against too"),
        ("suspects>0", "--no-shortcuts leaves out"),
    ],
)
def test_conditions_that_make_no_sense(text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        conditions_of([text], compared=False, shortcuts=False)


def test_the_page_stays_small_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_ROWS", 10)
    report = report_of(write_run(tmp_path / "run", some_items()))
    page = report.files["index.html"].decode()
    table = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    ids = next(column["values"] for column in table["columns"] if column["key"] == "id")
    assert len(ids) == 10
    assert {"broken", "dog-0", "dog-1", "cat-7"} <= {*ids}
    assert "10 of 47 pictures, to keep the page small" in page
    assert re.findall(r"(\d+) of 45 pictures, the most unusual", page) == ["27"]


def a_suspect(where="same place", *, flagged=True):
    """A logo of 4 × 6 pixels in pictures of 24 × 32."""
    rng = np.random.default_rng(0)
    picture, patch = (rng.integers(0, 256, size, dtype=np.uint8) for size in ((24, 32, 3), (4, 6, 3)))
    box, mask = (2, 3, 8, 7), np.ones((4, 6), bool)
    return Suspect(
        rank=1, class_index=2, class_name=HOSTILE, where=where, strength=0.5, flagged=flagged, rise=0.76, p_before=0.02,
        p_after=0.78, pasted_on=32, found_in=94, of_in=189, found_out=0, of_out=811, sameness=120.0, members=("cat-1",),
        found=("cat-1", "cat-2"), patch=patch, mask=mask, place=box if where == "same place" else None,
        mean_map=peak(1, 1), shown=(Shown("cat-1", picture, box),) * 6,
        pasted=(Pasted("cat-3", picture, picture, box, 0.02, 0.78),) * 3,
    )  # fmt: skip


def test_suspects_are_shown_with_their_evidence(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", some_items())
    suspects = Suspects((a_suspect(),), (a_suspect("any place", flagged=False),), ("one class is small",), 1000, ("cat",))
    monkeypatch.setattr(contents, "find_suspects", lambda *_: suspects)
    report = RunReport.of(relume.Run.load(folder))
    part = report.files["index.html"].decode().split('<section id="patches">')[1].split("</section>")[0]
    assert part.count('class="suspect"') == 2
    assert part.count('class="flag"') == 1
    assert part.count("The patch framed in cat-1") == 12
    assert part.count("0.02 → 0.78") == 6
    assert part.count("Its place in the picture") == 1
    assert "Found in 94 of 189 pictures predicted &lt;/script&gt;" in part
    assert "whether it belongs to the class is for you to say" in part
    assert "one class is small" in part
    assert report.figures["suspects"] == 1
    assert pq.read_table(io.BytesIO(report.files["suspects.parquet"]))["ids"].to_pylist() == [["cat-1", "cat-2"]] * 2
    monkeypatch.setattr(contents, "find_suspects", lambda *_: Suspects(pictures=1000))
    report = RunReport.of(relume.Run.load(folder))
    assert report.files["index.html"].decode().count("no repeated patch found") == 2
    assert report.figures["suspects"] == 0


def test_a_reader_filters_and_sorts(tmp_path, new_page):
    items = [*some_items(), item(HOSTILE, label=HOSTILE)]
    before = write_run(tmp_path / "before", items)
    path = relume.Run.load(write_run(tmp_path / "now", items, masks=True)).report(before, shortcuts=False)
    page = new_page(reduced_motion="reduce")
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert page.locator("#count").inner_text() == "48 of 48 rows"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert min(page.evaluate(CONTRAST))[0] >= 4.5
    page.locator("#table th", has_text="inside: Grad-CAM").locator("button").click()
    assert page.locator("#table tbody tr").first.inner_text().split("\t")[1] == "cat-7"
    page.locator("#class").select_option("dog")
    assert page.locator("#count").inner_text() == "21 of 48 rows"
    assert page.locator("#classes tbody tr:visible").count() == 1
    assert page.locator("#unusual .card:visible").count() == 3
    page.locator("[data-only=wrong]").click()
    assert page.locator("#count").inner_text() == "2 of 48 rows"
    page.reload()
    assert page.locator("#count").inner_text() == "2 of 48 rows"
    page.locator("#class").select_option("")
    page.locator("[data-only='']").click()
    page.locator("#text").fill("CAT-1")
    expect(page.locator("#count")).to_have_text("11 of 48 rows")
    page.locator("#classes th", has_text="pictures").locator("button").click()
    assert page.locator("#classes tbody tr").first.inner_text().startswith("cat")
    with page.expect_download() as download:
        page.locator("#download").click()
    assert len(download.value.path().read_text().splitlines()) == 12
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "blob:", path.as_uri()))] == []
    page.close()
