"""What is added from outside the package, one of each kind: a registry takes it, and everything else works with it."""

import importlib.metadata
import inspect

import numpy as np
import pytest
import torch
from torch import nn

import relume
from relume.auditing import CHECKS
from relume.demo import draw_scene
from relume.engine import RECTIFIERS
from relume.errors import InputError
from relume.evaluation import SOURCES as SAMPLES
from relume.explanation import WRITERS
from relume.measures import BASELINES, MEASURES, SIMILARITIES
from relume.models import SOURCES as MODELS
from relume.pictures import KINDS
from tests.helpers.commands import relume_command

REGISTRIES = (relume.METHODS, MODELS, CHECKS, RECTIFIERS, SAMPLES, WRITERS, BASELINES, MEASURES, SIMILARITIES, KINDS)

#: Fewer lines than these add one of anything, its imports included.
LINES = 15


@pytest.fixture(autouse=True)
def as_before():
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, things in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - set(things):
            del registry[name]


@pytest.fixture(scope="module")
def opened():
    return relume.open_model("demo")


@pytest.fixture(scope="module")
def photo():
    return draw_scene(7, ["cat", "dog"]).picture


# --- What a user writes --------------------------------------------------------------------------------------------------


def add_method():
    import relume
    from relume import rules

    def squared(gradients):
        return gradients.inputs[rules.guided] ** 2

    needs = frozenset({("input", rules.guided)})
    relume.METHODS["squared"] = relume.Method("squared", needs, squared, title="guided, squared", signed=False)


class Squared(torch.autograd.Function):
    """A rectifier that a user's network has, whose node saves its input."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0) ** 2

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0].clamp(min=0)


def add_rectifier():
    from relume.engine import RECTIFIERS, Rectifier

    def output(node):
        return node.saved_tensors[0].clamp(min=0) ** 2

    RECTIFIERS["SquaredBackward"] = Rectifier("squared", output, lambda node: node.saved_tensors[0] > 0)


def add_target():
    from relume.targets import Target

    class Margin(Target):
        def scores(self, outputs):
            highest = outputs.topk(2, dim=1).values
            return highest[:, 0] - highest[:, 1]

        def repeated(self, times):
            return self

    return Margin()


def add_model_source():
    from relume.models import SOURCES, Opened, Source
    from relume.pictures.preprocessing import Preprocessing

    def open_tiny(request):
        width = int(request.name)
        model = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))
        return Opened(request.spec, model.eval(), Preprocessing(32, 32), ("red", "blue"))

    SOURCES["tiny"] = Source("tiny:WIDTH", "two classes, one convolution", open_tiny)


def add_check():
    from relume.auditing import CHECKS, Check, Measure

    def spread(subject):
        return subject.maps.saliency.std((1, 2))

    measure = Measure("spread", "high", "An even map shows nothing.", lambda result: result)
    CHECKS["spread"] = Check("Spread", "How uneven the map is.", spread, {"spread": measure})


def add_kind_of_picture():
    from PIL import Image

    from relume.pictures import KINDS, Kind

    def grey(values, scale, photo=None):
        return Image.fromarray(np.uint8(np.clip(255 * np.abs(values).max(0) / scale, 0, 255)))

    KINDS["grey"] = Kind("grey", grey, (0, 1), "magnitudes in grey")


def add_output_format():
    from relume.explanation import WRITERS

    def highest(explanation, options):
        rows = [f"{key},{float(values.max())}\n" for key, values in explanation.maps.items()]
        return {"highest.csv": "".join(rows).encode()}

    WRITERS["highest"] = highest


def add_samples():
    from relume.evaluation import SOURCES, Sample

    def square(i):
        mask = np.zeros((128, 128), dtype=bool)
        mask[40:80, 40:80] = True
        return Sample(f"square {i}", torch.from_numpy(mask * np.ones((3, 1, 1)) * (i + 1)).float(), {i: mask})

    SOURCES["squares"] = lambda number, opened, seed: [lambda i=i: square(i) for i in range(int(number))]


def add_measure():
    from relume.measures import MEASURES, Measure

    def highest(heat, truth):
        return float(heat[truth.target].max() == heat.max())

    MEASURES["highest"] = Measure("highest pixel on target", "high", compute=highest)


ADDITIONS = {name: value for name, value in globals().items() if name.startswith("add_")}


@pytest.mark.parametrize("name", ADDITIONS)
def test_one_is_added_in_few_lines(name):
    assert len(inspect.getsource(ADDITIONS[name]).splitlines()) < LINES
    ADDITIONS[name]()


# --- And what works with it ----------------------------------------------------------------------------------------------


def test_a_method_is_explained_wrapped_audited_evaluated_and_a_word_of_the_command(opened, photo, tmp_path):
    add_method()
    e = opened.explain(photo, "cat", ["squared", "guided_backprop", relume.Smooth("squared", samples=2)])
    torch.testing.assert_close(e["squared"], e["guided_backprop"] ** 2)
    assert {"smooth_squared", "vargrad_squared"} <= e.maps.keys()
    assert e.infos["squared"].title == "guided, squared"
    assert relume.evaluate(opened, "scenes:1", ["squared"]).titles["squared"] == "guided, squared"
    assert relume.audit(opened.model, e.images, method="squared", checks=["edges"]).measures["edges"].shape == (1,)
    photo.save(tmp_path / "photo.png")
    result = relume_command("explain", tmp_path / "photo.png", "--method", "squared", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").rglob("squared.png"))) == 1


def test_a_rectifier_is_guided():
    add_rectifier()
    apply, x = Squared.apply, torch.randn(1, 3, 4, 4)
    weights = torch.randn(3, 48)
    assert [row.kind for row in relume.coverage(lambda x: apply(x).flatten(1) @ weights.T, x).rows] == ["squared"]
    guided = relume.explain(lambda x: apply(x).flatten(1) @ weights.T, x, 1, ["guided_backprop"])["guided_backprop"]
    torch.testing.assert_close(guided, 2 * x.clamp(min=0) * weights[1].clamp(min=0).view(1, 3, 4, 4))


def test_a_target_is_explained_by_parts_and_in_copies(opened, photo):
    target = add_target()
    images = torch.stack([opened.input_of(photo)[1], opened.input_of(draw_scene(3).picture)[1]])
    e = relume.explain(opened.model, images, target, ["gradient", relume.Smooth("gradient", samples=2)])
    two = e.scores.topk(2, dim=1).values
    torch.testing.assert_close(e.score, two[:, 0] - two[:, 1])
    parts = relume.explain(opened.model, images, target, ["gradient"], batch_size=1)
    torch.testing.assert_close(parts["gradient"], e["gradient"], rtol=1e-4, atol=1e-5)


def test_a_check_has_its_measures_and_its_row(opened, photo):
    add_check()
    report = relume.audit(opened.model, opened.input_of(photo)[1][None], method="gradient", checks=["spread"])
    assert report.measures["spread"] > 0
    assert "spread" in str(report)


def test_a_kind_of_picture_is_drawn(opened, photo, tmp_path):
    add_kind_of_picture()
    e = opened.explain(photo, methods=["gradient"])
    assert e.picture("gradient", kind="grey").mode == "L"
    e.save(tmp_path, kind="grey")
    assert (tmp_path / "gradient.png").is_file()


def test_an_output_format_is_written_and_checked(opened, photo, tmp_path):
    add_output_format()
    opened.explain(photo, methods=["gradient"]).save(tmp_path)
    assert (tmp_path / "highest.csv").read_text().startswith("gradient,")
    relume.Explanation.load(tmp_path)


def test_a_source_of_samples_is_evaluated_and_a_word_of_the_command(opened, tmp_path):
    add_samples()
    add_measure()
    evaluation = relume.evaluate(opened, "squares:2", ["gradcam"])
    assert (evaluation.samples, evaluation.provenance["data"]) == (2, "squares:2")
    assert evaluation.groups["Further measures"]["highest"].title == "highest pixel on target"
    assert evaluation.rows["uniform"]["highest"].mean == 1
    result = relume_command("evaluate", "--data", "squares:2", "--method", "gradcam")
    assert result.exit_code == 0, result.output
    assert "2 images, 2 classes explained" in result.stdout
    assert "highest pixel on target ↑" in " ".join(result.stdout.split())


# --- From another package ------------------------------------------------------------------------------------------------


def test_a_package_that_is_installed_adds_a_method(tmp_path, monkeypatch, opened, photo):
    (tmp_path / "other.py").write_text(
        f"{inspect.getsource(add_method)}\n\nadd_method()\nimport relume\nmethod = relume.METHODS['squared']\n"
    )
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[relume.methods]\nsquared = other:method\nbroken = other:nothing\n")
    with pytest.raises(InputError, match="there is no method 'squared'"):
        opened.explain(photo, methods=["squared"])
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.metadata.version("other") == "1.0"
    assert "squared" not in relume.METHODS
    assert "squared" in relume.METHODS.names()
    assert list(opened.explain(photo, methods=["squared"]).maps) == ["squared"]
    assert "squared" in relume.METHODS


def test_a_model_source_is_opened_by_its_spec(photo):
    add_model_source()
    opened = relume.open_model("tiny:4")
    assert (opened.name, opened.model[0].out_channels) == ("tiny:4", 4)
    assert opened.explain(photo, "blue", ["gradient"])["gradient"].shape == (1, 3, 32, 32)
