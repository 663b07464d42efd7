"""The performance benchmark, end to end on tiny networks: what is compared, counted and written, and no word about speed."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks import answers, detector, packing, recordings
from benchmarks import run as running
from benchmarks.performance import plan as plans
from benchmarks.performance.__main__ import main
from benchmarks.performance.cases import Case, measure
from benchmarks.performance.contenders import CONTENDERS
from benchmarks.performance.networks import Network
from benchmarks.performance.plan import Memory, Plan
from benchmarks.performance.record import fastest_peer, find, timing
from benchmarks.performance.report import insert, markdown, short
from benchmarks.performance.targets import TARGETS
from benchmarks.performance.timing import Pace, costs
from benchmarks.scene_networks import images_of, measured, pair, train
from torch import nn

import relume
from relume.demo import CLASSES
from relume.models import Opened
from relume.pictures import Preprocessing
from relume.targets import Class
from tests.helpers.networks import ResNet20, Small

ONCE = Pace(2, 2, 0)
SMALL = Network("small", "body", Small, (3, 24, 24), target=1)
FUNCTIONAL = Network("functional", "layer3", ResNet20, (3, 32, 32), target=2)
EVERYONE = tuple(CONTENDERS)
PLAN = Plan(
    cases=(
        Case("networks", SMALL, 2, None, ("guided", "guided_gradcam", "all", "recipe"), EVERYONE, ONCE, rates=False),
        *(Case("batch", SMALL, n, None, ("guided",), ("relume", "captum"), ONCE, defined=False, rates=False) for n in (1, 2)),
        Case("side", SMALL, 1, 32, ("guided",), ("relume", "captum"), ONCE, defined=False, rates=False),
    ),
    memory=(Memory(SMALL, "guided", "captum", 16, 1),),
    imports=1,
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of a run of the tiny plan, and its record."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.performance.__main__.QUICK", PLAN)
        main(quick=True, device="cpu", threads=1, output=folder)
    return SimpleNamespace(folder=folder, record=json.loads((folder / "performance.json").read_text(encoding="utf-8")))


def test_every_tool_is_compared_and_timed(ran):
    point = find(ran.record, "networks", "small")
    assert {(run["task"], run["contender"]) for run in point["runs"]} == {
        (task, key)
        for task in ("guided", "guided_gradcam", "all", "recipe")
        for key in EVERYONE
        if task == "guided" or key not in ("grad-cam", "zennit")
    }
    for run in point["runs"]:
        if run["contender"] == "bfloat16":
            assert run["error"] > 1e-4  # it did compute in fewer bits
        else:
            assert (run["word"], len(run["seconds"])) == ("", 2), run
            assert run["error"] < 1e-3
    assert set(point["reference"]) == {"forward", "prepared forward"}
    assert fastest_peer(ran.record, point, "guided")[0] in ("captum", "grad-cam", "zennit")
    assert [p["side"] for p in ran.record["points"]] == [24, 24, 24, 32]
    assert ran.record["memory"][0]["word"] == ""
    assert min(ran.record["memory"][0]["mib"]) >= 0
    assert ran.record["imports"][0]["loads_torch"] is False


def test_tables_and_figure_are_functions_of_the_record(ran, tmp_path):
    (tmp_path / "page.md").write_text(f"Before.\n{insert_marks()}\nAfter.\n")
    main(stored=ran.folder / "performance.json", output=tmp_path / "again", docs=tmp_path / "page.md")
    for name in ("performance.json", "performance.md", "performance.png", "performance.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (ran.folder / name).read_bytes(), name
    tables = (ran.folder / "performance.md").read_text(encoding="utf-8")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.startswith("Before.\n")
    assert page.endswith("\nAfter.\n")
    assert tables in page
    assert insert(page, tables) == page
    with pytest.raises(ValueError, match="no place for the tables"):
        insert("nothing", tables)


def test_the_benchmark_of_packing_runs_and_fills_its_page(monkeypatch, tmp_path, capsys):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    monkeypatch.setattr(
        packing, "import_torchvision", lambda: SimpleNamespace(models=SimpleNamespace(get_model=lambda *_, **__: net))
    )
    page = tmp_path / "page.md"
    page.write_text("before\n" + "no sentence\n".join(packing.MARKS) + "after\n", encoding="utf-8")
    packing.main("small", 2, 16, page)
    text, printed = page.read_text(encoding="utf-8"), capsys.readouterr().out
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert printed.strip() in text
    assert "no sentence" not in text
    assert all(f"| {name} | " in text for name in packing.RATIOS)


def test_ratios_of_packing_are_of_each_round():
    samples = {name: [1.0, 2.0, 3.0, 4.0] for pair in packing.RATIOS.values() for name in pair}
    samples["1 for 8"] = [2.0, 2.0, 3.0, 8.0]  # twice, once, once, twice as long
    row = packing.table(samples).splitlines()[2]
    assert row == "| prepared with 1 image, 8 at once | 2500 | 1.50 (1.00–2.00) |"


def test_the_detector_of_the_benchmark_learns_and_is_measured():
    """Few steps: its boxes are poor, but they are where the truth puts them, and every row of the table is there."""
    network = train(detector.Detector, detector.loss, 2, 2)
    scenes = [*map(pair, range(2))]
    truth = detector.truth_of(scenes, network)
    assert network(images_of(scenes)).shape == truth.shape == (2, 256, 17)
    for rows, scene in zip(truth, scenes, strict=True):
        cells = rows[:, 4] == 1
        centres, sizes = 8 * (network.cells + rows[:, :2])[cells], 8 * rows[cells, 2:4].exp()
        boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], 1).round().int().tolist()
        assert sorted(boxes) == sorted(list(thing.box) for thing in scene.things)
    assert 0 <= detector.mean_overlap(network, scenes) <= 1
    lines = detector.table(network, 1).splitlines()
    assert len(lines) == 2 + 3 * len(detector.METHODS)
    assert {line.count("|") for line in lines} == {7}
    assert all(line.endswith(" of 2 |") for line in lines[2:])


def test_a_run_is_timed_beside_loops_and_weighed(tmp_path):
    """All ways make the same maps."""
    opened = Opened("small", SMALL.build(calibrated=False), Preprocessing(24, 24))
    subject = running.Subject(opened, "body", running.files(tmp_path / "photos", 3, (40, 30)), 2)
    lines = running.ratios(subject, tmp_path / "ways", 1)
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == ["relume.run", *running.GOALS]
    stored = relume.Run.load(tmp_path / "ways" / "0").explanation("1.png")
    with np.load(tmp_path / "ways" / "1.npz") as saved:
        maps = subject.explained(stored.images), subject.by_captum(stored.images), {key: saved[key] for key in saved}
        for ways in zip(*(of_way.values() for of_way in maps), strict=True):
            assert all(np.allclose(values, ways[0], atol=1e-4 * float(abs(ways[0]).max())) for values in ways)
    assert np.allclose(stored["gradcam"], maps[0]["gradcam"], atol=1e-4 * float(stored["gradcam"].max()))
    lines = running.sizes(opened, [str(path) for path in subject.paths], tmp_path)[2:]
    assert [line.split(" | ")[0][2:] for line in lines] == [*running.STORES]
    lines = running.growth(relume.open_model("demo", "cpu"), 10, tmp_path)
    assert lines[0].startswith("10 rows, ")
    assert lines[-1].startswith("| 10 | ")


@pytest.mark.parametrize("name", answers.KINDS)
def test_the_networks_of_other_questions_learn_and_are_measured(name):
    """One step: the weights stay finite, and the maps of each question about a scene are measured."""
    kind = answers.KINDS[name]
    network = kind.opened(name)
    if kind.loss is not None:
        trained = train(kind.make, kind.loss, 1, 2, kind.draw)
        assert all(parameter.isfinite().all() for parameter in trained.parameters())
        network = replace(network, model=trained)
    if name == "segmentation":
        network.model.end.bias[1 + CLASSES.index(pair(0).things[0].name)] = 100  # one step may find no pixel of it
    rows = [row.split(" | ")[1] for row in answers.table(name, network, 1).splitlines()[2:]]
    assert rows == [relume.METHODS[key].title for key in kind.methods]


def test_shares_of_maps_are_counted():
    """All of a map lies on the picture, and nothing on no pixel; a scene without a question counts for nothing."""
    everywhere = np.ones((128, 128), dtype=bool)
    scenes = [(pair(0), [(Class(4), everywhere, ~everywhere), (Class(4), ~everywhere, everywhere)]), (pair(1), [])]
    rows = measured("words", answers.load_network(), scenes, ("gradient",), "layer3")
    assert rows == ["| words | gradient | 0.50 | 0.50 | 1 of 2 |"]


@pytest.mark.parametrize("world", recordings.WORLDS)
def test_the_table_of_recordings_has_every_method_and_measure(world):
    """That the figures are right is tested with the networks, in ``tests/demo``."""
    lines = recordings.table(recordings.measured(world, 1)).splitlines()
    assert lines[0].count("|") == 2 + len(recordings.MEASURES)
    assert [line.split(" | ")[0][2:] for line in lines[2:7]] == [relume.METHODS[key].title for key in recordings.METHODS]


def insert_marks():
    from benchmarks.performance.report import END, START

    return START + END


def test_a_wrong_tool_is_shown_as_wrong_and_not_as_fast():
    """Functional ReLUs, which hooks on modules do not see; one that raises; one whose map has another shape."""

    def fails(*_):
        raise ZeroDivisionError("it broke")

    def crops(model, network, images, methods):
        return {key: maps[..., 1:] for key, maps in CONTENDERS["captum"].ask(model, network, images, methods).items()}

    field = CONTENDERS | {
        "fails": replace(CONTENDERS["captum"], key="fails", ask=fails),
        "unopened": replace(CONTENDERS["captum"], key="unopened", opened=fails),
        "crops": replace(CONTENDERS["captum"], key="crops", ask=crops),
    }
    keys = ("relume", "captum", "fails", "unopened", "crops")
    point = measure(Case("networks", FUNCTIONAL, 2, None, ("guided",), keys, ONCE), torch.device("cpu"), field)
    words = {run["contender"]: run["word"] for run in point["runs"]}
    off = timing(point, "guided", "captum")["error"]
    assert off > 0.2
    assert words == {
        "relume": "",
        "captum": f"wrong ({off:.2g} off)",
        "fails": "raises ZeroDivisionError",
        "unopened": "raises ZeroDivisionError",
        "crops": "wrong (shape)",
    }
    assert [key for key in keys if timing(point, "guided", key)["seconds"]] == ["relume"]
    assert all(len(rate["seconds"]) == 2 for rate in point["rates"].values())
    assert len(point["rates"]) == 3
    record = record_of(point, keys)
    assert fastest_peer(record, point, "guided") is None
    table = markdown(record).partition("## Guided backpropagation")[2].partition("##")[0]
    row = next(line for line in table.splitlines() if line.startswith("| functional"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[4:8] == [words[key] for key in keys[1:]]
    assert cells[8] == ""  # no peer to be faster than


def record_of(*points_and_keys):
    *points, keys = points_and_keys
    machine = dict.fromkeys(("device", "cpu", "system", "python"), "cpu") | {"avx512_bf16": True}
    return {
        "machine": machine | dict.fromkeys(("cores", "threads", "memory_gib"), 1),
        "versions": {},
        "labels": {key: key for key in keys},
        "peers": [key for key in keys if key not in ("relume", "prepared", "lean", "bfloat16")],
        "points": list(points),
        "memory": [],
        "imports": [],
    }


def test_operations_are_those_counted_by_hand():
    """Two images: a convolution of 3 to 4 channels, 3 × 3 on 5 × 5 without padding, then 36 numbers to 10."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))
    before = copy.deepcopy(model.state_dict())
    flops, saved = costs(model, torch.randn(2, 3, 5, 5))
    forward = 2 * 2 * (9 * 4 * 3 * 9 + 36 * 10)
    assert flops == 2 * forward  # the gradient for the data costs as much, and none is made for weights
    assert saved == 4 * 2 * (
        3 * 5 * 5 + 36
    )  # the convolution's input, and the ReLU's result, which is the linear layer's input
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_what_is_too_large_is_said_and_not_run(monkeypatch):
    monkeypatch.setattr("benchmarks.performance.cases.room", lambda _device: 10)
    point = measure(Case("batch", SMALL, 4, None, ("guided",), ("relume", "captum"), ONCE), torch.device("cpu"))
    assert [(run["word"], run["seconds"]) for run in point["runs"]] == [("too large", [])] * 2


def test_targets_are_judged_by_the_figures_of_the_run():
    def run(task, contender, *seconds):
        return {"task": task, "contender": contender, "error": 0.0, "word": "", "detail": "", "seconds": list(seconds)}

    runs = [run("guided", "relume", 2, 4, 3), run("guided", "prepared", 2, 2, 2), run("guided", "bfloat16", 0.5)]
    runs += [
        run("guided", "captum", 3, 3, 9),
        run("guided", "grad-cam", 7),
        run("recipe", "prepared", 4),
        run("recipe", "captum", 8),
    ]
    point = {"group": "networks", "network": "resnet50", "batch": 8, "side": 224, "layers": 50, "flops": 100, "saved": 0}
    point |= {"against": "", "reference": {"forward": [2.0], "prepared forward": [0.8]}, "opening": {}, "runs": runs}
    point |= {"rates": {"slow": {"flops": 10, "seconds": [1.0]}, "fast": {"flops": 60, "seconds": [1.0, 1.0]}}}
    runs = [run("guided", "prepared", 2), run("guided", "captum", 3)]
    one = point | {"group": "batch", "batch": 1, "runs": runs}
    record = record_of(point, one, EVERYONE)
    record["memory"] = [
        {"network": "resnet50", "task": "guided", "contender": key, "batch": 16, "mib": [mib], "word": ""}
        for key, mib in {"captum": 100.0, "prepared": 61.0, "lean": 35.0}.items()
    ]
    record["imports"] = [{"package": "relume", "seconds": [0.2], "bare": [0.1], "loads_torch": True}]
    rows = [row.strip("| ").split(" | ") for row in markdown(record).partition("| asked")[2].split("\n\n")[0].splitlines()[2:]]
    assert len(rows) == len(TARGETS)
    assert {row[0].partition(",")[0] + "," + row[0].rpartition(" ")[2]: row[-3:] for row in rows} == {
        "guided backpropagation,Captum": ["1.00", "1.50", "**no**"],
        "the same,image": ["2.33", "3.50", "yes"],
        "guided backpropagation,graph": ["1.50", "2.50", "**no**"],
        "guided backpropagation,rate": ["0.556", "0.833", "**no**"],
        "Guided Grad-CAM,Captum": ["", "", "not measured"],
        "the recipe's four methods,calls": ["", "2.00", "**no**"],
        "bfloat16,prepared": ["", "4.00", "yes"],
        "one image,Captum": ["", "1.50", "yes"],
        "peak memory at batch 16,Captum's": ["", "0.610", "**no**"],
        "the same,lean": ["", "0.350", "yes"],
        "fastest peer over relume,lowest": ["1.00", "1.50", "yes"],
        "`import relume`,loaded": ["", "–", "**no**"],
    }


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (12.34, "12.3"), (0.9996, "1.000"), (0.01, "0.010"), (0, "0")])
def test_figures_have_three_digits(value, text):
    assert short(value) == text


def test_the_full_plan_has_the_networks_and_sizes_that_were_asked_for():
    across = {case.network.name for case in plans.FULL.cases if case.group == "networks"}
    assert across == {"resnet18", "resnet50", "resnet152", "vgg16", "densenet121", "mobilenet_v2", "r3d_18", "vit_b_16"}
    sizes = {group: [(c.batch, c.side) for c in plans.FULL.cases if c.group == group] for group in ("batch", "side")}
    assert (sizes["batch"][0], sizes["batch"][-1]) == ((1, None), (64, None))
    assert (sizes["side"][0], sizes["side"][-1]) == ((1, 112), (1, 1024))
    assert {m.contender for m in plans.FULL.memory if m.task == "guided"} == set(EVERYONE)
