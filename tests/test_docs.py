"""README and docs are executed: every Python block, every command, every link, every option."""

import dataclasses
import functools
import importlib.util
import io
import json
import re
import shlex
from pathlib import Path

import matplotlib as mpl
import nibabel
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import relume
from relume import evaluation
from relume.auditing import CHECKS, randomise
from relume.cli import app
from relume.datasets import DATASETS
from relume.datasets.engines import ENGINES
from relume.demo import draw_scene
from relume.engine import RECTIFIERS
from relume.explanation import WRITERS
from relume.models import SOURCES
from relume.models.libraries import import_torchvision
from relume.models.sources import open_model
from relume.pictures import FORMATS, KINDS

ROOT = Path(__file__).parents[1]
REGISTRIES = [relume.METHODS, CHECKS, DATASETS, ENGINES, FORMATS, KINDS, RECTIFIERS, SOURCES, WRITERS, evaluation.SOURCES]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def anchors(page):
    """Return the anchor that GitHub gives each heading of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Where a reader would stand: photos in the folder, and weights that torchvision could download.

    Since those are random, ResNet-50 is one of fewer and narrower blocks, with its own layers, channels and classes.
    """
    for name in ("dog.jpg", "cat.jpg", "photos/a.jpg", "photos/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((260, 240), 60).convert("RGB").save(tmp_path / name)
    scene = draw_scene(0, ["cat"])
    (tmp_path / "pictures").mkdir()
    scene.picture.resize((256, 256)).save(tmp_path / "pictures" / "cat.png")
    Image.fromarray(scene.things[0].mask).resize((256, 256)).save(tmp_path / "pictures" / "mask.png")
    (tmp_path / "pictures" / "masks.csv").write_text("picture,mask,class\ncat.png,mask.png,281\n")
    values = np.random.default_rng(0).normal(0, 200, (8, 10, 12)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    (tmp_path / "my_networks.py").write_text("from tests.helpers.networks import Pooled\n\nlung = lambda: Pooled(3, 1)\n")
    monkeypatch.chdir(tmp_path)
    cascade = dataclasses.replace(CHECKS["randomisation"], make=functools.partial(randomise, alone=False))
    monkeypatch.setitem(CHECKS, "randomisation", cascade)  # without the layers one by one, which are half of an audit's time
    vision = import_torchvision()
    initialise = vision.models.ResNet.__init__

    def smaller(self, block, layers, **options):
        bottleneck = block is vision.models.resnet.Bottleneck
        initialise(self, block, [1] * 4 if bottleneck else layers, **options | {"width_per_group": 8 if bottleneck else 64})

    monkeypatch.setattr(vision.models.ResNet, "__init__", smaller)

    def downloaded(self, *_args, **_kwargs):
        name = next(n for n in vision.models.list_models(vision.models) if self in vision.models.get_model_weights(n))
        torch.manual_seed(0)
        return vision.models.get_model(name, weights=None).state_dict()

    monkeypatch.setattr(vision.models.WeightsEnum, "get_state_dict", downloaded)
    return tmp_path


@pytest.fixture
def registries():
    """Give every registry back what it held, since pages add to them."""
    held = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, things in zip(REGISTRIES, held, strict=True):
        registry.clear()
        registry.update(things)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_python_blocks_run(page, user):
    namespace = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)
    if page.name == "README.md":
        assert namespace["saliency"].shape == (1, 224, 224)
        assert namespace["heat"].shape == (7, 7)
        assert namespace["e"]["guided_gradcam"].shape == (2, 3, 224, 224)
        assert (user / "out" / "explanation.json").is_file()
    if page.name == "comparison.md":
        assert (user / "evaluation" / "evaluation.json").is_file()


def test_the_rectgrad_of_the_docs_is_rectgrad():
    """Against RectGrad written out for a network of two layers."""
    namespace = {}
    exec(next(b for b in blocks(ROOT / "docs" / "rules.md", "python") if "def rectgrad" in b), namespace)
    first, second = nn.Conv2d(2, 4, 3).double(), nn.Linear(4 * 16, 3).double()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    pre = first(x)
    activation = pre.clamp(min=0)
    relevance = second.weight[1].view(1, 4, 4, 4).expand_as(activation)
    passed = torch.zeros_like(relevance)
    for n in range(2):
        contribution = activation[n] * relevance[n]
        threshold = torch.quantile(contribution.flatten(), 0.8)
        passed[n] = torch.where(contribution > threshold, relevance[n], 0)
    (expected,) = torch.autograd.grad(pre, x, passed)
    net = nn.Sequential(first, nn.ReLU(), nn.Flatten(), second)
    got = relume.Backpropagation(net, namespace["rectgrad"]).attribute(x, 1)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)
    assert got.any()


def test_commands_of_the_readme_run(user):
    commands = [line[2:] for block in blocks(ROOT / "README.md", "console") for line in block.splitlines() if line[:2] == "$ "]
    ran = 0
    for command in commands:
        program, *args = shlex.split(command, comments=True)
        if program == "make":
            assert re.search(rf"^{args[0]}:.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), command
        elif program == "relume":
            args = [str(p) for a in args for p in (sorted(user.glob(a)) if "*" in a else [a])]
            args += ["--scenes", "5"] if "--scenes" in args else []  # the last word counts, and fewer are as good a test
            if args[0] == "calibrate":  # which takes photographs that a trained network is sure of
                args = [args[0], "scenes:16", "--method", "gradcam", *args[args.index("--output") :]]
            result = CliRunner().invoke(app, args)
            assert result.exit_code == 0, result.output
            if args[0] == "audit":
                audits = json.loads((user / "audit" / "audit.json").read_text())["audits"]
                assert [audit["verdict"]["level"] for audit in audits] == ["points", "points"]
            ran += 1
        else:
            assert (program, args[0]) == ("pip", "install"), command
    assert ran == 10
    assert (user / "CALIBRATION" / "index.html").is_file()
    assert nibabel.load(next((user / "out").rglob("guided_gradcam.nii.gz"))).shape == (8, 10, 12)
    assert len(list((user / "maps").rglob("guided_gradcam.png"))) == 2


def test_the_readme_repeats_the_figures_of_the_comparison():
    """Of the measured table, four columns, rounded alike."""
    measured = {}
    for row in re.findall(r"^\| (.*) \|$", (ROOT / "docs" / "comparison.md").read_text(), flags=re.MULTILINE):
        name, *cells = row.split(" | ")
        measured[name] = measured.get(name, []) + [cell.partition(" ")[0] for cell in cells]
    readme = (ROOT / "README.md").read_text().partition("rank correlation between classes")[2].partition("## ")[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| ([^-].*) \|$", readme, flags=re.MULTILINE)]
    assert len(rows) == 6
    for name, *cells in rows:
        mass, _, _, right, between, length = measured[name.strip("*")][:6]
        assert cells[:3] == [mass, right, between]
        assert float(cells[3].removesuffix(" px")) == pytest.approx(float(length), abs=0.051)


def test_the_command_page_has_every_option_and_no_other():
    page = (ROOT / "docs" / "command.md").read_text()
    for name, command in typer.main.get_command(app).commands.items():
        section = page.partition(f"\n## relume {name}\n")[2].partition("\n## ")[0]
        assert section, f"docs/command.md has no section for relume {name}"
        shared = [
            title
            for title in ("The network", "The methods", "The pictures")
            if f"(#{title.lower().replace(' ', '-')})" in section
        ]
        shared.append("Every command")
        section += "".join(page.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in shared)
        documented = set(re.findall(r"^\| `(--[a-z-]+)", section, flags=re.MULTILINE))
        documented -= {"--model"} if name == "check" else set()
        assert documented == {o for p in command.params for o in p.opts if o.startswith("--")} - {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`\n]+`", "", page.read_text())):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), link
        assert not anchor or anchor in anchors(linked), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_rows_of_a_table_have_as_many_cells_as_its_head(page):
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_links_of_the_tour_lead_somewhere():
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text())["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_page_can_be_reached_from_the_readme(page):
    if page.name != "README.md":
        assert f"({page.relative_to(ROOT)})" in (ROOT / "README.md").read_text()


def first_column(page, heading):
    """Return the words in code of the first column of the table below a heading."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z_]+)`", section, flags=re.MULTILINE)


def test_the_table_of_rectifiers_lists_every_node():
    page = (ROOT / "docs" / "how-it-works.md").read_text()
    written = set(re.findall(r"\b([A-Z][A-Za-z0-9]+Backward[0-9])\b", page))
    written |= {name[:-1] + "1" for name in re.findall(r"\b([A-Z][A-Za-z0-9]+Backward0)/1", page)}
    assert written == set(RECTIFIERS)


def test_the_architecture_lists_every_room_and_every_module_of_the_engine():
    page = (ROOT / "docs" / "architecture.md").read_text()
    source = ROOT / "src" / "relume"
    rooms = {p.stem for p in source.glob("*.py")} | {p.parent.name for p in source.glob("*/__init__.py")}
    engine = {p.stem for p in (source / "engine").glob("*.py")} | {p.parent.name for p in source.glob("engine/*/__init__.py")}
    for heading, names in (("The rooms", rooms), ("Inside the engine", engine)):
        listed = first_column(page, heading)
        assert len(set(listed)) == len(listed)
        assert set(listed) == names - {"__init__", "__main__"}


def test_the_glossary_has_every_word_that_pages_link_to():
    page = (ROOT / "docs" / "glossary.md").read_text()
    for entry in page.split("\n### ")[1:]:
        assert "](" in entry, f"no page is named that uses {entry.partition(chr(10))[0]}"
    for group in page.split("\n## ")[1:]:
        assert len(group.split("\n### ")) > 2


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_is_what_its_script_writes(gallery):
    assert (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8") == gallery.text()


@pytest.mark.skipif(mpl.__version_info__ < (3, 11), reason="the pictures are stored with the letters of matplotlib 3.11")
@pytest.mark.parametrize("name", ["scales", "frames"])
def test_pictures_of_the_gallery_are_what_its_script_draws(gallery, name):
    """JPEG and another machine's last digits change a level here and there, and no picture."""
    network, scene = open_model("demo"), draw_scene(gallery.SEED, ["cat", "dog"]).picture
    drawn = gallery.scales(network) if name == "scales" else gallery.frames(network, gallery.wide(scene))
    with Image.open(io.BytesIO(drawn)) as new, Image.open(ROOT / "docs" / "images" / f"gallery-{name}.jpg") as stored:
        assert new.size == stored.size
        assert np.abs(np.asarray(new.convert("RGB"), dtype=int) - np.asarray(stored, dtype=int)).mean() < 3
